"""The law of (r, t), with and without a bound on t: draws against rejection, expectations against sums."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from meanflow_core.registry import parse_spec
from meanflow_core.times import TimeSampler
from tests.meanflow_core import naive

OFFICIAL = {"mean": -0.4, "std": 1.0}
WIDE = {"mean": -0.4, "std": 1.6}
UNIFORM: dict[str, float] = {}
LAWS = {"official": OFFICIAL, "wide": WIDE, "uniform": UNIFORM}
BOUNDS = [0.0, 0.05, 0.5, 0.95]
N = 20_000


def sampler(law: dict[str, float]) -> TimeSampler:
    built: TimeSampler = parse_spec("time_sampler", {"name": "logit_normal", **law} if law else "uniform").build()
    return built


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


laws = st.one_of(
    st.just(UNIFORM), st.fixed_dictionaries({"mean": st.floats(-1, 1), "std": st.floats(0.5, 3)})
)  # fmt: skip
bounds = st.one_of(st.just(0.0), st.floats(1e-9, 0.95))


# --- expectations ------------------------------------------------------------------------------------------


def test_the_mean_gap_of_the_official_sampler() -> None:
    gap = sampler(OFFICIAL).mean_gap()
    assert gap == pytest.approx(0.233420, abs=1e-6)
    assert 1 / (1 - gap) == pytest.approx(1.3045, abs=5e-5), "λ"
    assert 1 / (1 - 0.25 * gap) == pytest.approx(1.062, abs=5e-4), "what λ would be with the rows of r = t counted"


def test_lambda_of_independent_uniform_times() -> None:
    assert 1 / (1 - sampler(UNIFORM).mean_gap()) == pytest.approx(3 / 2, abs=1e-12)


def test_rows_that_train_v_see_the_larger_of_two_draws() -> None:
    official = sampler(OFFICIAL)
    assert official.mean_over_t(lambda t: t) == pytest.approx(0.535, abs=1e-3)
    assert naive.quantiles(OFFICIAL, 10_000).mean() == pytest.approx(0.418, abs=1e-3), "of a single draw"


@pytest.mark.parametrize("above", BOUNDS)
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_expectations_are_double_sums(law: dict[str, float], above: float) -> None:
    ours = sampler(law)
    assert ours.mean_gap(above) == pytest.approx(naive.mean_gap(law, above), abs=1e-5)
    for g in (np.square, np.sqrt, lambda t: np.minimum(t, 0.6)):
        assert ours.mean_over_t(g, above) == pytest.approx(naive.mean_of_t(g, law, above), abs=2e-5)


@pytest.mark.parametrize("above", BOUNDS)
def test_uniform_times_in_closed_form(above: float) -> None:
    """X ~ U[a, 1], Y ~ U[0, 1]: E|X − Y| = (1 + a + a²)/3 − a/2, E max = 1 − ∫ x(x − a)/(1 − a)."""
    a, uniform = above, sampler(UNIFORM)
    assert uniform.mean_gap(a) == pytest.approx((1 + a + a**2) / 3 - a / 2, abs=1e-12)
    assert uniform.mean_over_t(lambda t: t, a) == pytest.approx(1 - (1 / 3 - a / 2 + a**3 / 6) / (1 - a), abs=1e-12)


@settings(max_examples=60)
@given(laws, bounds)
def test_expectations_are_those_of_a_law(law: dict[str, float], above: float) -> None:
    """Probabilities sum to 1, t lies above the bound, and quadrature has nothing to complain about."""
    ours = sampler(law)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ours.mean_over_t(lambda t: 1.0, above) == pytest.approx(1)
        t, gap = ours.mean_over_t(lambda t: t, above), ours.mean_gap(above)
    assert above <= t <= 1
    assert 0 < gap <= t, "r ≥ 0"
    assert gap == pytest.approx(2 * t - _mean(law, above) - _mean(law, 0.0), abs=1e-5), "|X − Y| = 2·max − X − Y"


def _mean(law: dict[str, float], above: float) -> float:
    return float(naive.quantiles(law, 20_000, above).mean())


class Square(TimeSampler):
    """A law of one's own, F(x) = x²: no more is asked for."""

    def cdf(self, x: float) -> float:
        return x * x

    def quantile(self, p: float) -> float:
        return math.sqrt(p)

    def draw(self, n: int, rng: torch.Generator, t_above: float = 0.0) -> tuple[Tensor, Tensor]:
        free = torch.rand(2, n, generator=rng).sqrt()
        return free.amin(0), free.amax(0)


def test_a_law_of_ones_own_inherits_the_expectations() -> None:
    """E|X − Y| = 2∫F(1 − F) = 4/15, E max = ∫x·dx⁴ = 4/5."""
    assert Square().mean_gap() == pytest.approx(4 / 15)
    assert Square().mean_over_t(lambda t: t) == pytest.approx(4 / 5)
    half = 2 * Square().mean_over_t(lambda t: t, 0.5) - 7 / 9 - 2 / 3  # E[X | X ≥ ½] = 7/9
    assert Square().mean_gap(0.5) == pytest.approx(half)


