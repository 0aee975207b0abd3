"""A claim's predicate tested on complete seeds: effect, trend, decision. Odd data never raise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

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
    are log₂ of the speed-up over the second arm, and ``lasting`` those of the first arm that last. ``signed``: they can
    be 0 or negative by their nature, so that they are not compared as ratios (`reports.statistics.tested`)."""

    claim: Claim
    values: st.Array
    arms: list[str]
    levels: list[float | None]
    seeds: Sequence[int] = ()
    lasting: st.Array | None = None
    signed: bool = False

    @property
    def pair(self) -> tuple[int, int]:
        """Columns (a, b) of the effect a − b: the two arms of a difference, or highest and lowest level."""
        return (len(self.arms) - 1, 0) if self.claim.test == "trend" else (0, 1)

    @cached_property
    def tested(self) -> tuple[st.Array, bool]:
        """The values on the scale on which they are tested, and whether that is the log scale."""
        return st.tested(self.values, signed=self.signed)


def effect(sample: Sample) -> dict[str, Any]:
    """The paired difference between the two arms compared, with everything that describes it."""
    i, j = sample.pair
    alpha, (values, ratios) = sample.claim.alpha, sample.tested
    a, b = sample.values[:, i], sample.values[:, j]
    out: dict[str, Any] = {"compared": (sample.arms[i], sample.arms[j]), "interval": None, "ratios": ratios}
    if not len(a):
        return out
    d, baseline = values[:, i] - values[:, j], float(b.mean())
    bound = bound_of(sample.claim, baseline, ratios)
    agrees = np.sign(d) == sign_of(sample.claim) if bound is None else np.abs(d) <= bound
    agree, agree_interval = st.agreement(agrees, 1 - alpha)
    difference = float((a - b).mean())
    out |= {
        "baseline": baseline,
        "effect": difference,
        "effect_percent": st.as_percent(float(d.mean())) if ratios else percent(difference, baseline),
        "agree": agree,
        "agree_interval": agree_interval,
        **_edges("bound", None if bound is None else (-bound, bound), ratios),
    }
    if (t := st.paired_t(values[:, i], values[:, j], alpha)) is not None:
        in_units = st.paired_t(a, b, alpha)
        out |= {"interval": in_units.interval if in_units else None, "sd": in_units.sd if in_units else 0.0, "p": t.p}
        out |= {"interval_percent": _in_percent(t.interval)} if ratios else {}
        out |= _resolvable(t, alpha, baseline, ratios)
        out |= {"p_sign_flip": st.sign_flip_p(d)} if bound is None else _equivalence(d, bound, alpha, ratios)
    if sample.lasting is not None:
        out["speedup"] = summed_up(d, sample.lasting, alpha)
    return out


def _in_percent(interval: st.Interval) -> st.Interval:
    low, high = map(st.as_percent, interval)
    return low, high


def bound_of(claim: Claim, baseline: float, ratios: bool) -> float | None:
    """The margin m of an equivalence on the scale tested: log (1 + m), so that the ratio lies between 1/(1 + m) and
    1 + m; or, of what is not compared as a ratio, m times the mean of the second arm, taken as fixed."""
    if claim.test != "equivalence" or claim.margin is None:
        return None
    return math.log1p(claim.margin) if ratios else claim.margin * abs(baseline)


def _edges(name: str, edges: st.Interval | None, ratios: bool) -> dict[str, Any]:
    """The edges of a margin: in % of ratios, else in the metric's units, where they are one number."""
    if edges is None:
        return {}
    return {f"{name}_percent": _in_percent(edges)} if ratios else {name: edges[1]}


def _resolvable(t: st.PairedT, alpha: float, baseline: float, ratios: bool) -> dict[str, Any]:
    """The smallest difference that the seeds can show: of ratios in %, upwards."""
    least = st.resolvable(t.sd, t.n, alpha)
    if least is None or ratios:
        return {"resolvable_percent": None if least is None else st.as_percent(least)}
    return {"resolvable": least, "resolvable_percent": percent(least, baseline)}


