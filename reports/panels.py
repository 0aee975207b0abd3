"""The axes of a figure of kind ``curves``: panels, their curves, their scales, and the legend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.arrivals import Arrivals, arrival_handles, arrivals, mark_arrivals, say_speedups, seeds_by_epochs
from reports.axes import (
    BELOW,
    GREY,
    Place,
    beyond_a_decade,
    down_to,
    dress,
    floor_handle,
    floor_line,
    linear,
    logarithmic,
    panel_rows,
)
from reports.page import Page
from reports.paper import speedups_in
from reports.statistics import t_band
from reports.versions import label_of
from studies.figure import Curves
from studies.schema import ResolvedStudy

HEIGHT, ENDS_HEIGHT, BETWEEN = 3.0, 2.3, 0.32  # inches
MARKERS = "os^Dvphd<>"
COLUMNS = ["panel", "control", "arm", "stage", "seed", "epoch", "value", "attributes"]  # of lines


@dataclass(frozen=True)
class Style:
    """How one budget is drawn and called. Markers tell budgets apart without colour."""

    colour: Any
    marker: str
    label: str = ""


@dataclass(frozen=True)
class Line:
    """One stage of one arm: epochs (E,), values (S, E) by seed, how they are drawn, and whether with an interval and
    markers."""

    epochs: np.ndarray
    values: np.ndarray
    style: Style
    dashes: str
    strong: bool


@dataclass(frozen=True)
class Look:
    """What the axes show: the points planned, those measured, a style a budget, the label, whether logarithmic."""

    study: ResolvedStudy
    figure: Curves
    rows: pd.DataFrame
    drawn: pd.DataFrame
    styles: dict[Any, Style]
    label: str
    log: bool
    floor: float | None = None

    def style_of(self, rows: pd.DataFrame) -> Style:
        """How the arm of these rows is drawn and called."""
        if rows["control"].iloc[0]:
            return Style(GREY, "x", f"{rows['arm'].iloc[0]} (control)")
        return self.styles.get(rows["attributes"].iloc[0].get(self.figure.colour_by), Style(GREY, "."))

    def styles_in(self, panel: str) -> dict[str, Style]:
        """By arm."""
        rows = self.drawn[self.drawn["panel"] == panel]
        return {str(arm): self.style_of(own) for arm, own in rows.groupby("arm", sort=False)}

    @cached_property
    def lines(self) -> Mapping[str, list[Line]]:
        """By panel, in the order in which they are drawn."""
        return {str(panel): list(self._lines_of(rows)) for panel, rows in self.drawn[COLUMNS].groupby("panel")}

    def _lines_of(self, panel: pd.DataFrame) -> Iterator[Line]:
        for _, rows in panel.groupby(["control", "arm"], sort=False):
            style, dashes = self.style_of(rows), "-." if rows["control"].iloc[0] else "-"
            stages = dict(iter(rows.groupby("stage", sort=False)))
            main = stages.pop(self.figure.stage, None)
            for earlier in stages.values():
                yield Line(*seeds_by_epochs(earlier), style, "--", False)
            if main is not None:
                yield Line(*seeds_by_epochs(main), style, dashes, True)

    @cached_property
    def arrivals(self) -> Mapping[str, Arrivals]:
        """What the figure's reference shows, in the panels that have it. An end is one of what is planned: the last
        point measured so far is none."""
        if not self.figure.reference:
            return {}
        rows = self.rows[self.rows["stage"] == self.figure.stage]
        found = {panel: arrivals(rows[rows["panel"] == panel], self.figure.reference) for panel in self.study.panels}
        return {panel: its for panel, its in found.items() if its}

    @property
    def reference_label(self) -> str:
        """What the reference is called in the legend."""
        return self.style_of(self.drawn[self.drawn["arm"] == self.figure.reference]).label


def look_of(study: ResolvedStudy, figure: Curves, rows: pd.DataFrame, label: str, floor: float | None = None) -> Look:
    """Of all points, some measured. Colours evenly along viridis (readable in grey and colour-blind); logarithmic
    beyond a decade."""
    drawn = rows[rows["value"].notna()]
    seen: dict[Any, dict[str, Any]] = {}
    for attributes in drawn["attributes"][~drawn["control"].astype(bool)]:
        seen.setdefault(attributes.get(figure.colour_by), attributes)
    values = [value for value in seen if value is not None]
    if all(isinstance(value, (int, float)) for value in values):
        values.sort()
    colours = colormaps["viridis"](np.linspace(0.0, 0.86, max(len(values), 1)))
    styles = {
        v: Style(colours[i], MARKERS[i % len(MARKERS)], label_of(figure.label, v, seen[v]))
        for i, v in enumerate(values)
    }
    return Look(study, figure, rows, drawn, styles, label, beyond_a_decade(drawn["value"]), floor)


def add_panels(page: Page, look: Look) -> None:
    """Panels, each under its title; under logarithmic ones a row with the ends of the curves."""
    for row in panel_rows(page, look.study):
        for place in row:
            _axes(page, place, look, HEIGHT, ends=False)
        page.y += HEIGHT + (BETWEEN if look.log else BELOW)
        if look.log:
            for place in row:
                _axes(page, place, look, ENDS_HEIGHT, ends=True)
            page.y += ENDS_HEIGHT + BELOW


def _axes(page: Page, place: Place, look: Look, height: float, *, ends: bool) -> None:
    """One axes of a panel: all of its curves, or their ends."""
    ax = draw_panel(page.axes(place.x, place.width, height), look, place.panel)
    if found := look.arrivals.get(place.panel):
        styles = look.styles_in(place.panel)
        colours = {arm: style.colour for arm, style in styles.items()}
        mark_arrivals(ax, found, colours)
        if not ends:
            papers = speedups_in(look.study, place.panel)
            say_speedups(ax, found, colours, {arm: style.label for arm, style in styles.items()}, papers)
    (_scale_ends if ends else scale)(ax, look)
    dress(ax, page, look.label, height, labelled=place.labelled, meaningless=look.study.meaningless)
    if ends or not look.log:
        ax.set_xlabel(f"epochs from the root ({look.study.steps_per_epoch} steps each)", fontsize=9)


def draw_panel(ax: Axes, look: Look, name: str) -> Axes:
    """The curves of one panel."""
    for line in look.lines.get(name, ()):
        _draw_line(ax, line)
    floor_line(ax, look.floor)
    return ax


def _draw_line(ax: Axes, line: Line) -> None:
    """Mean and single seeds; where ``strong``, also the interval and markers."""
    x, values, style = line.epochs, line.values, line.style
    mean, low, high = t_band(values)
    if len(values) > 1:
        seeds = [np.column_stack([x, row])[~np.isnan(row)] for row in values]
        ax.add_collection(LineCollection(seeds, colors=[style.colour], linewidths=0.45, alpha=0.3, zorder=2))
        if line.strong:
            ax.fill_between(x, low, high, color=style.colour, alpha=0.16, linewidth=0, zorder=1.5)
    (drawn,) = ax.plot(x, mean, line.dashes, color=style.colour, linewidth=1.7 if line.strong else 1.0)
    drawn.set_zorder(4 if line.strong else 3)
    if line.strong:
        drawn.set(marker=style.marker, markersize=4, markeredgewidth=1.0 if style.marker == "x" else 0)


def scale(ax: Axes, look: Look) -> None:
    """The same range in all panels, set by the points: an interval of two seeds may reach far beyond."""
    low, high = float(look.drawn["value"].min()), float(look.drawn["value"].max())
    low = down_to(look.floor, low, log=look.log)
    if look.log:
        logarithmic(ax, low, high)
    else:
        linear(ax, low, high, 0.06)


def _scale_ends(ax: Axes, look: Look) -> None:
    """The second half of the epochs in the range of the arms' last values, linear; the rest is cut off."""
    drawn = look.drawn
    last = drawn.loc[drawn.groupby(["panel", "arm", "seed"])["epoch"].idxmax(), "value"]
    linear(ax, float(last.min()), float(last.max()), 0.15)
    ax.set_xlim(0.5 * drawn["epoch"].max(), 1.03 * drawn["epoch"].max())


def legend_handles(look: Look) -> list[Line2D | Patch]:
    """Budgets, controls, and how to read the lines."""
    handles: list[Line2D | Patch] = []
    for style in look.styles.values():
        line = Line2D([], [], color=style.colour, linewidth=1.7, label=style.label)
        line.set(marker=style.marker, markersize=4, markeredgewidth=0)
        handles.append(line)
    for arm in dict.fromkeys(look.drawn["arm"][look.drawn["control"].astype(bool)]):
        handles.append(Line2D([], [], color=GREY, ls="-.", marker="x", markersize=4, label=f"{arm} (control)"))
    for stage in dict.fromkeys(look.drawn["stage"]):
        if stage != look.figure.stage:
            handles.append(Line2D([], [], color=GREY, ls="--", linewidth=1.0, label=stage))
    if look.arrivals:
        handles += arrival_handles(look.reference_label)
    if look.floor is not None:
        handles.append(floor_handle())
    if look.drawn["seed"].nunique() > 1:
        handles.append(Line2D([], [], color=GREY, linewidth=0.45, label="one seed"))
        handles.append(Patch(color=GREY, alpha=0.16, linewidth=0, label="95 % interval"))
    return handles
