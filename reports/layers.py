"""Heat maps of cosines by layer behind a figure of bars: layers down, the bars of one colour across."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.font_manager import FontProperties

from reports import captions
from reports.axes import panel_title, watermark
from reports.bardata import bars_of, needed_points, readings_of
from reports.drawing import COLUMN_GAP, Drawing, Subject, compose
from reports.page import DPI, MARGIN, Page
from reports.versions import DECLARED
from studies.figure import Bars
from studies.schema import ResolvedStudy

NAME = re.compile(r"layer/(?P<protocol>[^/]+)/(?P<layer>.+)")
FIRST, LAST = ("condition", "embed", "input"), ("modulation", "norm", "output", "final")
ROW, SCALE, BELOW = 0.24, 0.75, 0.5  # inches: height of a row, room for the colour scale, below a map
CELL = ["panel", "colour", "arm", "x", "metric", "layer"]
COLUMNS = [*CELL, "value", "seeds", "steps"]


@dataclass(frozen=True)
class Maps:
    """The cells, the layers from input to output, and the largest size of a value."""

    study: ResolvedStudy
    cells: pd.DataFrame
    layers: list[str]
    size: float


def layer_points(subject: Subject, figure: Bars) -> pd.DataFrame:
    """Where the layers' values lie: trajectory, step and protocol of every point behind a bar, with its place."""
    rows = needed_points(figure, subject.shown(figure))
    rows = rows[~rows["is_ceiling"]]
    bars = bars_of(figure, rows)
    places = bars[bars["role"] == "bar"][["panel", "arm", "protocol", "x", "colour"]].drop_duplicates()
    return rows[["panel", "arm", "seed", "metric", "trajectory", "step", "protocol"]].merge(places)


def cells_of(points: pd.DataFrame, logged: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: the mean over seeds of the mean over steps of one layer's values.

    ``logged`` are training metrics (trajectory, step, name, value); those of layers are called
    ``layer/<protocol>/<layer>``.
    """
    found = logged.join(logged["name"].str.extract(NAME)).dropna(subset=["layer", "value"])
    values = points.merge(found, on=["trajectory", "step", "protocol"])
    by_seed = values.groupby([*CELL, "seed"], sort=False)["value"].agg(["mean", "size"]).reset_index()
    cells = by_seed.groupby(CELL, sort=False).agg(value=("mean", "mean"), seeds=("seed", "size"), steps=("size", "max"))
    return cells.reset_index()[COLUMNS]


def layer_order(layers: Sequence[str]) -> list[str]:
    """From input to output: what begins with a name in `FIRST`, then in natural order, then what begins with one in
    `LAST`."""

    def rank(layer: str) -> tuple[int, list[Any]]:
        head = layer.split(".", maxsplit=1)[0]
        first = next((i for i, name in enumerate(FIRST) if head.startswith(name)), len(FIRST))
        last = next((i + 1 for i, name in enumerate(LAST) if head.startswith(name)), 0)
        numbers = [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"[._]", layer)]
        return first + (len(FIRST) + 1) * last, numbers

    return sorted(set(layers), key=rank)


def draw_layers(subject: Subject, figure: Bars, points: pd.DataFrame, logged: pd.DataFrame) -> Drawing | None:
    """Draw the layers' values, or nothing where none are logged."""
    cells = cells_of(points, logged)
    if cells.empty:
        return None
    study = subject.study
    _, show = subject.shown(figure)[0]
    maps = Maps(study, cells, layer_order(list(cells["layer"])), float(cells["value"].abs().max()) or 1.0)
    heading = captions.heading(study, readings_of(show), DECLARED, subject.variant)
    caption = captions.caption(study, readings_of(show), subject.run, [_how_to_read(cells, figure)])
    drawing = compose(study, f"By layer: {heading}", lambda page: _maps(page, figure, maps), caption, "")
    return Drawing(drawing, cells)


def _how_to_read(cells: pd.DataFrame, figure: Bars) -> str:
    def span(name: str) -> str:
        low, high = cells[name].min(), cells[name].max()
        return f"{low} to {high} {name}" if low < high else f"{low} {name if low > 1 else name[:-1]}"

    return (
        f"Each cell: one layer's value for one bar of the figure, mean over {span('seeds')} of the mean over "
        f"{span('steps')}; layers from input (top) to output; maps by {figure.colour_label}. A layer's value "
        "is that of its own parameters alone, so the whole network's is no mean of them."
    )


def _maps(page: Page, figure: Bars, maps: Maps) -> None:
    """One row of maps a panel, one map a colour, and the scale of colours that all share."""
    left = 0.15 + max(_inches(page, layer, 8) for layer in maps.layers) + MARGIN
    colours = list(dict.fromkeys(maps.cells["colour"]))
    width = (page.width - left - MARGIN - SCALE - COLUMN_GAP * len(colours)) / len(colours)
    height = ROW * len(maps.layers)
    for panel in dict.fromkeys(maps.cells["panel"]):
        page.y = page.text(panel_title(maps.study, panel), x=left, size=9.5) + 0.04
        places = [(left + i * (width + COLUMN_GAP), colour) for i, colour in enumerate(colours)]
        page.y = 0.05 + max(page.text(str(colour), x=x, width=width, size=8.5) for x, colour in places)
        below = 0.0
        for x, colour in places:
            cells = maps.cells[(maps.cells["panel"] == panel) & (maps.cells["colour"] == colour)]
            if len(cells):
                ax = page.axes(x, width, height)
                below = max(below, _map(ax, page, maps, cells, width))
                ax.set_xlabel(figure.x_label, fontsize=8.5)
                ax.tick_params(labelleft=x == left)
        _scale(page.axes(page.width - MARGIN - SCALE, 0.14, height), maps)
        page.y += height + BELOW + below


def _map(ax: Axes, page: Page, maps: Maps, cells: pd.DataFrame, width: float) -> float:
    """One map; returns how much more room its labels take below than lying labels would."""
    grid = cells.pivot(index="layer", columns="x", values="value")
    grid = grid.reindex(index=maps.layers, columns=list(dict.fromkeys(cells["x"])))
    ax.imshow(
        grid.to_numpy(float),
        aspect="auto",
        cmap="RdBu_r",
        norm=Normalize(-maps.size, maps.size),
        interpolation="nearest",
    )
    ax.set_yticks(range(len(maps.layers)), maps.layers, fontsize=8)
    labels = [str(x) for x in grid.columns]
    longest, cell = max(_inches(page, label, 8) for label in labels), width / len(labels)
    lying = longest <= 0.95 * cell
    ax.set_xticks(range(len(labels)), labels, fontsize=8, rotation=0 if lying else 90)
    ax.tick_params(length=2)
    if _inches(page, "−0.00", 7) <= 0.9 * cell:
        for (i, j), value in np.ndenumerate(grid.to_numpy(float)):
            dark = abs(value) > 0.6 * maps.size
            said = "" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
            ax.text(j, i, said, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    if maps.study.meaningless:
        watermark(ax, 20, "black")
    return 0.0 if lying else longest


def _scale(ax: Axes, maps: Maps) -> None:
    """The scale of colours, centred at 0."""
    ramp = np.linspace(-maps.size, maps.size, 256)[:, None]
    ax.imshow(ramp, aspect="auto", cmap="RdBu_r", origin="lower", extent=(0, 1, -maps.size, maps.size))
    ax.set_xticks([])
    ax.yaxis.tick_right()
    ax.tick_params(labelsize=8)


def _inches(page: Page, text: str, size: float) -> float:
    width, _, _ = page.renderer.get_text_width_height_descent(text, FontProperties(size=size), False)
    return float(width / DPI)
