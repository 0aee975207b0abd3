"""Some arms of committed results trained again: which are drawn, and what is said of the values that come out.

Where processor and versions are those of the results, a value must come out equal. Elsewhere one that does not must lie
where one more seed would: in the 95 % prediction interval of the other seeds' values of the same point, of their logs
where all are positive. Of true replications one value in twenty lies outside; values of one arm are correlated, so
only its ends are counted, a metric at a time, and the exact binomial says whether they are too many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from reports.statistics import holm, prediction_interval

EQUAL = 1e-6  # relative
EXPECTED = 0.05  # of values outside a 95 % prediction interval
ALPHA = 0.05
POINT = ["panel", "arm", "stage", "stage_epoch", "protocol"]
NUMERIC = ("torch", "numpy", "scipy")  # the packages that numbers depend on
PROCESSOR = ("architecture", "cpu")
Judged = Literal["equal", "inside", "outside", "differs", "not judged"]


class Pair(NamedTuple):
    """An arm and seed of a study at a scale."""

    study: str
    scale: str
    panel: str
    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.study}/{self.panel}/{self.arm} at scale {self.scale}, seed {self.seed}"


@dataclass(frozen=True)
class Value:
    """One evaluation of a pair: as it is ``known``, as it was ``found`` now, and whether that is as it should be.
    ``end``: at the end of the arm."""

    metric: str
    nfe: int | None
    end: bool
    known: float
    found: float
    judged: Judged


class Excess(NamedTuple):
    """Of a metric at the ends of ``pairs`` arms, how many values are ``outside``; the probability of as many or more by
    chance, and that adjusted by Holm's method for the metrics."""

    metric: str
    pairs: int
    outside: int
    p: float
    p_holm: float


def pairs_of(frame: pd.DataFrame) -> list[Pair]:
    """The arms and seeds of a frame of evaluations that have a value, as declared."""
    there = frame[frame["value"].notna()].drop_duplicates(["panel", "arm", "seed"])
    rows = there[list(Pair._fields)].itertuples(index=False, name=None)
    return [Pair._make((*row[:-1], int(row[-1]))) for row in rows]


def draw(pairs: Sequence[Pair], size: int, seed: int) -> list[Pair]:
    """So many of them at random, without replacement, in the order drawn."""
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:size]
    return [pairs[i] for i in chosen]


def machine_differences(
    runs: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], packages: Mapping[str, str]
) -> list[str]:
    """What of processor and versions differs between the provenance of ``runs`` and what is here, a phrase each; none
    where values must be equal. A processor that a run does not name counts as another."""
    said = []
    for told in runs:
        there = {**(told.get("machine") or {}), **(told.get("packages") or {})}
        here = {**machine, **packages}
        for name in (*PROCESSOR, *NUMERIC):
            if there.get(name) is None or there[name] != here.get(name):
                said.append(f"{name} {there.get(name) or 'not known'} there, {here.get(name) or 'not known'} here")
    return list(dict.fromkeys(said))


def compare(
    frame: pd.DataFrame, pair: Pair, measured: Mapping[str, float], found: Mapping[str, float], *, exactly: bool
) -> list[Value]:
    """The values of a pair, each once, against those ``found`` now (by key; nan is no finite number).

    Args:
        frame: the evaluations of the pair's study and scale, of all seeds.
        measured: what is known, by key.
        exactly: whether values must be equal.
    """
    of_arm = frame[(frame["panel"] == pair.panel) & (frame["arm"] == pair.arm)]
    others = of_arm[of_arm["seed"] != pair.seed].groupby(POINT)["value"]
    beside = {key: _finite(values) for key, values in others}
    own = of_arm[of_arm["seed"] == pair.seed].drop_duplicates("evaluation", keep="last")
    last = own["epoch"].max()
    values = []
    for point in own[own["evaluation"].isin(measured)].to_dict("records"):
        known, now = measured[point["evaluation"]], found[point["evaluation"]]
        key = tuple(point[name] for name in POINT)
        judged = _judged(known, now, beside.get(key, np.array([])), exactly=exactly)
        nfe = None if pd.isna(point["nfe"]) else int(point["nfe"])
        values.append(Value(point["metric"], nfe, point["epoch"] == last, known, now, judged))
    return values


def _finite(values: pd.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = values.to_numpy(float)
    return array[np.isfinite(array)]


def _judged(known: float, now: float, others: np.ndarray[Any, np.dtype[np.float64]], *, exactly: bool) -> Judged:
    if math.isclose(known, now, rel_tol=EQUAL, abs_tol=1e-12) or (math.isnan(known) and math.isnan(now)):
        return "equal"
    if exactly:
        return "differs"
    if math.isnan(known) or math.isnan(now):
        return "outside"
    if len(others) < 2:
        return "not judged"
    low, high = where_one_more_falls(others, 1 - EXPECTED)
    return "inside" if low <= now <= high else "outside"


def where_one_more_falls(values: np.ndarray[Any, np.dtype[np.float64]], confidence: float) -> tuple[float, float]:
    """Where one more value of the same law falls: mean ± t s √(1 + 1/n), of the logs where all values are positive."""
    positive = bool((values > 0).all())
    x = np.log(values) if positive else values
    interval = prediction_interval(x, confidence)
    assert interval is not None  # the caller has two values at least
    low, high = interval
    return (math.exp(low), math.exp(min(high, 700.0))) if positive else (low, high)


def excesses(pairs: Sequence[Sequence[Value]]) -> list[Excess]:
    """Of every metric at the ends of arms: whether more values lie outside than chance allows. What came out equal
    counts as inside; pairs are independent."""
    counts: dict[str, list[int]] = {}
    for values in pairs:
        worst: dict[str, bool] = {}  # protocols of one metric and NFE are one measurement of the pair
        for value in values:
            if value.end and value.judged in ("equal", "inside", "outside"):
                name = value.metric + ("" if value.nfe is None else f" at {value.nfe} NFE")
                worst[name] = worst.get(name, False) or value.judged == "outside"
        for name, outside in worst.items():
            count = counts.setdefault(name, [0, 0])
            count[0] += 1
            count[1] += outside
    p = [float(stats.binom.sf(outside - 1, n, EXPECTED)) for n, outside in counts.values()]
    told = zip(counts.items(), p, holm(p), strict=True)
    return [Excess(name, n, outside, alone, adjusted) for (name, (n, outside)), alone, adjusted in told]
