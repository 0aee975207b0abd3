"""The statistics of few paired seeds: pure functions of numbers, through scipy.

Seeds are the only independent units. Arms of one seed share initialisation, data order, noise and, here,
whole prefixes of training, so they are correlated and every comparison is paired by seed.

Every verdict, order and ranking goes the same way: `tested` says on which scale (log ratios of what is positive),
`p_above` is the one test, `holm` the one correction, and what is below α after it is decided. What that rule does on
known laws is simulated in `benchmarks.verdict_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]
Interval = tuple[float, float]
EXACT_SIGN_FLIPS = 2**16  # all sign flips of up to 16 seeds; beyond, as many random ones
SKEWNESS_FROM = 6  # seeds from which on skewness is corrected for: that of fewer says next to nothing
SIMULATED_TO = 64  # seeds up to which power is simulated; beyond, the correction for skewness costs next to none
DRAWS = 20_000
LARGEST_LOG = 700.0  # exp of more overflows


@dataclass(frozen=True)
class PairedT:
    """Differences paired by seed: their mean, Student's interval of it, their sd, and the two-sided p of `p_above`."""

    n: int
    mean: float
    sd: float
    interval: Interval
    p: float


def tested(values: Array, *, signed: bool = False) -> tuple[Array, bool]:
    """The scale on which values are compared: their logs, and True, where all are positive, so that differences are
    log ratios; else the values themselves, and False. ``signed``: what can be 0 or negative by its nature, as cosines
    can, is never compared as a ratio.

    Distances and relative errors of training runs are spread by factors. So the ratio of two is nearly symmetric on a
    log scale where their difference is skewed, and its interval, unlike that of a difference in % of the reference's
    mean, knows that the reference varies as well.
    """
    ratios = not signed and bool(values.size) and bool((values > 0).all())
    return (np.log(values), True) if ratios else (values, False)


def as_percent(log_ratio: float) -> float:
    """A log ratio in %: 100 (e^x − 1)."""
    return 100 * math.expm1(min(log_ratio, LARGEST_LOG))


def as_log_ratio(percent: float) -> float:
    """The log ratio of a difference in %, which is above −100."""
    return math.log1p(percent / 100)


def degenerate(differences: Array) -> bool:
    """Whether the differences do not vary (up to rounding), so that no t test exists."""
    spread = float(np.ptp(differences))
    return spread <= 1e-12 * max(1e-300, float(np.abs(differences).max()))


def p_above(differences: Array, bound: float = 0.0) -> Array:
    """One-sided p that the mean of each row (seeds along the last axis) lies above a bound.

    That of Student's t (1908) and, from `SKEWNESS_FROM` seeds on, the larger of it and that of Hall's t (1992). Rows
    that do not vary have no test.
    """
    d = np.asarray(differences, dtype=float)
    n = d.shape[-1]
    scaled = (d.mean(axis=-1) - bound) / d.std(axis=-1, ddof=1)
    t = scaled if n < SKEWNESS_FROM else np.minimum(scaled, _without_skewness(scaled, stats.skew(d, axis=-1), n))
    return np.asarray(stats.t.sf(math.sqrt(n) * t, n - 1))


def _without_skewness(mean: Array, skewness: Array, n: int) -> Array:
    """A mean in units of the sd, transformed so that n times its square is nearly free of the law's skewness g:
    S + g S²/3 + g² S³/27 + g/(6n), which rises with S (Hall, J. R. Statist. Soc. B 54, 221, 1992)."""
    return mean + skewness * mean**2 / 3 + skewness**2 * mean**3 / 27 + skewness / (6 * n)


def p_two_sided(differences: Array) -> Array:
    """Two-sided p that the mean of each row is not 0: twice the smaller of both `p_above`."""
    return np.minimum(1.0, 2 * np.minimum(p_above(differences), p_above(-differences)))