@settings(max_examples=60)
@given(laws, st.floats(0.001, 0.999))
def test_quantiles_invert_the_law(law: dict[str, float], p: float) -> None:
    ours = sampler(law)
    assert ours.cdf(ours.quantile(p)) == pytest.approx(p, abs=1e-9)
    assert (ours.cdf(0.0), ours.cdf(1.0), ours.quantile(0.0), ours.quantile(1.0)) == (0, 1, 0, 1)


# --- draws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", BOUNDS[1:])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_draws_have_the_law_of_rejection(law: dict[str, float], above: float) -> None:
    """r, t and their gap, each by a two-sample Kolmogorov–Smirnov test."""
    n = N // 5
    r, t = (times.numpy() for times in sampler(law).draw(n, rng(), above))
    naive_r, naive_t = naive.rejected_pairs(law, above, n)
    for ours, theirs in ((r, naive_r), (t, naive_t), (t - r, naive_t - naive_r)):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_the_first_of_twenty_clusters_holds_next_to_nothing() -> None:
    """0.04 % of the mass: to be drawn by inverse CDF, since rejection would need 2400 attempts a draw."""
    official = sampler(OFFICIAL)
    assert 1 - official.cdf(0.95) == pytest.approx(0.0004, abs=5e-5)
    assert 1 / (1 - official.mean_gap(0.95)) == pytest.approx(2.1837, abs=5e-5), "λ of the first stage"
    r, t = official.draw(N, rng(), 0.95)
    assert (t >= 0.95).all()
    normal = torch.logit(t.double()) - OFFICIAL["mean"]
    share = torch.special.ndtr(-normal) / (1 - official.cdf(0.95))
    assert stats.kstest(share.numpy(), "uniform").pvalue > 1e-3, "t, all but always X, has the law of the tail"
    assert float(r.mean()) == pytest.approx(0.418, abs=0.01), "r, all but always Y, has that of a free draw"


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_without_a_bound_it_is_the_ordinary_sampler_bitwise(law: dict[str, float]) -> None:
    g = rng(3)
    free = torch.sigmoid(law["mean"] + law["std"] * torch.randn(2, 1000, generator=g)) if law else torch.rand(
        2, 1000, generator=g)  # fmt: skip
    expected = free.sort(0).values
    for drawn in (sampler(law).draw(1000, rng(3)), sampler(law).draw(1000, rng(3), 0.0)):
        assert torch.equal(torch.stack(drawn), expected)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_one_of_the_two_draws_stays_free(law: dict[str, float]) -> None:
    """Bitwise, whatever the bound: Y is the same number, and is r or t."""
    if law:
        y = torch.sigmoid(law["mean"] + law["std"] * torch.randn(2, 1000, generator=rng(4)))[1]
    else:
        y = torch.rand(2, 1000, generator=rng(4))[1]
    for above in (0.2, 0.9):
        r, t = sampler(law).draw(1000, rng(4), above)
        raised = (t == torch.tensor(above)) & (r <= t)  # t may be lifted onto the bound, by an ulp
        assert ((r == y) | (t == y) | raised).all()
        assert (r[y < above] == y[y < above]).all(), "a Y below the bound is r"
        assert (r < above).any(), "r is not held above"


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_as_the_bound_falls_draws_become_the_ordinary_ones(law: dict[str, float]) -> None:
    ordinary = torch.stack(sampler(law).draw(N, rng(5)))
    far = [
        float((torch.stack(sampler(law).draw(N, rng(5), above)) - ordinary).abs().max())
        for above in (0.3, 0.03, 0.003, 1e-9)
    ]
    assert far == sorted(far, reverse=True) and far[0] > 0.05
    assert far[-1] < 1e-6


@settings(max_examples=80)
@given(laws, bounds, bounds, st.integers(0, 2**32))
def test_draws_under_any_bound(law: dict[str, float], one: float, other: float, seed: int) -> None:
    """0 ≤ r ≤ t ≤ 1, t at or above the bound, and a higher bound gives later times from the same random numbers."""
    low, high = sorted((one, other))
    (r, t), (later_r, later_t) = (sampler(law).draw(200, rng(seed), above) for above in (low, high))
    for times in (r, t):
        assert times.shape == (200,) and times.dtype == torch.float32
    assert (r >= 0).all() and (r <= t).all() and (t <= 1).all()
    assert (t >= torch.tensor(low)).all() and (later_t >= torch.tensor(high)).all()
    ulp = torch.finfo(torch.float32).eps
    assert (later_t >= t - ulp).all() and (later_r >= r - ulp).all()


@pytest.mark.parametrize("bound", [0.0, 0.3, 0.9])
def test_uniform_t_drawn_again_has_the_conditional_law(bound: float) -> None:
    uniform: Any = sampler(UNIFORM)
    t = uniform.draw(50 * N, rng(6))[1]
    drawn = uniform.draw_t_above(torch.full((N,), bound), rng(7))
    assert (drawn >= torch.tensor(bound)).all() and (drawn <= 1).all()
    assert stats.ks_2samp(t[t >= bound][:N].numpy(), drawn.numpy()).pvalue > 1e-3
