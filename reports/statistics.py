"""The statistics of few paired seeds: pure functions of numbers, through scipy.

Seeds are the only independent units. Arms of one seed share initialisation, data order, noise and, here,
whole prefixes of training, so they are correlated and every comparison is paired by seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]
Interval = tuple[float, float]
EXACT_SIGN_FLIPS = 2**16  # all sign flips of up to 16 seeds; beyond, as many random ones


@dataclass(frozen=True)
class PairedT:
    """Student's t of differences paired by seed: their mean, its interval, their sd, the two-sided p."""

    n: int
    mean: float
    sd: float
    interval: Interval
    p: float


def degenerate(differences: Array) -> bool:
    """Whether the differences do not vary (up to rounding), so that no t test exists."""
    spread = float(np.ptp(differences))
    return spread <= 1e-12 * max(1e-300, float(np.abs(differences).max()))


def paired_t(a: Array, b: Array, alpha: float = 0.05) -> PairedT | None:
    """`scipy.stats.ttest_rel` (one sample's t of a − b) with its interval (Student 1908); None where n < 2 or nothing
    varies."""
    d = a - b
    if len(d) < 2 or degenerate(d):
        return None
    result = stats.ttest_1samp(d, 0.0)
    low, high = result.confidence_interval(1 - alpha)
    interval = (float(low), float(high))
    return PairedT(len(d), float(d.mean()), float(d.std(ddof=1)), interval, float(result.pvalue))


def paired_p(differences: Array) -> list[float | None]:
    """The p of `paired_t` of every row of differences, all at once; None where that has none."""
    varies = [len(row) > 1 and not degenerate(row) for row in differences]
    p = iter(stats.ttest_1samp(differences[varies], 0.0, axis=1).pvalue if any(varies) else ())
    return [float(next(p)) if one else None for one in varies]


def equivalence_p(differences: Array, bound: float) -> float:
    """p of two one-sided t tests that the mean lies within ±bound (Schuirmann 1987): the larger of the two.

    It is below α exactly where the 1 − 2α interval of the mean lies within ±bound.
    """
    above = stats.ttest_1samp(differences, -bound, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, bound, alternative="less").pvalue
    return float(max(above, below))


def agreement(agrees: NDArray[np.bool_], confidence: float = 0.95) -> tuple[int, Interval]:
    """How many of the seeds agree, and the exact interval of their share (Clopper, Pearson 1934)."""
    k = int(agrees.sum())
    return k, _interval_of_share(k, len(agrees), confidence)


@cache
def _interval_of_share(k: int, n: int, confidence: float) -> Interval:
    interval = stats.binomtest(k, n).proportion_ci(confidence)
    return float(interval.low), float(interval.high)


def sign_flip_p(differences: Array) -> float | None:
    """Two-sided p of the mean when signs are exchangeable (Fisher 1935; `scipy.stats.permutation_test`).

    Exact up to 16 seeds. None under 6 seeds, where the smallest possible p, 2 / 2^n, exceeds 0.05.
    """
    if len(differences) < 6:
        return None
    result = stats.permutation_test(
        (differences,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=EXACT_SIGN_FLIPS,
        batch=4096,
        rng=0,
    )
    return float(result.pvalue)


def page(values: Array) -> tuple[float, float]:
    """One-sided p of Page's L (1963) that columns rise, and that they fall (`scipy.stats.page_trend_test`).

    Rows are seeds (blocks), columns levels in order. Needs at least 2 rows and 3 columns.
    """
    rises = stats.page_trend_test(values).pvalue
    falls = stats.page_trend_test(values[:, ::-1]).pvalue
    return float(rises), float(falls)


def slopes(values: Array, levels: Sequence[float]) -> Array:
    """The least-squares slope of every row (seed) against the levels.

    Their one-sample t needs only that seeds are independent. Page's L also takes levels as exchangeable
    within a seed, which arms that share a prefix are not: with 12 seeds of 5 levels correlated as
    0.8^distance it rejects a true null in 10 % of cases at a nominal 5 %, the slopes' t in 5 % (see tests).
    """
    x = np.asarray(levels, dtype=float)
    x = x - x.mean()
    return np.asarray(values @ x / (x @ x), dtype=float)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number by Holm's step-down method (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def power(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test, by the noncentral t distribution."""
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    nc = abs(effect) * math.sqrt(n) / sd
    far_tail = np.nan_to_num(stats.nct.cdf(-critical, n - 1, nc))  # nan where it vanishes
    return float(stats.nct.sf(critical, n - 1, nc) + far_tail)


def resolvable(sd: float, n: int, alpha: float = 0.05, wanted: float = 0.8) -> float | None:
    """The smallest difference that n pairs of this sd show with the wanted power; None where n < 2 or sd = 0.

    It uses the sd observed, never the effect: it says what the experiment could see, not what it saw.
    """
    return None if n < 2 or not sd > 0 else sd * _resolvable_in_sds(n, alpha, wanted)


@cache
def _resolvable_in_sds(n: int, alpha: float, wanted: float) -> float:
    """The same in units of the sd, on which alone the power depends."""
    high = 1.0
    while power(high, 1.0, n, alpha) < wanted:
        high *= 2
    root = optimize.brentq(lambda effect: power(effect, 1.0, n, alpha) - wanted, 0.0, high, rtol=1e-6)
    return float(root)


def t_band(values: Array, confidence: float = 0.95) -> tuple[Array, Array, Array]:
    """Mean over the rows and Student's interval of it, column by column; nan left out, bounds need n ≥ 2."""
    measured = ~np.isnan(values)
    n = measured.sum(axis=0)
    mean = np.where(measured, values, 0.0).sum(axis=0) / np.where(n, n, 1)
    variance = np.where(measured, (values - mean) ** 2, 0.0).sum(axis=0) / np.where(n > 1, n - 1, 1)
    half = stats.t.ppf((1 + confidence) / 2, np.where(n > 1, n - 1, 1)) * np.sqrt(variance / np.where(n, n, 1))
    mean = np.where(n, mean, np.nan)
    half = np.where(n > 1, half, np.nan)
    return mean, mean - half, mean + half


def relative(value: float | None, reference: float | None) -> float | None:
    """Value minus reference, in % of the reference; None where one of them is not known."""
    return None if value is None or not reference else 100 * (value - reference) / abs(reference)
