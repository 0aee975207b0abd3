"""The verdicts on all claims, computed again from committed values: a second implementation, to be read in one sitting.

    python scripts/recompute_verdicts.py docs/results/data --published docs/claims

It needs numpy and scipy, and nothing of this project. It reads each ``<study>_<scale>.csv`` (a row a point of an arm
and seed) and the claims in the ``.json`` beside it, applies the rule of docs/reports.md, one short function a step,
and prints each verdict, and where another is published, that. Exit status: 0 if all agree, 1 if one does not or a file
was changed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RULE = 2  # of docs/reports.md
SIGNED = ("task_affinity", "kid")  # metrics that can be 0 or negative by their nature
SKEWNESS_FROM = 6  # seeds from which on skewness is corrected for
MOST_FLIPPED = 16  # seeds up to which all sign flips are tried
Array = NDArray[np.float64]
Curves = dict[int, dict[float, float]]  # seed → epoch → value, nan where it is not measured


class CannotBeTestedError(Exception):
    """Why a claim has no test under a reading."""


@dataclass(frozen=True)
class Found:
    """A claim under one reading. ``effect`` is in % of ratios, else in the metric's units, of a speed-up a ratio."""

    claim: str
    role: str
    metric: str
    family: Hashable
    verdict: str = "undecided"
    reason: str = ""
    n: int = 0
    effect: float | None = None
    p: float | None = None
    p_holm: float | None = None
    p_sign_flip: float | None = None
    alpha: float = 0.05
    forward: bool = False  # whether the effect lies on the side claimed (of an equivalence: within the margin)


# --- one number an arm and seed


def summary(claim: Mapping[str, Any], curves: Curves) -> dict[int, float]:
    """The claim's summary of every seed's curve; nan where a point that it needs is not measured."""
    epochs = np.array(sorted({epoch for curve in curves.values() for epoch in curve}))
    values = {seed: np.array([curve.get(e, math.nan) for e in epochs]) for seed, curve in curves.items()}
    return {seed: _summary(claim, epochs, v) for seed, v in values.items()}


def _summary(claim: Mapping[str, Any], epochs: Array, values: Array) -> float:
    if claim["summary"] == "end":
        return float(values[-1])
    if claim["summary"] == "average":
        return float(values.mean())
    if claim["summary"] == "rises":
        if len(epochs) < 2:
            raise CannotBeTestedError("measured only once in the stage")
        return float(np.maximum(np.diff(values), 0.0).sum())
    low, high = claim["window"]  # the mean of the curve, linear between its points
    if len(epochs) < 2 or epochs[0] > low or epochs[-1] < high or low >= high:
        raise CannotBeTestedError(f"the points do not span the window {low:g} to {high:g}")
    inside = slice(np.flatnonzero(epochs <= low)[-1], np.flatnonzero(epochs >= high)[0] + 1)
    epochs, values = epochs[inside], values[inside]
    knots = np.array([low, *(e for e in epochs if low < e < high), high])
    return (
        math.nan
        if np.isnan(values).any()
        else float(np.trapezoid(np.interp(knots, epochs, values), knots)) / (high - low)
    )


def log2_speedup(epochs: Array, a: Array, b: Array) -> float:
    """log₂ of T / (first epoch at which a, linear between its points, is down at b's end); the other way round where a
    ends above b. nan where a point is not measured."""
    if np.isnan(a).any() or np.isnan(b).any():
        return math.nan
    if a[-1] == b[-1]:
        return 0.0
    if a[-1] > b[-1]:
        return -log2_speedup(epochs, b, a)
    i = int(np.flatnonzero(a <= b[-1])[0])
    share = (a[i - 1] - b[-1]) / (a[i - 1] - a[i]) if i else 1.0
    at = epochs[i - 1] + share * (epochs[i] - epochs[i - 1]) if i else epochs[0]
    if at <= 0:
        raise CannotBeTestedError("an arm is at its start already where the other ends")
    return math.log2(epochs[-1] / at)


