"""Two one-sided t tests against independent computations, and what an equivalence is decided by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from reports import statistics as st
from reports.claimwords import declared
from reports.predicates import Sample, decide, effect
from studies.claim import Claim

CLAIM = Claim(id="e", text="e", where="w", panel="p", test="equivalence", arms=("a", "b"), margin=0.1)


def judged(values: np.ndarray, claim: Claim = CLAIM) -> tuple[str, str]:
    sample = Sample(claim, values, ["a", "b"], [None, None])
    return decide(sample, effect(sample), None)


@given(some.integers(0, 2**32 - 1), some.integers(2, 5), some.floats(-12, 12), some.floats(0.2, 8), some.booleans())
@settings(max_examples=100)
def test_by_hand(seed: int, n: int, shift: float, spread: float, ratios: bool) -> None:
    """The verdict is that of t statistics written out, and of the interval written out: of log ratios within
    ±log 1.1, or of differences within 10 % of the second arm's mean. (Up to 5 seeds there is no more to it.)"""
    rng = np.random.default_rng(seed)
    b = rng.normal(100, 3, n)
    a = b + rng.normal(shift, spread, n)
    sample = Sample(CLAIM, np.column_stack([a, b]), ["a", "b"], [None, None], signed=not ratios)
    found = effect(sample)
    d, bound = (np.log(a / b), math.log(1.1)) if ratios else (a - b, 0.1 * b.mean())
    error = d.std(ddof=1) / math.sqrt(n)
    inside = max(1 - stats.t.cdf((d.mean() + bound) / error, n - 1), stats.t.cdf((d.mean() - bound) / error, n - 1))
    outside = 2 * (1 - stats.t.cdf((abs(d.mean()) - bound) / error, n - 1))
    assert found["p"] == pytest.approx(inside if abs(d.mean()) <= bound else outside, rel=1e-6, abs=1e-12)
    half = stats.t.ppf(0.95, n - 1) * error
    inner = np.array([d.mean() - half, d.mean() + half])
    if ratios:
        assert found["bound_percent"] == pytest.approx((100 * (1 / 1.1 - 1), 10.0)) and "bound" not in found
        assert found["inner_interval_percent"] == pytest.approx(tuple(100 * np.expm1(inner)))
    else:
        assert found["bound"] == pytest.approx(bound) and found["inner_interval"] == pytest.approx(tuple(inner))
    outer = stats.t.ppf(0.975, n - 1) * error
    verdict, _ = decide(sample, found, None)
    if verdict == "supported":
        assert inside < 0.05 and abs(d.mean()) + half <= bound
    elif verdict == "contradicted":
        assert abs(d.mean()) - outer > bound
    else:
        assert inside > 0.05 and abs(d.mean()) - outer <= bound
    assert found["agree"] == int((np.abs(d) <= bound).sum()) and found["p_sign_flip"] is None


def test_it_is_symmetric() -> None:
    """Which arm is named first does not matter: 10 % more is as far away as 1/1.1."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        values = np.exp(rng.normal(rng.uniform(-0.15, 0.15), 0.05, size=(8, 1)) * [1.0, 0.0] + rng.normal(size=(8, 1)))
        assert judged(values) == judged(values[:, ::-1])


@pytest.mark.parametrize("shift, verdict", [(0.0, "supported"), (25.0, "contradicted"), (-25.0, "contradicted")])
def test_planted_differences(shift: float, verdict: str) -> None:
    rng = np.random.default_rng(1)
    b = rng.normal(100, 10, 12)  # pairing takes the spread of seeds out
    said, reason = judged(np.column_stack([b + shift + rng.normal(0, 4, 12), b]))
    assert said == verdict and "margin" in reason


def test_it_is_seldom_supported_at_the_margin() -> None:
    """A difference as large as the margin is called equivalent at most in a share α of cases."""
    rng, runs = np.random.default_rng(2), 300
    seen = 0
    for _ in range(runs):
        b = np.full(8, 100.0)
        seen += judged(np.column_stack([b + 10 + rng.normal(0, 3, 8), b]))[0] == "supported"
    assert stats.binomtest(seen, runs, 0.05).pvalue > 1e-3


@pytest.mark.parametrize("values", [np.empty((0, 2)), np.ones((1, 2)), np.ones((5, 2)), np.zeros((3, 2))])
@pytest.mark.filterwarnings("error")
def test_odd_data_are_undecided(values: np.ndarray) -> None:
    assert judged(values)[0] == "undecided"


def test_words_and_no_direction() -> None:
    said = declared(CLAIM)
    assert said.startswith("value at the end of the last stage (panel p): a / b between 1 / 1.1 and 1.1 (±10 %);")
    assert "two one-sided t tests of the log ratios" in said
    assert "a − b within ±10 % of the mean of b; two one-sided t tests, paired" in declared(CLAIM, ratios=False)
    assert st.p_within(np.array([-0.1, 0.1, 0.05]), 10.0) < 1e-3
