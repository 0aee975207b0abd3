"""The axes of a figure of kind ``bars``: groups, bars, seeds, lines across, and the legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.axes import (
    BELOW,
    GREY,
    beyond_a_decade,
    down_to,
    dress,
    floor_handle,
    floor_line,
    linear,
    logarithmic,
    panel_rows,
    widened,
)
from reports.page import Page
from reports.statistics import Array, t_band
from studies.figure import Bars
from studies.schema import ResolvedStudy

HEIGHT = 3.4  # inches
# blue, orange and green as in the paper, then others that can be told from the lines across
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
REFERENCE = "#2ca02c"
Dashes = Literal["--", ":", "-."]
DASHES: tuple[Dashes, ...] = ("--", ":", "-.")
GROUP = 0.8  # of the distance between groups is bars


@dataclass(frozen=True)
class BarLook:
    """What the axes show: the dots, a colour a value, the label, whether logarithmic."""

    study: ResolvedStudy
    figure: Bars
    dots: pd.DataFrame
    colours: dict[Any, str]
    label: str
    log: bool
    floor: float | None = None

    def of(self, role: str, panel: str | None = None) -> pd.DataFrame:
        """The dots of one role, in one panel or all."""
        dots = self.dots[self.dots["role"] == role]
        return dots if panel is None else dots[dots["panel"] == panel]

    @property
    def dashes(self) -> dict[str, Dashes]:
        """How each control's line is drawn."""
        return {arm: DASHES[i % len(DASHES)] for i, arm in enumerate(dict.fromkeys(self.of("control")["arm"]))}


def bar_look(study: ResolvedStudy, figure: Bars, dots: pd.DataFrame, label: str, floor: float | None = None) -> BarLook:
    """Colours in the order of declaration; logarithmic where one metric's bars and lines span more than a decade."""
    values = dict.fromkeys(dots["colour"][dots["role"] == "bar"])
    colours = {value: COLOURS[i % len(COLOURS)] for i, value in enumerate(values)}
    means = dots.groupby(["panel", "arm"])["value"].mean()
    log = not figure.metrics and bool(dots["value"].min() > 0) and beyond_a_decade(means)
    return BarLook(study, figure, dots, colours, label, log, floor)


def add_bars(page: Page, look: BarLook) -> None:
    """Panels, each under its title."""
    for row in panel_rows(page, look.study):
        for place in row:
            ax = page.axes(place.x, place.width, HEIGHT)
            draw_panel(ax, look, place.panel)
            dress(ax, page, look.label, HEIGHT, labelled=place.labelled, meaningless=look.study.meaningless)
            ax.grid(False, axis="x")
        page.y += HEIGHT + BELOW


def draw_panel(ax: Axes, look: BarLook, name: str) -> None:
    """Bars and lines of one panel, its groups' labels, and the range that all panels have."""
    bars, ceilings = look.of("bar", name), look.of("ceiling", name)
    groups = list(dict.fromkeys(bars["x"]))
    width = GROUP / max(len(look.colours), 1)
    seeds = sorted(look.dots["seed"].unique())
    aside = dict(zip(seeds, np.linspace(-0.3, 0.3, len(seeds)) if len(seeds) > 1 else [0.0], strict=True))
    for rank, (value, colour) in enumerate(look.colours.items()):
        for i, group in enumerate(groups):
            x = i + (rank - (len(look.colours) - 1) / 2) * width
            here = [dots[(dots["x"] == group) & (dots["colour"] == value)] for dots in (bars, ceilings)]
            if len(here[0]):
                _bar(ax, x, width, here[0], colour, aside)
            if len(here[1]):
                ax.hlines(here[1]["value"].mean(), x - 0.42 * width, x + 0.42 * width, "0.1", linewidth=1.8, zorder=5)
    for role in ("reference", "control"):
        for (arm, group), dots in look.of(role, name).groupby(["arm", "x"], sort=False):
            at = groups.index(group) if group in groups else None
            span = (-0.5, len(groups) - 0.5) if at is None else (at - GROUP / 2, at + GROUP / 2)
            dashes = look.dashes[str(arm)] if role == "control" else None
            _line(ax, span, dots["value"].to_numpy(float), dashes)
    floor_line(ax, look.floor)
    ax.set_xlim(-0.5, max(len(groups), 1) - 0.5)
    ax.set_xticks(range(len(groups)), groups)
    ax.set_xlabel(look.figure.x_label, fontsize=9)
    _scale(ax, look)


def _bar(ax: Axes, x: float, width: float, dots: pd.DataFrame, colour: str, aside: dict[int, float]) -> None:
    """A bar with its interval and its seeds, each seed equally far aside in all bars."""
    mean, low, high = (float(bound[0]) for bound in t_band(dots["value"].to_numpy(float)[:, None]))
    ax.bar(x, mean, 0.94 * width, color=colour, alpha=0.75, linewidth=0, zorder=2)
    if len(dots) > 1:
        ax.errorbar(x, mean, [[mean - low], [high - mean]], color="0.1", linewidth=1.1, capsize=3, zorder=4)
        at = [x + aside[seed] * width for seed in dots["seed"]]
        ax.plot(at, dots["value"], "o", color="0.25", markersize=2.2, alpha=0.7, markeredgewidth=0, zorder=3)


def _line(ax: Axes, span: tuple[float, float], values: Array, dashes: Dashes | None) -> None:
    """The reference with its interval, or, where ``dashes`` are given, a control."""
    mean, low, high = (float(bound[0]) for bound in t_band(values[:, None]))
    if dashes is not None:
        ax.hlines(mean, *span, GREY, linestyles=dashes, linewidth=1.3, zorder=3.5)
        return
    ax.hlines(mean, *span, REFERENCE, linewidth=1.8, zorder=3.5)
    if len(values) > 1:
        ax.fill_between(span, low, high, color=REFERENCE, alpha=0.16, linewidth=0, zorder=1.5)


def _scale(ax: Axes, look: BarLook) -> None:
    """The same range in all panels, from 0."""
    values = look.dots["value"]
    low, high = float(values.min()), float(values.max())
    if look.log:
        logarithmic(ax, down_to(look.floor, low, log=True), high)
        return
    groups = [group for _, group in look.dots.groupby(["panel", "arm", "metric"])["value"]]
    low, high = widened(min(low, 0.0), max(high, 0.0), groups)
    linear(ax, low, high, 0.05)
    if low == 0.0:
        ax.set_ylim(bottom=0.0)
    ax.axhline(0.0, color="0.2", linewidth=0.8, zorder=2.5)


def bar_handles(look: BarLook) -> list[Artist]:
    """Colours, lines across, and how to read a bar."""
    handles: list[Artist] = [
        Patch(color=colour, alpha=0.75, linewidth=0, label=str(value)) for value, colour in look.colours.items()
    ]
    if len(look.of("reference")):
        handles.append(Line2D([], [], color=REFERENCE, linewidth=1.8, label=f"{look.figure.reference} (reference)"))
    for arm, dashes in look.dashes.items():
        handles.append(Line2D([], [], color=GREY, ls=dashes, linewidth=1.3, label=f"{arm} (control)"))
    if look.floor is not None:
        handles.append(floor_handle())
    if len(look.of("ceiling")):
        handles.append(Line2D([], [], color="0.1", linewidth=1.8, label="ceiling"))
    if look.dots["seed"].nunique() > 1:
        seed = Line2D([], [], color="0.25", marker="o", markersize=2.6, linewidth=0, label="one seed")
        interval = Line2D([], [], color="0.1", marker="|", markersize=7, linewidth=1.1, label="95 % interval")
        handles += [seed, interval]
    return handles
