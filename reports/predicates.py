"""A claim's predicate tested on complete seeds: effect, trend, decision. Odd data never raise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from reports import statistics as st
from reports.speedup import summed_up
from reports.verdicts import Judgement, Level, Trend
from studies.claim import Claim


def sign_of(claim: Claim) -> int:
    """The sign of the effect claimed; an equivalence claims none."""
    return -1 if claim.direction == "decreasing" else 1


@dataclass(frozen=True)
class Sample:
    """What a test needs: summaries of the complete seeds, one column an arm in the order compared. Of a speed-up these
    are log₂ of the speed-up over the second arm, and ``lasting`` those of the first arm that last."""

    claim: Claim
    values: st.Array
    arms: list[str]
    levels: list[float | None]
    seeds: Sequence[int] = ()
    lasting: st.Array | None = None

    @property
    def pair(self) -> tuple[int, int]:
        """Columns (a, b) of the effect a − b: the two arms of a difference, or highest and lowest level."""
        return (len(self.arms) - 1, 0) if self.claim.test == "trend" else (0, 1)


def effect(sample: Sample) -> dict[str, Any]:
    """The paired difference between the two arms compared, with everything that describes it."""
    i, j = sample.pair
    a, b = sample.values[:, i], sample.values[:, j]
    out: dict[str, Any] = {"compared": (sample.arms[i], sample.arms[j]), "interval": None}
    if not len(a):
        return out
    d, baseline = a - b, float(b.mean())
    bound = bound_of(sample.claim, baseline)
    agrees = np.sign(d) == sign_of(sample.claim) if bound is None else np.abs(d) <= bound
    agree, agree_interval = st.agreement(agrees, 1 - sample.claim.alpha)
    out |= {
        "baseline": baseline,
        "effect": float(d.mean()),
        "effect_percent": percent(float(d.mean()), baseline),
    }
    out |= {"agree": agree, "agree_interval": agree_interval, "bound": bound}
    t = st.paired_t(a, b, sample.claim.alpha)
    if t is not None:
        least = st.resolvable(t.sd, t.n, sample.claim.alpha)
        out |= {"interval": t.interval, "sd": t.sd, "p": t.p}
        out |= {
            "resolvable": least,
            "resolvable_percent": None if least is None else percent(least, baseline),
        }
        out |= {"p_sign_flip": st.sign_flip_p(d)} if bound is None else _equivalence(a, b, bound, sample.claim.alpha)
    if sample.lasting is not None:
        out["speedup"] = summed_up(d, sample.lasting, sample.claim.alpha)
    return out


def bound_of(claim: Claim, baseline: float) -> float | None:
    """The margin of an equivalence in the metric's units, taken as fixed: that the baseline is itself estimated is
    left out of account."""
    return None if claim.test != "equivalence" or claim.margin is None else claim.margin * abs(baseline)


def _equivalence(a: st.Array, b: st.Array, bound: float, alpha: float) -> dict[str, Any]:
    """What replaces the test against 0: the interval of two one-sided tests, and their p."""
    inner = st.paired_t(a, b, 2 * alpha)
    p = st.equivalence_p(a - b, bound)
    return {"inner_interval": inner.interval if inner else None, "p": p, "p_sign_flip": None}


def percent(value: float, baseline: float) -> float | None:
    """A value in % of the baseline's size; None where the baseline is 0 or so near to it that % say nothing."""
    return 100 * value / abs(baseline) if abs(value) < 10 * abs(baseline) else None


def page_trend(sample: Sample) -> Trend | None:
    """Page's test, its check by per-seed slopes, every level against the lowest; None where untestable."""
    values, levels = sample.values, [float(level) for level in sample.levels if level is not None]
    if len(values) < 2 or len(levels) < 3 or st.degenerate(values - values.mean(axis=1, keepdims=True)):
        return None
    rises, falls = st.page(values)
    sign = sign_of(sample.claim)
    slopes = st.slopes(values, levels)
    t = st.paired_t(slopes, np.zeros_like(slopes), sample.claim.alpha)
    # one-sided p in the declared direction, from the t of the mean slope
    one_sided = None if t is None else float(stats.t.sf(sign * t.mean / (t.sd / math.sqrt(t.n)), t.n - 1))
    p = [1.0 if p is None else p for p in st.paired_p((values[:, 1:] - values[:, :1]).T.copy())]
    means = values.mean(axis=0)
    later = [
        Level(level=level, arm=arm, mean=mean, difference=mean - means[0], p=p_value, p_holm=p_holm)
        for level, arm, mean, p_value, p_holm in zip(levels[1:], sample.arms[1:], means[1:], p, st.holm(p), strict=True)
    ]
    return Trend(
        p_forward=rises if sign > 0 else falls,
        p_reverse=falls if sign > 0 else rises,
        slope=float(slopes.mean()),
        slope_interval=t.interval if t else None,
        slope_p_forward=one_sided,
        monotone=bool((sign * np.diff(means) > 0).all()),
        levels=(Level(level=levels[0], arm=sample.arms[0], mean=means[0]), *later),
    )