def speedups(ours: Curves, theirs: Curves) -> dict[int, float]:
    """log₂ of the speed-up of one arm over another, by seed."""
    grids = [sorted({epoch for curve in curves.values() for epoch in curve}) for curves in (ours, theirs)]
    if grids[0] != grids[1] or len(grids[0]) < 2:
        raise CannotBeTestedError("the arms are no curves over the same epochs")
    epochs = np.array(grids[0])
    pairs = {
        seed: [np.array([arm.get(seed, {}).get(e, math.nan) for e in epochs]) for arm in (ours, theirs)]
        for seed in sorted({*ours, *theirs})
    }
    return {seed: log2_speedup(epochs, a, b) for seed, (a, b) in pairs.items()}


# --- tests of numbers paired by seed


def varies(differences: Array) -> bool:
    """Whether there is anything to test against."""
    return len(differences) > 1 and bool(np.ptp(differences) > 1e-12 * max(1e-300, np.abs(differences).max()))


def p_above(d: Array, bound: float = 0.0) -> float:
    """One-sided p that the mean lies above a bound: Student's t and, from 6 seeds on, the larger of it and that of
    Hall's t (1992), which corrects for skewness."""
    n = len(d)
    s = (d.mean() - bound) / d.std(ddof=1)
    if n >= SKEWNESS_FROM:
        g = float(stats.skew(d))
        s = min(s, s + g * s**2 / 3 + g**2 * s**3 / 27 + g / (6 * n))
    return float(stats.t.sf(math.sqrt(n) * s, n - 1))


def p_two_sided(d: Array, bound: float = 0.0) -> float:
    """p that the mean is not 0, or lies outside ±bound."""
    return min(1.0, 2 * min(p_above(d, bound), p_above(-d, bound)))


def p_equivalence(d: Array, bound: float) -> float:
    """p of that side of the margin on which the mean lies: within, of two one-sided tests (Schuirmann 1987)."""
    return max(p_above(d, -bound), p_above(-d, -bound)) if abs(d.mean()) <= bound else p_two_sided(d, bound)


def p_trend(values: Array, levels: Sequence[float]) -> tuple[float, float] | None:
    """(slope, p): the larger of the two-sided p of per-seed slopes and of Page's L in their direction; None where there
    is nothing to test."""
    x = np.array(levels) - np.mean(levels)
    slopes = values @ x / (x @ x)
    if not varies(slopes):
        return None
    ordered = values if slopes.mean() > 0 else values[:, ::-1]
    return float(slopes.mean()), max(p_two_sided(slopes), float(stats.page_trend_test(ordered).pvalue))


def p_sign_flip(d: Array) -> float | None:
    """Two-sided p of the mean by all 2ⁿ sign flips (Fisher 1935); it decides nothing, and checks the t."""
    if not SKEWNESS_FROM <= len(d) <= MOST_FLIPPED:
        return None
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(d))))
    means = signs @ d / len(d)
    slack = 1e-12 * np.abs(d).max()
    above, below = ((sign * means >= sign * d.mean() - slack).mean() for sign in (1, -1))
    return float(min(1.0, 2 * min(above, below)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p adjusted for their number, step down (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = [min(1.0, (len(order) - rank) * p_values[i]) for rank, i in enumerate(order)]
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(steps) if steps else steps
    return [float(p) for p in adjusted]


# --- a claim


def judge(claims: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, str]], meaningless: bool) -> list[Found]:
    """Every claim of a study under each of its readings. The claims are one family: the p of their primary readings are
    adjusted together, and so are those of the truth, and those of each secondary metric. What cannot be tested yet
    counts, as if its p were 1; a test of its author's own does not."""
    curves = curves_of(rows)
    tests = [tested(claim, one, curves) for claim in claims for one in claim["readings"]]
    adjusted = dict[int, float]()
    for family in {test.family for test in tests} - {None}:
        own = [i for i, test in enumerate(tests) if test.family == family]
        p_values = [1.0 if (p := tests[i].p) is None else p for i in own]
        adjusted |= dict(zip(own, holm(p_values), strict=True))
    told = [test if test.p is None else replace(test, p_holm=adjusted[i]) for i, test in enumerate(tests)]
    return [decided(test, meaningless) for test in told]


def curves_of(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, ...], Curves]:
    """The curves by (protocol, panel, arm, stage). What is no finite number counts as not measured."""
    curves: dict[tuple[str, ...], Curves] = {}
    for row in rows:
        key = tuple(row[name] for name in ("protocol", "panel", "arm", "stage"))
        value = float(row["value"] or "nan")
        seed = curves.setdefault(key, {}).setdefault(int(row["seed"]), {})
        seed.setdefault(float(row["epoch"]), value if math.isfinite(value) else math.nan)
    return curves


