"""One number an arm and seed: the summaries that claims are about (see `studies.schema.Claim`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.errors import Unsuited
from reports.speedup import log2_speedups
from reports.words import signed
from studies.claim import Claim

Array = NDArray[np.float64]
Summary = Callable[[Array, Array], Array]


def end(epochs: Array, values: Array) -> Array:
    """The value at the stage's end. Rows are seeds; nan where it is not measured."""
    return np.asarray(values[:, -1])


def average(epochs: Array, values: Array) -> Array:
    """The arithmetic mean of the points; nan where one of them is not measured."""
    return np.asarray(values.mean(axis=1))


def window_mean(epochs: Array, values: Array, window: tuple[float, float]) -> Array:
    """Mean of the linear interpolation over [lo, hi] root epochs: the exact integral (trapezoids between all
    knots, `np.interp` at the window's ends) divided by hi − lo."""
    lo, hi = window
    if len(epochs) < 2 or epochs[0] > lo or epochs[-1] < hi or lo >= hi:
        measured = ", ".join(f"{epoch:g}" for epoch in epochs)
        raise Unsuited(f"its points (epochs {measured}) do not span the window {lo:g} to {hi:g}")
    first = np.flatnonzero(epochs <= lo)[-1]
    last = np.flatnonzero(epochs >= hi)[0]
    e, v = epochs[first : last + 1], values[:, first : last + 1]
    knots = np.concatenate([[lo], e[(e > lo) & (e < hi)], [hi]])
    curves = [np.interp(knots, e, row) if not np.isnan(row).any() else np.full(len(knots), np.nan) for row in v]
    return np.asarray(np.trapezoid(np.reshape(curves, (len(v), len(knots))), knots, axis=1) / (hi - lo))


def rises(epochs: Array, values: Array) -> Array:
    """Σ max(0, increase between consecutive points): 0 for a curve that only falls."""
    if len(epochs) < 2:
        raise Unsuited("it is measured only once in the stage")
    return np.asarray(np.maximum(np.diff(values, axis=1), 0.0).sum(axis=1))


SUMMARIES: dict[str, Summary] = {"end": end, "average": average, "rises": rises}


def signed_summary(claim: Claim, metric: str) -> bool:
    """Whether the claim's numbers can be 0 or negative by their nature: those of a signed metric, the sum of rises (0
    for a curve that only falls), and speed-ups, which are log₂ already."""
    return signed(metric) or claim.summary == "rises" or claim.test == "speedup"


def summary_of(claim: Claim) -> Summary:
    """The claim's summary of curves (rows: seeds, columns: epochs from the root)."""
    if claim.summary != "mean":
        return SUMMARIES[claim.summary]
    window = claim.window
    assert window is not None  # the schema demands it
    return lambda epochs, values: window_mean(epochs, values, window)


def per_seed(curve: pd.DataFrame, summary: Summary) -> pd.Series:
    """The summary of one arm's points in one stage, by seed."""
    grid = curve.pivot(index="seed", columns="epoch", values="value").sort_index(axis=1)
    return pd.Series(summary(grid.columns.to_numpy(float), grid.to_numpy(float)), index=grid.index)


def arms_of(claim: Claim, rows: pd.DataFrame) -> list[tuple[str, float | None]]:
    """(arm, level) in the order compared: the two arms named, those of a trend by rising level, or, for a test of
    one's own that names none, the panel's as they are listed.

    Controls take part only where they are named.
    """
    if claim.arms is not None and claim.test != "trend":
        return [(arm, None) for arm in claim.arms]
    listed = rows[~rows["control"].astype(bool)].drop_duplicates("arm")
    among = [
        (str(arm), attributes)
        for arm, attributes in zip(listed["arm"], listed["attributes"], strict=True)
        if all(attributes.get(name) == value for name, value in claim.among.items())
    ]
    if claim.test == "own" and among:
        return [(arm, None) for arm, _ in among]
    levels: dict[str, float] = {}
    for arm, attributes in among:
        level = attributes.get(claim.over)
        if not isinstance(level, (int, float)):
            raise Unsuited(f"the attribute '{claim.over}' of arm '{arm}' is not a number")
        levels[arm] = float(level)
    if not levels:
        having = "".join(f" with {name} {value}" for name, value in claim.among.items())
        raise Unsuited(f"no arm of panel '{claim.panel}'{having} has a point")
    if len(set(levels.values())) < len(levels):
        raise Unsuited(f"several arms have the same '{claim.over}'")
    return [(arm, levels[arm]) for arm in sorted(levels, key=levels.__getitem__)]


def table(claim: Claim, rows: pd.DataFrame, arms: list[str]) -> pd.DataFrame:
    """Summaries, one row a seed, one column an arm in the order given; nan where a needed point is missing.

    ``rows`` are the points of one reading (`reports.frames.points`).
    """
    curves = {arm: _curve(claim, rows, arm) for arm in arms}
    return pd.DataFrame({arm: per_seed(curve, summary_of(claim)) for arm, curve in curves.items()}).sort_index()[arms]


def speedup_table(claim: Claim, rows: pd.DataFrame) -> pd.DataFrame:
    """log₂ of the speed-up of the claim's first arm over its second, one row a seed, nan where a point is missing:
    ``first`` and ``lasting`` (`reports.speedup`)."""
    assert claim.arms is not None  # the schema demands it
    ours, theirs = (_curve(claim, rows, arm) for arm in claim.arms)
    both = {"first": log2_speedups(ours, theirs), "lasting": log2_speedups(ours, theirs, lasting=True)}
    return pd.DataFrame(both).sort_index()


def _curve(claim: Claim, rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The points of an arm in the claim's stage. Raises: Unsuited where it has none."""
    in_stage = rows["last"] if claim.stage is None else rows["stage"] == claim.stage
    panel, name = claim.place(arm)
    curve = rows[in_stage & (rows["panel"] == panel) & (rows["arm"] == name)]
    if curve.empty:
        stage = f"stage '{claim.stage}'" if claim.stage else "its last stage"
        raise Unsuited(f"arm '{name}' has no point in {stage} (panel '{panel}')")
    return curve