def decide(sample: Sample, measured: Mapping[str, Any], trend: Trend | None) -> tuple[Judgement, str]:
    """The verdict and its reason, from what `effect` and `page_trend` found.

    A difference is decided where its interval lies wholly on one side of 0; a trend where Page's p in one direction is
    below α and the interval of the mean per-seed slope lies wholly on that side. An equivalence is supported where
    the 1 − 2α interval lies within the margin (two one-sided tests at α), contradicted where the 1 − α interval lies
    wholly outside it. One seed is never a verdict, nor are seeds that all gave the same difference.
    """
    claim, n = sample.claim, len(sample.values)
    if n < 2:
        return "undecided", "one seed is never a verdict" if n else "no seed has all its points yet"
    if claim.test == "trend" and len(sample.arms) < 3:
        return "undecided", "a trend needs at least 3 levels"
    if measured["interval"] is None:
        return (
            "undecided",
            "the difference is the same in every seed, so there is no variation to test against",
        )
    if claim.test == "trend":
        return _decide_trend(trend, claim.alpha, sign_of(claim))
    if claim.test == "equivalence":
        return _decide_equivalence(measured["interval"], measured["inner_interval"], measured["bound"])
    return _decide_difference(measured["interval"], sign_of(claim))


def _decide_difference(interval: st.Interval, sign: int) -> tuple[Judgement, str]:
    low, high = (sign * bound for bound in interval)
    if min(low, high) > 0:
        return "supported", "the interval lies wholly on the side claimed"
    if max(low, high) < 0:
        return "contradicted", "the interval lies wholly on the other side"
    return "undecided", "the interval contains 0"


def _decide_equivalence(interval: st.Interval, inner: st.Interval, bound: float) -> tuple[Judgement, str]:
    if max(map(abs, inner)) <= bound:
        return "supported", "the 1 − 2α interval lies within the margin"
    if interval[0] > bound or interval[1] < -bound:
        return "contradicted", "the interval lies wholly outside the margin"
    return "undecided", "the interval reaches over the edge of the margin"


def _decide_trend(trend: Trend | None, alpha: float, sign: int) -> tuple[Judgement, str]:
    """Page's test and the t of per-seed slopes must agree: Page's takes a seed's arms as exchangeable, and arms that
    share a training prefix are not, so that alone it would find trends too often."""
    if trend is None or trend.slope_interval is None:
        return "undecided", "the levels do not differ in any seed, or differ equally in all"
    by_slope, _ = _decide_difference(trend.slope_interval, sign)
    by_page: Judgement = "undecided"
    if trend.p_forward < alpha:
        by_page = "supported"
    elif trend.p_reverse < alpha:
        by_page = "contradicted"
    found = {"supported": "the trend claimed", "contradicted": "the reverse trend", "undecided": "no trend"}
    p = min(trend.p_forward, trend.p_reverse)
    if by_slope == by_page:
        return by_page, f"Page's test (p = {p:.2g}) and the t of per-seed slopes both see {found[by_page]}"
    said = f"Page's test (p = {p:.2g}) sees {found[by_page]}, the t of per-seed slopes {found[by_slope]}"
    return "undecided", said


def trend_notes(trend: Trend, verdict: Judgement, sample: Sample, interval: st.Interval | None) -> tuple[str, ...]:
    """What a reader of a decided trend should know besides its p."""
    if verdict == "undecided":
        return ()
    notes = []
    if interval is not None and interval[0] <= 0 <= interval[1]:
        notes.append("the interval of highest minus lowest level contains 0")
    if verdict == "supported" and not trend.monotone:
        means = ", ".join(f"{level.arm} {level.mean:.3g}" for level in trend.levels)
        notes.append(f"the means of the levels are not monotone ({means})")
    return tuple(notes)
