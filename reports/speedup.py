"""How much sooner one curve arrives where another ends (Figs 1, 6): a number a seed, and its mean over seeds.

For curves a and b over epochs with the same last epoch T, linear between their points,

    speed-up of a over b = T / min{e: a(e) ≤ b(T)}   if a(T) < b(T),
                           min{e: b(e) ≤ a(T)} / T   if a(T) > b(T),
                           1                          if they end alike.

The curve that ends lower always reaches where the other ends, so no seed is censored; and exchanging a and b inverts
the speed-up exactly, so between equal curves its log₂ is symmetric around 0, whatever the noise. Noise does enlarge its
size, up or down: the first crossing of a noisy, flat curve comes early. The *lasting* speed-up, which counts the epoch
from which the curve stays there for good, errs to the other side and is given beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from reports.errors import Unsuited
from reports.statistics import Array, Interval, paired_t
from reports.verdicts import SpeedUp


def reached(epochs: Array, values: Array, level: float, *, lasting: bool = False) -> float | None:
    """The first epoch at which the curve, linear between its points, is at ``level`` or below; if ``lasting``, the
    first from which on it is. None where there is no such epoch."""
    below = np.flatnonzero(values <= level)
    if lasting:
        above = np.flatnonzero(values > level)
        below = below[below > above[-1]] if len(above) else below
    if not len(below):
        return None
    i = int(below[0])
    if i == 0:
        return float(epochs[0])
    share = (values[i - 1] - level) / (values[i - 1] - values[i])
    return float(epochs[i - 1] + share * (epochs[i] - epochs[i - 1]))


def log2_speedup(epochs: Array, a: Array, b: Array, *, lasting: bool = False) -> float:
    """log₂ of the speed-up of a over b, curves at the same epochs; nan where a point is missing.

    Raises: Unsuited where a curve is at its start already where the other ends.
    """
    if np.isnan(a).any() or np.isnan(b).any():
        return math.nan
    if a[-1] == b[-1]:
        return 0.0
    if a[-1] > b[-1]:
        return -log2_speedup(epochs, b, a, lasting=lasting)
    at = reached(epochs, a, float(b[-1]), lasting=lasting)
    assert at is not None  # a ends below b's end
    if at <= 0.0:
        raise Unsuited("at epoch 0 an arm is already as good as the other is in the end")
    return math.log2(float(epochs[-1]) / at)


def log2_speedups(ours: pd.DataFrame, theirs: pd.DataFrame, *, lasting: bool = False) -> pd.Series:
    """log₂ of the speed-up of one arm over another by seed; nan where one of its points is not measured.

    Both are points of one reading (`reports.frames.points`) with ``seed``, ``epoch`` from the root and ``value``.

    Raises: Unsuited where the curves are no curves, or not measured at the same epochs.
    """
    a, b = (arm.pivot(index="seed", columns="epoch", values="value").sort_index(axis=1) for arm in (ours, theirs))
    if a.columns[-1] != b.columns[-1]:
        raise Unsuited(f"the arms are not equally long (epochs {a.columns[-1]:g} and {b.columns[-1]:g})")
    if not a.columns.equals(b.columns):
        raise Unsuited("the arms are not measured at the same epochs")
    if len(a.columns) < 2:
        raise Unsuited("it is measured only once, which makes no curve")
    epochs = a.columns.to_numpy(float)
    seeds = a.index.union(b.index)
    pairs = zip(a.reindex(seeds).to_numpy(float), b.reindex(seeds).to_numpy(float), strict=True)
    return pd.Series([log2_speedup(epochs, *pair, lasting=lasting) for pair in pairs], index=seeds, dtype=float)


def summed_up(first: Array, lasting: Array, alpha: float = 0.05) -> SpeedUp:
    """The geometric means over seeds of the speed-up and of the lasting one, from their log₂, with Student's t
    intervals at 1 − α of the mean log₂."""
    t, u = (paired_t(logs, np.zeros_like(logs), alpha) for logs in (first, lasting))
    return SpeedUp(
        ratio=2 ** float(first.mean()),
        interval=_powers(t.interval) if t else None,
        lasting=2 ** float(lasting.mean()),
        lasting_interval=_powers(u.interval) if u else None,
    )


def _powers(logs: Sequence[float]) -> Interval:
    """2 to the power of the bounds of an interval; one beyond any number is the largest there is."""
    low, high = (2.0 ** min(max(bound, -1000.0), 1000.0) for bound in logs)
    return low, high