def tested(claim: Mapping[str, Any], one: Mapping[str, Any], curves: Mapping[tuple[str, ...], Curves]) -> Found:
    """A claim's test under one reading, before it is decided."""
    role, metric = one["role"], one.get("metric", "")
    family = (role, metric, one.get("nfe"), one.get("solver")) if role == "secondary" else (role,)
    found = Found(claim["id"], role, metric, None if claim["test"] == "own" else family, alpha=claim["alpha"])
    try:
        if claim["test"] == "own":
            raise CannotBeTestedError("a test of its author's own, which is not recomputed here")
        if "arms" not in one:
            raise CannotBeTestedError(one["problem"])
        arms = [_curves(one["protocol"], arm, curves) for arm in one["arms"]]
        if claim["test"] == "speedup":
            logs = speedups(*arms)
            d = np.array([value for value in logs.values() if not math.isnan(value)])
            return _tested(found, claim, d, {"effect": 2 ** float(d.mean()) if len(d) else None})
        summaries = [summary(claim, arm) for arm in arms]
    except CannotBeTestedError as error:
        return replace(found, reason=str(error))
    seeds = sorted(set.intersection(*(set(one) for one in summaries)))
    values = np.array([[one[seed] for one in summaries] for seed in seeds]).reshape(len(seeds), len(arms))
    return _compared(found, claim, values[~np.isnan(values).any(axis=1)], [arm["level"] for arm in one["arms"]])


def _curves(protocol: str, arm: Mapping[str, Any], curves: Mapping[tuple[str, ...], Curves]) -> Curves:
    try:
        return curves[protocol, arm["panel"], arm["arm"], arm["stage"]]
    except KeyError:
        raise CannotBeTestedError(f"arm {arm['panel']}/{arm['arm']} has no point in stage {arm['stage']}") from None


def _compared(found: Found, claim: Mapping[str, Any], values: Array, levels: Sequence[float]) -> Found:
    """The test of a claim that compares arms (columns) over seeds (rows): of log ratios where all values are positive
    and could not be otherwise."""
    if not len(values):
        return replace(found, reason="no seed has all its points")
    signed = found.metric.startswith(SIGNED) or claim["summary"] == "rises"
    ratios = not signed and bool((values > 0).all())
    scaled = np.log(values) if ratios else values
    i, j = (-1, 0) if claim["test"] == "trend" else (0, 1)
    d, baseline = scaled[:, i] - scaled[:, j], abs(float(values[:, j].mean()))
    about: dict[str, Any] = {"effect": 100 * math.expm1(d.mean()) if ratios else float(d.mean())}
    if claim["test"] == "trend":
        flat = scaled - scaled.mean(axis=1, keepdims=True)
        about["trend"] = len(levels) > 2 and varies(flat.ravel()) and p_trend(scaled, levels)
    if claim["test"] == "equivalence":
        about["bound"] = math.log1p(claim["margin"]) if ratios else claim["margin"] * baseline
    return _tested(found, claim, d, about)


def _tested(found: Found, claim: Mapping[str, Any], d: Array, about: Mapping[str, Any]) -> Found:
    """From differences by seed: p, and the side on which the effect lies."""
    found = replace(found, n=len(d), effect=about["effect"])
    if not varies(d):
        return replace(found, reason="nothing varies" if len(d) > 1 else "one seed is never a verdict")
    sign = -1 if claim["direction"] == "decreasing" else 1
    flips = p_sign_flip(d)
    if claim["test"] == "equivalence":
        bound = about["bound"]
        return replace(found, p=p_equivalence(d, bound), forward=bool(abs(d.mean()) <= bound))
    if claim["test"] == "trend":
        if not about["trend"]:
            return replace(found, reason="no trend to test", p_sign_flip=flips)
        slope, p = about["trend"]
        return replace(found, p=p, forward=sign * slope > 0, p_sign_flip=flips)
    return replace(found, p=p_two_sided(d), forward=bool(sign * d.mean() > 0), p_sign_flip=flips)