def _equivalence(d: st.Array, bound: float, alpha: float, ratios: bool) -> dict[str, Any]:
    """What replaces the test against 0: the interval at 1 − 2α, and the p of that side of the margin on which the mean
    lies."""
    inner = st.paired_t(d, np.zeros_like(d), 2 * alpha)
    p = float(st.p_within(d, bound) if abs(d.mean()) <= bound else st.p_outside(d, bound))
    interval = inner.interval if inner else None
    shown = {"inner_interval_percent": interval and _in_percent(interval)} if ratios else {"inner_interval": interval}
    return {**shown, "p": p, "p_sign_flip": None}


def percent(value: float, baseline: float) -> float | None:
    """A value in % of the baseline's size; None where the baseline is 0 or so near to it that % say nothing."""
    return 100 * value / abs(baseline) if abs(value) < 10 * abs(baseline) else None


def page_trend(sample: Sample) -> Trend | None:
    """Page's test, its check by per-seed slopes, every level against the lowest; None where untestable."""
    levels = [float(level) for level in sample.levels if level is not None]
    values, ratios = sample.tested
    if len(values) < 2 or len(levels) < 3 or st.degenerate(values - values.mean(axis=1, keepdims=True)):
        return None
    rises, falls = st.page(values)
    sign = sign_of(sample.claim)
    slopes = st.slopes(values, levels)
    t = st.paired_t(slopes, np.zeros_like(slopes), sample.claim.alpha)
    in_units = st.slopes(sample.values, levels)
    raw = st.paired_t(in_units, np.zeros_like(in_units), sample.claim.alpha)
    # one-sided p in the declared direction, from the t of the mean slope
    one_sided = None if t is None else float(st.p_above(sign * slopes))
    p = [1.0 if p is None else p for p in st.paired_p((values[:, 1:] - values[:, :1]).T.copy())]
    means = sample.values.mean(axis=0)
    later = [
        Level(level=level, arm=arm, mean=mean, difference=mean - means[0], p=p_value, p_holm=p_holm)
        for level, arm, mean, p_value, p_holm in zip(levels[1:], sample.arms[1:], means[1:], p, st.holm(p), strict=True)
    ]
    return Trend(
        p=None if t is None else max(t.p, rises if t.mean > 0 else falls),
        p_forward=rises if sign > 0 else falls,
        p_reverse=falls if sign > 0 else rises,
        slope=float(in_units.mean()),
        slope_interval=raw.interval if raw else None,
        slope_percent=st.as_percent(float(slopes.mean())) if ratios else None,
        slope_interval_percent=_in_percent(t.interval) if ratios and t else None,
        slope_p=t.p if t else None,
        slope_p_forward=one_sided,
        monotone=bool((sign * np.diff(means) > 0).all()),
        levels=(Level(level=levels[0], arm=sample.arms[0], mean=means[0]), *later),
    )


def p_of(claim: Claim, measured: Mapping[str, Any], trend: Trend | None) -> float | None:
    """The p by which a claim is decided; None where there is nothing to test."""
    if claim.test == "trend":
        return trend.p if trend and measured.get("p") is not None else None
    return measured.get("p")


def decide(
    sample: Sample, measured: Mapping[str, Any], trend: Trend | None, p_holm: float | None = None, tests: int = 1
) -> tuple[Judgement, str]:
    """The verdict and its reason, from what `effect` and `page_trend` found.

    A claim is decided where its p, adjusted by Holm's method for the ``tests`` of its family (``p_holm``; by default it
    is the only one), is below α, and then by the side on which the effect lies. The p of a trend is the larger of
    Page's and of the slopes'; that of an equivalence is that of the side of the margin on which the effect lies. One
    seed is never a verdict, nor are seeds that all gave the same difference.
    """
    claim, p = sample.claim, p_of(sample.claim, measured, trend)
    if p is None:
        return "undecided", _no_test(sample, measured, trend)
    adjusted = p if p_holm is None else p_holm
    if p < claim.alpha <= adjusted:
        return "undecided", (
            f"p = {p:.2g} alone is below α = {claim.alpha:g}, but {adjusted:.2g} after Holm's correction for the "
            f"{tests} tests of the study is not"
        )
    decided = adjusted < claim.alpha
    if trend is not None:
        return _decide_trend(trend, claim.alpha, sign_of(claim), decided)
    size = measured["effect_percent"] if measured["ratios"] else measured["effect"]
    if claim.test == "equivalence":
        low, high = measured["bound_percent"] if measured["ratios"] else (-measured["bound"], measured["bound"])
        return _decide_equivalence(low <= size <= high, decided)
    return _decide_difference(sign_of(claim) * size, decided)