def paired_t(a: Array, b: Array, alpha: float = 0.05) -> PairedT | None:
    """The mean of a − b, paired by seed, with Student's interval at 1 − α and `p_two_sided`; None where n < 2 or
    nothing varies."""
    d = a - b
    if len(d) < 2 or degenerate(d):
        return None
    low, high = stats.ttest_1samp(d, 0.0).confidence_interval(1 - alpha)
    return PairedT(len(d), float(d.mean()), float(d.std(ddof=1)), (float(low), float(high)), float(p_two_sided(d)))


def paired_p(differences: Array) -> list[float | None]:
    """`p_two_sided` of every row of differences, all at once; None where that has none."""
    varies = [len(row) > 1 and not degenerate(row) for row in differences]
    p = iter(p_two_sided(differences[varies]) if any(varies) else ())
    return [float(next(p)) if one else None for one in varies]


def p_within(differences: Array, bound: float) -> Array:
    """p that the mean of each row lies within ±bound: the larger of two one-sided tests' (Schuirmann 1987)."""
    return np.maximum(p_above(differences, -bound), p_above(-differences, -bound))


def p_outside(differences: Array, bound: float) -> Array:
    """Two-sided p that the mean of each row lies outside ±bound."""
    return np.minimum(1.0, 2 * np.minimum(p_above(differences, bound), p_above(-differences, bound)))


def prediction_interval(values: Array, confidence: float = 0.95) -> Interval | None:
    """Where one more value of the same normal law falls: mean ± t s √(1 + 1/n). None where n < 2.

    The interval of the mean is another: one more value falls outside that in 16 % of cases at n = 3, in 55 % at
    n = 12.
    """
    n = len(values)
    if n < 2:
        return None
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) * math.sqrt(1 + 1 / n))
    return float(values.mean()) - half, float(values.mean()) + half


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


def holm_by_family(families: Sequence[Hashable], p_values: Sequence[float | None]) -> list[tuple[float | None, int]]:
    """For each test its p adjusted within its family, and how many tests that has. A test without a p yet counts as
    well, as if its p were 1: a family is as large as declared, and what comes in later can only decide more. Of the
    family None are tests that are not adjusted."""
    adjusted: list[tuple[float | None, int]] = [(None, 0)] * len(p_values)
    for family in dict.fromkeys(families):
        own = [i for i, of in enumerate(families) if of == family and family is not None]
        known = [1.0 if (p := p_values[i]) is None else p for i in own]
        for i, p in zip(own, holm(known), strict=True):
            adjusted[i] = (None if p_values[i] is None else p, len(own))
    return adjusted


def student_power(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Power of Student's two-sided paired t test, by the noncentral t distribution."""
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    nc = abs(effect) * math.sqrt(n) / sd
    far_tail = np.nan_to_num(stats.nct.cdf(-critical, n - 1, nc))  # nan where it vanishes
    return float(stats.nct.sf(critical, n - 1, nc) + far_tail)


def power(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """How often p of `p_two_sided` is below α where n differences are normal.

    Where skewness is corrected for, from `SKEWNESS_FROM` seeds on, that costs some power: it is simulated, with fixed
    draws, up to `SIMULATED_TO` seeds.
    """
    if not SKEWNESS_FROM <= n <= SIMULATED_TO:
        return student_power(effect, sd, n, alpha)
    mean, spread, skewness = _draws(n)
    scaled = (mean + abs(effect) / sd) / spread
    critical = stats.t.ppf(1 - alpha / 2, n - 1) / math.sqrt(n)
    without = _without_skewness(scaled, skewness, n)
    seen = (np.minimum(scaled, without) > critical) | (np.maximum(scaled, without) < -critical)
    return float(seen.mean())


@cache
def _draws(n: int) -> tuple[Array, Array, Array]:
    """Mean, sd and skewness of `DRAWS` samples of n standard normal numbers and, so that none is skewed for good, of
    as many with their signs turned."""
    z = np.random.default_rng(n).normal(size=(DRAWS // 2, n))
    mean, spread, skewness = z.mean(axis=1), z.std(axis=1, ddof=1), stats.skew(z, axis=1)
    return np.concatenate([mean, -mean]), np.concatenate([spread, spread]), np.concatenate([skewness, -skewness])


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