def decided(found: Found, meaningless: bool) -> Found:
    """p after Holm's correction below α decides, and the side says what."""
    if meaningless:
        return replace(found, reason="the numbers of this scale mean nothing")
    if found.p_holm is None:
        return found
    if found.p_holm >= found.alpha:
        return replace(found, reason="p after Holm's correction is not below α")
    return replace(found, verdict="supported" if found.forward else "contradicted")


# --- files


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """A record and the rows of its CSV. Ends the program where the CSV is another."""
    record = json.loads(path.read_text(encoding="utf-8"))
    table = path.with_name(record["table"]["file"])
    content = table.read_bytes()
    if hashlib.sha256(content).hexdigest() != record["table"]["sha256"]:
        sys.exit(f"{table} is not the file that {path.name} describes: its sha256 is another")
    return record, list(csv.DictReader(content.decode("utf-8").splitlines()))


def published(path: Path) -> dict[tuple[str, str, str], str]:
    """(claim, role, metric) → verdict, from a file of docs/claims; the first of equal ones. Empty where there is no
    file."""
    found: dict[tuple[str, str, str], str] = {}
    claim = ""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        if head := re.match(r"### (\S+): [A-Z]", line):
            claim = head[1]
        elif row := re.match(r"\| (\S+) \| (primary|truth|secondary) \| (supported|contradicted|undecided) \|", line):
            found.setdefault((claim, row[2], row[1]), row[3])
    return found


def report(path: Path, claims: Path | None, everything: bool) -> Iterator[str | None]:
    """A line a claim, followed by None where it is published otherwise."""
    record, rows = read(path)
    said = published(claims / f"{path.stem}.md") if claims else {}
    seen: set[tuple[str, str, str]] = set()
    for one in judge(record["claims"], rows, record["config"].get("meaningless", False)):
        key = (one.claim, one.role, one.metric)
        there = said.get(key) if key not in seen else None
        seen.add(key)
        differs = there is not None and there != one.verdict and "author's own" not in one.reason
        if everything or one.role == "primary" or differs:
            numbers = [one.effect, one.p, one.p_holm, one.p_sign_flip]
            shown = "".join(f"{'–' if number is None else f'{number:.3g}':>11}" for number in numbers)
            beside = f"  PUBLISHED AS {there}" if differs else "" if there or not claims else "  not published"
            name = f"{path.stem}/{one.claim}" + ("" if one.role == "primary" else f" by {one.metric}")
            yield f"{name:64} {one.n:3}{shown}  {one.verdict}{f' ({one.reason})' if one.reason else ''}{beside}"
        if differs:
            yield None
    for claim in sorted({claim for claim, _, _ in said} - {claim for claim, _, _ in seen}):
        yield f"{path.stem}/{claim}: PUBLISHED AS a claim, and none of {path.name}"
        yield None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder of <study>_<scale>.csv and .json")
    parser.add_argument("--published", type=Path, help="folder of <study>_<scale>.md to compare with, docs/claims")
    parser.add_argument("--all", action="store_true", help="also the truth and the secondary metrics")
    asked = parser.parse_args()
    records = sorted(asked.data.glob("*.json"))
    if not records:
        sys.exit(f"{asked.data} holds no committed results")
    print(f"{'claim':64} {'n':>3}{'effect':>11}{'p':>11}{'p (Holm)':>11}{'sign flips':>11}  verdict")
    lines = [line for path in records for line in report(path, asked.published, asked.all)]
    print("\n".join(line for line in lines if line is not None))
    if differing := lines.count(None):
        sys.exit(f"{differing} published otherwise")


if __name__ == "__main__":
    main()
