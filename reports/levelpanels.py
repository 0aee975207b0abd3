"""The axes of a figure of kind ``levels``: levels, lines across, the paper's values, and the legend."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from matplotlib.transforms import ScaledTranslation

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
    panel_title,
    rows_of,
    watermark,
    widened,
)
from reports.barpanels import DASHES, REFERENCE, Dashes
from reports.page import Page
from reports.statistics import t_band
from studies.figure import Levels
from studies.schema import ResolvedStudy

HEIGHT, GAP, ASIDE = 3.2, 0.55, 0.1  # inches; single seeds stand aside of their mean
COLOUR = "#1f77b4"
PAPER = "paper"  # instead of a panel's name
TICKS = 10


@dataclass(frozen=True)
class LevelLook:
    """What the axes show: our values with their roles and places, the paper's, and what both are called."""

    study: ResolvedStudy
    figure: Levels
    drawn: pd.DataFrame
    paper: pd.DataFrame
    paper_title: str
    label: str
    floor: float | None = None

    def of(self, role: str, panel: str | None = None) -> pd.DataFrame:
        """Our values of one role, in one panel or all."""
        rows = self.drawn[self.drawn["role"] == role]
        return rows if panel is None else rows[rows["panel"] == panel]

    def dashes(self, panel: str) -> dict[str, Dashes]:
        """How each control's line is drawn: controls of different panels that are called alike are drawn alike."""
        labels = list(dict.fromkeys(self.label_of(arm) for arm in self.of("control")["arm"]))
        of_panel = dict.fromkeys(self.of("control", panel)["arm"])
        return {arm: DASHES[labels.index(self.label_of(arm)) % len(DASHES)] for arm in of_panel}

    def label_of(self, control: str) -> str:
        """What a control is called."""
        return self.study.controls[control].label or control


def add_levels(page: Page, look: LevelLook) -> None:
    """Panels, each under its title, and beside them the paper's values."""
    titles = {name: panel_title(look.study, name) for name in look.study.panels}
    titles |= {PAPER: look.paper_title} if len(look.paper) else {}
    for row in rows_of(page, titles, 3 if len(titles) == 3 else 2, GAP):
        for place in row:
            ax = page.axes(place.x, place.width, HEIGHT)
            of_paper = place.panel == PAPER
            (_paper if of_paper else draw_panel)(ax, look, place.panel)
            dress(ax, page, look.label, HEIGHT, labelled=place.labelled, meaningless=False)
            if look.study.meaningless and not of_paper:
                watermark(ax, min(32, 9 * place.width))
            ax.tick_params(labelleft=place.labelled or of_paper)
            places(ax, look)
        page.y += HEIGHT + BELOW


def draw_panel(ax: Axes, look: LevelLook, name: str) -> None:
    """Levels with their intervals and seeds, and the lines across of one panel of ours."""
    levels = look.of("level", name)
    centres = [_level(ax, own) for _, own in levels.groupby("arm", sort=False)]
    if levels.groupby("x")["arm"].nunique().max() == 1:  # else several arms differ in more than x
        ax.plot(*zip(*sorted(centres), strict=True), color=COLOUR, linewidth=1.0, alpha=0.6, zorder=3)
    for _, own in look.of("reference", name).groupby("arm"):
        _line(ax, own["value"], REFERENCE, "-")
    for arm, dashes in look.dashes(name).items():
        own = look.of("control", name)
        _line(ax, own["value"][own["arm"] == arm], GREY, dashes)
    floor_line(ax, look.floor)
    values = look.drawn["value"]
    low, high, log = float(values.min()), float(values.max()), beyond_a_decade(values)
    low = down_to(look.floor, low, log=log)
    if log:
        logarithmic(ax, low, high)
        return
    groups = [own["value"] for _, own in look.drawn.groupby(["panel", "arm"])]
    linear(ax, *widened(low, high, groups), 0.06)


