from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from reports import statistics as st


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; the last is raised to 0.06
    assert st.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert st.holm([0.6, 0.9]) == [1.0, 1.0]
    assert st.holm([]) == []


def test_holm_by_family() -> None:
    found = st.holm_by_family(["a", "b", "a", None, "a"], [0.01, 0.04, 0.02, 0.03, None])
    assert found == [(pytest.approx(0.03), 3), (pytest.approx(0.04), 1), (pytest.approx(0.04), 3), (None, 0), (None, 3)]


@given(some.lists(some.floats(0, 1), max_size=8))
def test_holm_keeps_order_and_never_lowers(p: list[float]) -> None:
    adjusted = st.holm(p)
    assert all(a >= x for a, x in zip(adjusted, p, strict=True)) and all(a <= 1 for a in adjusted)
    in_order = [adjusted[i] for i in np.argsort(p, kind="stable")]
    assert in_order == sorted(in_order)


def test_paired_t_by_hand() -> None:
    # d = 1, 2, 3: mean 2, sd 1, se 1/√3, t(0.975, 2) = 4.302653
    t = st.paired_t(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    assert t is not None and (t.n, t.mean, t.sd) == (3, 2.0, 1.0)
    half = 4.302653 / math.sqrt(3)
    assert t.interval == pytest.approx((2 - half, 2 + half), abs=1e-5)


@pytest.mark.parametrize("a, b", [([1.0], [2.0]), ([], []), ([3.0, 3.0], [1.0, 1.0]), ([2.0, 2.0], [2.0, 2.0])])
@pytest.mark.filterwarnings("error")
def test_no_t_without_variation(a: list[float], b: list[float]) -> None:
    assert st.paired_t(np.array(a), np.array(b)) is None


def test_agreement_is_exact() -> None:
    k, (low, high) = st.agreement(np.array([True, True, True, False]))
    assert k == 3
    assert (low, high) == pytest.approx((0.19412, 0.99369), abs=1e-5)


def test_sign_flip_enumerates() -> None:
    assert st.sign_flip_p(np.ones(5)) is None
    assert st.sign_flip_p(np.arange(1.0, 7.0)) == pytest.approx(2 / 2**6)
    twenty = np.random.default_rng(0).normal(0.3, 1, 20)  # beyond enumeration, yet the same every time
    assert st.sign_flip_p(twenty) == st.sign_flip_p(twenty)


def test_page_by_hand() -> None:
    # every one of 3 blocks in perfect order: probability (1/3!)^3; in reverse, certainty
    rises, falls = st.page(np.array([[1.0, 2, 3], [4, 5, 6], [0, 5, 9]]))
    assert rises == pytest.approx(1 / 216) and falls == pytest.approx(1.0)


def test_slopes_are_least_squares() -> None:
    rng, levels = np.random.default_rng(0), [0.0, 5, 10, 20]
    values = rng.normal(size=(3, 4))
    assert st.slopes(values, levels) == pytest.approx(np.polyfit(levels, values.T, 1)[0])


def test_slopes_hold_their_level_where_pages_test_does_not() -> None:
    """Neighbouring levels correlated, as in arms that share a prefix; no trend."""
    rng, n, runs = np.random.default_rng(1), 12, 600
    root = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5))))
    page = slope = 0
    for _ in range(runs):
        values = rng.normal(size=(n, 5)) @ root.T
        page += st.page(values)[0] < 0.05
        slope += stats.ttest_1samp(st.slopes(values, [0, 5, 10, 15, 20]), 0, alternative="greater").pvalue < 0.05
    assert page / runs > 0.07
    assert stats.binomtest(slope, runs, 0.05).pvalue > 1e-3


@pytest.mark.parametrize("n", [3, 12])
def test_resolvable_difference_by_simulation(n: int) -> None:
    least = st.resolvable(2.0, n)
    assert least is not None
    d = np.random.default_rng(n).normal(least, 2.0, size=(4000, n))
    seen = int((st.p_two_sided(d) < 0.05).sum())
    assert stats.binomtest(seen, 4000, 0.8).pvalue > 1e-3


@given(some.integers(2, 200), some.floats(1e-6, 1e6), some.floats(0.001, 0.2))
def test_resolvable_scales_with_the_spread(n: int, sd: float, alpha: float) -> None:
    one, other = st.resolvable(1.0, n, alpha), st.resolvable(sd, n, alpha)
    assert one is not None and other == pytest.approx(sd * one, rel=1e-4)
    assert st.power(one, 1.0, n, alpha) == pytest.approx(0.8, abs=1e-4)


def test_resolvable_needs_spread_and_two_seeds() -> None:
    assert st.resolvable(0.0, 5) is None and st.resolvable(1.0, 1) is None


@pytest.mark.filterwarnings("error")
def test_band_leaves_out_what_is_missing() -> None:
    values = np.array([[1.0, 2.0, np.nan, np.nan], [3.0, np.nan, 5.0, np.nan], [5.0, 2.0, 7.0, np.nan]])
    mean, low, high = st.t_band(values)
    assert mean[:3] == pytest.approx([3.0, 2.0, 6.0]) and np.isnan(mean[3])
    expected = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem(values[:, 0]))
    assert (low[0], high[0]) == pytest.approx(expected)
    assert np.isnan(st.t_band(values[:1])[1]).all()  # one seed has no interval