def _no_test(sample: Sample, measured: Mapping[str, Any], trend: Trend | None) -> str:
    """Why there is no p."""
    n = len(sample.values)
    if n < 2:
        return "one seed is never a verdict" if n else "no seed has all its points yet"
    if sample.claim.test == "trend" and len(sample.arms) < 3:
        return "a trend needs at least 3 levels"
    if measured.get("p") is None:
        what = "ratio" if measured["ratios"] else "difference"
        return f"the {what} is the same in every seed, so there is no variation to test against"
    return "the levels do not differ in any seed, or differ equally in all"


def _decide_difference(forward: float, decided: bool) -> tuple[Judgement, str]:
    """From the effect in the direction claimed."""
    if not decided:
        return "undecided", "p is not below α: the seeds do not tell the difference from 0"
    if forward > 0:
        return "supported", "the effect lies on the side claimed, and p is below α"
    return "contradicted", "the effect lies on the other side, and p is below α"


def _decide_equivalence(within: bool, decided: bool) -> tuple[Judgement, str]:
    if not decided:
        return (
            "undecided",
            "p is not below α: the seeds tell neither that the effect lies within the margin nor outside",
        )
    if within:
        return "supported", "the effect lies within the margin, and p of the two one-sided tests is below α"
    return "contradicted", "the effect lies outside the margin, and p is below α"


def _decide_trend(trend: Trend, alpha: float, sign: int, decided: bool) -> tuple[Judgement, str]:
    """Page's test and the t of per-seed slopes must agree: Page's takes a seed's arms as exchangeable, and arms that
    share a training prefix are not, so that alone it would find trends too often."""
    found = {"supported": "the trend claimed", "contradicted": "the reverse trend", "undecided": "no trend"}
    slope = sign * (trend.slope if trend.slope_percent is None else trend.slope_percent)
    by_slope = _side(slope > 0, slope < 0) if trend.slope_p is not None and trend.slope_p < alpha else "undecided"
    by_page = _side(trend.p_forward < alpha, trend.p_reverse < alpha)
    p = min(trend.p_forward, trend.p_reverse)
    if decided or by_slope == by_page:
        return by_page, f"Page's test (p = {p:.2g}) and the t of per-seed slopes both see {found[by_page]}"
    said = f"Page's test (p = {p:.2g}) sees {found[by_page]}, the t of per-seed slopes {found[by_slope]}"
    return "undecided", said


def _side(forward: bool, reverse: bool) -> Judgement:
    return "supported" if forward else "contradicted" if reverse else "undecided"


def trend_notes(trend: Trend, verdict: Judgement, measured: Mapping[str, Any]) -> tuple[str, ...]:
    """What a reader of a decided trend should know besides its p."""
    if verdict == "undecided":
        return ()
    notes, interval = [], measured["interval_percent"] if measured["ratios"] else measured["interval"]
    if interval is not None and interval[0] <= 0 <= interval[1]:
        notes.append("the interval of highest minus lowest level contains 0")
    if verdict == "supported" and not trend.monotone:
        means = ", ".join(f"{level.arm} {level.mean:.3g}" for level in trend.levels)
        notes.append(f"the means of the levels are not monotone ({means})")
    return tuple(notes)