def _level(ax: Axes, own: pd.DataFrame) -> tuple[float, float]:
    """One arm at its place; returns where its mean stands."""
    x = float(own["x"].iloc[0])
    mean, low, high = (float(bound[0]) for bound in t_band(own["value"].to_numpy(float)[:, None]))
    if len(own) > 1:
        aside = ax.transData + ScaledTranslation(ASIDE, 0, ax.figure.dpi_scale_trans)
        (seeds,) = ax.plot([x] * len(own), own["value"], "o", color=COLOUR, markersize=3, transform=aside)
        seeds.set(alpha=0.5, markeredgewidth=0, zorder=2.5)
        ax.errorbar(x, mean, [[mean - low], [high - mean]], color=COLOUR, linewidth=1.3, capsize=4, zorder=4)
    ax.plot([x], [mean], "o", color=COLOUR, markersize=7, zorder=4.5)
    return x, mean


def _line(ax: Axes, values: pd.Series, colour: str, dashes: Dashes | str) -> None:
    """A mean across the axes, with its interval."""
    mean, low, high = (float(bound[0]) for bound in t_band(values.to_numpy(float)[:, None]))
    ax.axhline(mean, color=colour, linestyle=dashes, linewidth=1.5, zorder=3.5)
    if len(values) > 1:
        ax.axhspan(low, high, color=colour, alpha=0.13, linewidth=0, zorder=1.5)


def _paper(ax: Axes, look: LevelLook, name: str) -> None:
    """The paper's values on a scale of their own."""
    levels = look.paper[look.paper["role"] == "level"].sort_values("x")
    ax.plot(levels["x"].astype(float), levels["value"], "D-", color="0.2", markersize=6, linewidth=1.0, zorder=4)
    for value in look.paper["value"][look.paper["role"] == "reference"]:
        ax.axhline(value, color=REFERENCE, linewidth=1.5, zorder=3.5)
    linear(ax, float(look.paper["value"].min()), float(look.paper["value"].max()), 0.12)


def places(ax: Axes, look: LevelLook) -> None:
    """The same x-axis everywhere, with a tick at every level, ours or the paper's, where they are few."""
    ax.set_xlabel(look.figure.x_label, fontsize=9)
    levels = sorted({float(x) for x in (*look.of("level")["x"], *look.paper["x"].dropna())})
    if not levels:
        return
    low, high = levels[0], levels[-1]
    if look.figure.log_x:
        ax.set_xscale("log", base=2)
        pad = (high / low) ** 0.09 if high > low else 2.0
        ax.set_xlim(low / pad, high * pad)
    else:
        linear_pad = 0.09 * (high - low) or 1.0
        ax.set_xlim(low - linear_pad, high + linear_pad)
    if len(levels) <= TICKS:
        ax.set_xticks(levels, [f"{level:g}" for level in levels])
        ax.xaxis.set_minor_locator(NullLocator())


def level_handles(look: LevelLook) -> list[Artist]:
    """Dots and lines."""
    several = look.drawn["seed"].nunique() > 1
    mean = Line2D([], [], color=COLOUR, marker="o", markersize=7, linewidth=1.0, label="mean" if several else "value")
    handles: list[Artist] = [mean]
    if several:
        handles.append(Line2D([], [], color=COLOUR, marker="o", markersize=3, alpha=0.5, linewidth=0, label="one seed"))
        handles.append(Line2D([], [], color=COLOUR, marker="|", markersize=8, linewidth=1.3, label="95 % interval"))
    if len(look.of("reference")):
        handles.append(Line2D([], [], color=REFERENCE, linewidth=1.5, label=f"{look.figure.reference} (reference)"))
    controls: dict[str, Dashes] = {}
    for panel in look.study.panels:
        controls |= {look.label_of(arm): dashes for arm, dashes in look.dashes(panel).items()}
    for name, dashes in controls.items():
        handles.append(Line2D([], [], color=GREY, ls=dashes, linewidth=1.5, label=f"{name} (control)"))
    if look.floor is not None:
        handles.append(floor_handle())
    if len(look.paper):
        handles.append(Line2D([], [], color="0.2", marker="D", markersize=6, linewidth=1.0, label="the paper's value"))
    return handles
