"""Where curves reach the final value of a reference arm, and how much sooner than it they do (Figs 1, 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.errors import Unsuited
from reports.speedup import log2_speedups, reached, summed_up
from reports.statistics import t_band
from reports.text import ratio
from reports.verdicts import SpeedUp

LINE = "0.15"
STAR = 9.0  # points
AHEAD = 5.5  # of the curves


@dataclass(frozen=True)
class Arrival:
    """One arm beside the reference: the epoch at which its mean curve reaches the reference's final mean (None where it
    ends above), and its speed-up over ``n`` seeds (None where none has all points)."""

    arm: str
    epoch: float | None
    speedup: SpeedUp | None
    n: int


@dataclass(frozen=True)
class Arrivals:
    """The final mean of the reference in one panel, and all other arms' arrivals there."""

    reference: str
    level: float
    arms: tuple[Arrival, ...]
    seeds: int


def arrivals(rows: pd.DataFrame, reference: str) -> Arrivals | None:
    """From the points of one panel and stage under one reading (`reports.frames.points`); None where the end of the
    reference is not measured."""
    theirs = rows[rows["arm"] == reference]
    _, mean = _mean_curve(theirs)
    if not len(mean) or np.isnan(mean[-1]):
        return None
    level = float(mean[-1])
    others = [(str(arm), own) for arm, own in rows.groupby("arm", sort=False) if arm != reference]
    arms = tuple(_arrival(arm, own, theirs, level) for arm, own in others)
    return Arrivals(reference, level, arms, rows["seed"].nunique())


def _arrival(arm: str, ours: pd.DataFrame, theirs: pd.DataFrame, level: float) -> Arrival:
    epochs, mean = _mean_curve(ours)
    measured = ~np.isnan(mean)
    ends_below = bool(measured[-1]) and mean[-1] <= level
    at = reached(epochs[measured], mean[measured], level) if ends_below else None
    try:
        both = {"first": log2_speedups(ours, theirs), "lasting": log2_speedups(ours, theirs, lasting=True)}
    except Unsuited:  # curves that cannot be compared are drawn all the same
        return Arrival(arm, at, None, 0)
    logs = pd.DataFrame(both).dropna()
    speedup = summed_up(logs["first"].to_numpy(), logs["lasting"].to_numpy()) if len(logs) else None
    return Arrival(arm, at, speedup, len(logs))


def _mean_curve(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, and the mean over the seeds measured at each."""
    epochs, values = seeds_by_epochs(rows)
    return epochs, t_band(values)[0]


def seeds_by_epochs(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The epochs (E,) of one stage of one arm, rising, and its values (S, E) by seed, NaN where there is none. As
    `DataFrame.pivot`, which takes several times as long, and a figure has many curves.

    Raises: ValueError where a seed has two points at one epoch.
    """
    seeds, row = np.unique(rows["seed"].to_numpy(), return_inverse=True)
    epochs, column = np.unique(rows["epoch"].to_numpy(float), return_inverse=True)
    if len(np.unique(row * len(epochs) + column)) < len(rows):
        raise ValueError("a seed has two points at one epoch")
    values = np.full((len(seeds), len(epochs)), np.nan)
    values[row, column] = rows["value"].to_numpy(float)
    return epochs, values


def mark_arrivals(ax: Axes, found: Arrivals, colours: Mapping[str, object]) -> None:
    """The reference's final value as a line across, and a star where another arm's mean curve reaches it."""
    ax.axhline(found.level, color=LINE, linestyle=(0, (5, 3)), linewidth=0.9, zorder=3.5)
    for arm in found.arms:
        if arm.epoch is not None:
            ax.add_line(_star(colours[arm.arm], [arm.epoch], [found.level]))


def say_speedups(
    ax: Axes, found: Arrivals, colours: Mapping[str, object], labels: Mapping[str, str], papers: Mapping[str, float]
) -> None:
    """A box where it hides least, with every arm's speed-up and the paper's where it has one."""
    handles = []
    for arm in found.arms:
        if arm.speedup is not None:
            colour = colours[arm.arm]
            handle = Line2D([], [], color=colour) if arm.epoch is None else _star(colour, [], [])  # type: ignore[arg-type]
            some = f" ({arm.n} of {found.seeds} seeds)" if arm.n < found.seeds else ""
            paper = f"; paper {papers[arm.arm]:g}×" if arm.arm in papers else ""
            handle.set_label(f"{labels[arm.arm]}: {ratio(arm.speedup.ratio, arm.speedup.interval)}{some}{paper}")
            handles.append(handle)
    if handles:
        title = f"speed-up over {labels[found.reference]}"
        box = ax.legend(handles=handles, title=title, loc="best", fontsize=7.5, title_fontsize=7.5)
        box.set_zorder(AHEAD + 1)


def arrival_handles(reference: str) -> Iterator[Line2D]:
    """The line across and the stars, for the legend of the figure; ``reference`` is what the arm is called."""
    yield Line2D([], [], color=LINE, linestyle=(0, (5, 3)), linewidth=0.9, label=f"final value of {reference}")
    star = _star("0.6", [], [])
    star.set_label("reaches it")
    yield star


def arrivals_words(reference: str, all_found: Sequence[Arrivals]) -> str:
    """How to read the stars and the numbers in the box."""
    worse = any(arm.epoch is None and arm.speedup for found in all_found for arm in found.arms)
    without = f" An arm without one ends above {reference}; its speed-up is the inverse of that of {reference} over it."
    return (
        f"Dashed line: mean final value of {reference}; stars: where mean curves reach it.{without if worse else ''} "
        f"Speed-up over {reference}: last epoch divided by the epoch at which a seed's curve first reaches the final "
        "value of the other's curve of the same seed; geometric mean over seeds, with Student's t interval of the mean "
        "log₂. First crossings come early on noisy curves, which makes speed-ups larger, up or down."
    )


def _star(colour: object, x: list[float], y: list[float]) -> Line2D:
    star = Line2D(x, y, linewidth=0, marker="*", markersize=STAR, markeredgewidth=0.7, markeredgecolor="black")
    star.set(markerfacecolor=colour, zorder=AHEAD)
    return star
