"""The axes of a figure of kind ``curves``: panels, their curves, their scales, and the legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.page import MARGIN, Page
from reports.statistics import t_band
from studies.schema import Curves, ResolvedStudy

HEIGHT, ENDS_HEIGHT = 3.0, 2.3  # inches, as the next
LEFT, GAP, BETWEEN, BELOW = 0.9, 0.3, 0.32, 0.55  # left of axes, between columns, between rows, below
GREY = "0.35"
ALARM = "#b30000"
MARKERS = "os^Dvphd<>"


@dataclass(frozen=True)
class Style:
    """How one budget is drawn. Markers tell budgets apart without colour."""

    colour: Any
    marker: str


@dataclass(frozen=True)
class Look:
    """What the axes show: the points measured, a style a budget, the label, whether logarithmic."""

    study: ResolvedStudy
    figure: Curves
    drawn: pd.DataFrame
    styles: dict[Any, Style]
    label: str
    log: bool


def look_of(study: ResolvedStudy, figure: Curves, drawn: pd.DataFrame, label: str) -> Look:
    """Colours evenly along viridis (readable in grey and colour-blind); logarithmic beyond a decade."""
    seen = [a.get(figure.colour_by) for a in drawn["attributes"][~drawn["control"].astype(bool)]]
    values = list(dict.fromkeys(value for value in seen if value is not None))
    if all(isinstance(value, (int, float)) for value in values):
        values.sort()
    colours = colormaps["viridis"](np.linspace(0.0, 0.86, max(len(values), 1)))
    styles = {v: Style(colours[i], MARKERS[i % len(MARKERS)]) for i, v in enumerate(values)}
    low, high = drawn["value"].min(), drawn["value"].max()
    return Look(study, figure, drawn, styles, label, bool(low > 0 and high > 10 * low))


def add_panels(page: Page, look: Look) -> None:
    """Two panels a row, each under its title; under logarithmic ones a row with the ends of the curves."""
    names = list(look.study.panels)
    per_row = min(2, len(names))
    width = (page.width - LEFT - MARGIN - GAP * (per_row - 1)) / per_row
    for first in range(0, len(names), per_row):
        row = [(LEFT + i * (width + GAP), name) for i, name in enumerate(names[first : first + per_row])]
        page.y = 0.06 + max(page.text(_panel_title(look.study, name), x=x, width=width, size=9.5) for x, name in row)
        for x, name in row:
            _finish(_panel(page.axes(x, width, HEIGHT), look, name), page, look, labelled=x == LEFT, ends=False)
        page.y += HEIGHT + (BETWEEN if look.log else BELOW)
        if look.log:
            for x, name in row:
                axes = _panel(page.axes(x, width, ENDS_HEIGHT), look, name)
                _finish(axes, page, look, labelled=x == LEFT, ends=True)
            page.y += ENDS_HEIGHT + BELOW


def _panel_title(study: ResolvedStudy, name: str) -> str:
    letter = chr(ord("a") + list(study.panels).index(name))
    return f"({letter}) {study.panels[name].title}"


def _panel(ax: Axes, look: Look, name: str) -> Axes:
    """The curves of one panel."""
    in_panel = look.drawn[look.drawn["panel"] == name]
    for _, rows in in_panel.groupby(["control", "arm"], sort=False):
        value = rows["attributes"].iloc[0].get(look.figure.colour_by)
        control = bool(rows["control"].iloc[0])
        style = Style(GREY, "x") if control else look.styles.get(value, Style(GREY, "."))
        main = rows["stage"] == look.figure.stage
        for _, stage in rows[~main].groupby("stage", sort=False):
            _curve(ax, stage, style, dashes="--", strong=False)
        _curve(ax, rows[main], style, dashes="-." if control else "-", strong=True)
    return ax


def _curve(ax: Axes, rows: pd.DataFrame, style: Style, *, dashes: str, strong: bool) -> None:
    """Mean and single seeds of one stage of one arm; where ``strong``, also the interval and markers."""
    if rows.empty:
        return
    grid = rows.pivot(index="seed", columns="epoch", values="value").sort_index(axis=1)
    x, values = grid.columns.to_numpy(float), grid.to_numpy(float)
    mean, low, high = t_band(values)
    if len(values) > 1:
        seeds = [np.column_stack([x, row])[~np.isnan(row)] for row in values]
        ax.add_collection(LineCollection(seeds, colors=[style.colour], linewidths=0.45, alpha=0.3, zorder=2))
        if strong:
            ax.fill_between(x, low, high, color=style.colour, alpha=0.16, linewidth=0, zorder=1.5)
    (line,) = ax.plot(x, mean, dashes, color=style.colour, linewidth=1.7 if strong else 1.0)
    line.set_zorder(4 if strong else 3)
    if strong:
        line.set(marker=style.marker, markersize=4, markeredgewidth=1.0 if style.marker == "x" else 0)


def _finish(ax: Axes, page: Page, look: Look, *, labelled: bool, ends: bool) -> None:
    """Scales, labels, grid and, where the numbers mean nothing, a watermark."""
    (_scale_ends if ends else _scale)(ax, look)
    ax.tick_params(labelsize=8.5, labelleft=labelled)
    if labelled:
        lines = page.wrap(look.label, ENDS_HEIGHT if ends else HEIGHT, 9)
        ax.set_ylabel("\n".join(lines), fontsize=9)
    if ends or not look.log:
        ax.set_xlabel(f"epochs from the root ({look.study.steps_per_epoch} steps each)", fontsize=9)
    ax.grid(True, which="major", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if look.study.meaningless:
        mark = ax.text(0.5, 0.5, "MEANINGLESS", transform=ax.transAxes, ha="center", va="center", rotation=22)
        mark.set(fontsize=32, weight="bold", color=ALARM, alpha=0.22, zorder=10)


def _scale(ax: Axes, look: Look) -> None:
    """The same range in all panels, set by the points: an interval of two seeds may reach far beyond."""
    low, high = float(look.drawn["value"].min()), float(look.drawn["value"].max())
    if not look.log:
        _linear(ax, low, high, 0.06)
        return
    pad = (high / low) ** 0.04
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(low / pad, high * pad)


def _scale_ends(ax: Axes, look: Look) -> None:
    """The second half of the epochs in the range of the arms' last values, linear; the rest is cut off."""
    drawn = look.drawn
    last = drawn.loc[drawn.groupby(["panel", "arm", "seed"])["epoch"].idxmax(), "value"]
    _linear(ax, float(last.min()), float(last.max()), 0.15)
    ax.set_xlim(0.5 * drawn["epoch"].max(), 1.03 * drawn["epoch"].max())


def _linear(ax: Axes, low: float, high: float, pad: float) -> None:
    room = pad * ((high - low) or abs(high) or 1.0)
    ax.set_ylim(low - room, high + room)


def legend_handles(look: Look) -> list[Line2D | Patch]:
    """Budgets, controls, and how to read the lines."""
    handles: list[Line2D | Patch] = []
    for value, style in look.styles.items():
        line = Line2D([], [], color=style.colour, linewidth=1.7, label=str(value))
        line.set(marker=style.marker, markersize=4, markeredgewidth=0)
        handles.append(line)
    for arm in dict.fromkeys(look.drawn["arm"][look.drawn["control"].astype(bool)]):
        handles.append(Line2D([], [], color=GREY, ls="-.", marker="x", markersize=4, label=f"{arm} (control)"))
    for stage in dict.fromkeys(look.drawn["stage"]):
        if stage != look.figure.stage:
            handles.append(Line2D([], [], color=GREY, ls="--", linewidth=1.0, label=stage))
    if look.drawn["seed"].nunique() > 1:
        handles.append(Line2D([], [], color=GREY, linewidth=0.45, label="one seed"))
        handles.append(Patch(color=GREY, alpha=0.16, linewidth=0, label="95 % interval"))
    return handles
