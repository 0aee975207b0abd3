"""What the axes of all figures have in common: where panels stand, scales, labels, grid, watermark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.drawing import ALARM
from reports.page import MARGIN, Page
from reports.statistics import t_band
from studies.schema import ResolvedStudy

LEFT, GAP, BELOW = 0.9, 0.3, 0.55  # inches: left of axes, between columns, below
GREY = "0.35"
FLOOR: Mapping[str, Any] = {"color": "0.1", "linestyle": ":", "linewidth": 1.2}


@dataclass(frozen=True)
class Place:
    """Where the axes of a panel stand on a page, in inches."""

    panel: str
    x: float
    width: float

    @property
    def labelled(self) -> bool:
        """Whether it stands first in its row and so has the label of the shared axis."""
        return self.x == LEFT


def panel_rows(page: Page, study: ResolvedStudy) -> Iterator[list[Place]]:
    """Rows of up to two panels, each below its title. The caller draws a row and moves the page on."""
    return rows_of(page, {name: panel_title(study, name) for name in study.panels}, 2, GAP)


def rows_of(page: Page, titles: Mapping[str, str], per_row: int, gap: float) -> Iterator[list[Place]]:
    """Rows of axes of equal width, ``gap`` inches apart, each below its title (by name)."""
    names = list(titles)
    per_row = min(per_row, len(names))
    width = (page.width - LEFT - MARGIN - gap * (per_row - 1)) / per_row
    for first in range(0, len(names), per_row):
        row = [Place(name, LEFT + i * (width + gap), width) for i, name in enumerate(names[first : first + per_row])]
        page.y = 0.06 + max(page.text(titles[p.panel], x=p.x, width=width, size=9.5) for p in row)
        yield row


def panel_title(study: ResolvedStudy, name: str) -> str:
    """A panel's title with its letter, if there are several."""
    letter = chr(ord("a") + list(study.panels).index(name))
    return (f"({letter}) " if len(study.panels) > 1 else "") + study.panels[name].title


def dress(ax: Axes, page: Page, label: str, height: float, *, labelled: bool, meaningless: bool) -> None:
    """Labels, grid and, where the numbers mean nothing, a watermark."""
    ax.tick_params(labelsize=8.5, labelleft=labelled)
    if labelled:
        ax.set_ylabel("\n".join(page.wrap(label, height, 9)), fontsize=9)
    ax.grid(True, which="major", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if meaningless:
        watermark(ax)


def watermark(ax: Axes, size: float = 32, colour: str = ALARM) -> None:
    """Says across the axes that the numbers mean nothing."""
    mark = ax.text(0.5, 0.5, "MEANINGLESS", transform=ax.transAxes, ha="center", va="center", rotation=22)
    mark.set(fontsize=size, weight="bold", color=colour, alpha=0.22, zorder=10)


def beyond_a_decade(values: pd.Series) -> bool:
    """Whether values ask for a logarithmic axis."""
    low, high = values.min(), values.max()
    return bool(low > 0 and high > 10 * low)


def floor_line(ax: Axes, floor: float | None) -> None:
    """Across the axes, below which a distance says nothing of a network."""
    if floor is not None:
        ax.axhline(floor, **FLOOR, zorder=1.8)


def down_to(floor: float | None, low: float, *, log: bool) -> float:
    """The lower end of a range that shows the floor too; on a logarithmic axis a floor of 0 or below has no place."""
    return low if floor is None or (log and floor <= 0) else min(low, floor)


def floor_handle() -> Line2D:
    return Line2D([], [], **FLOOR, label="floor")


def widened(low: float, high: float, groups: Iterable[pd.Series]) -> tuple[float, float]:
    """A range widened by the intervals of groups of values, by half of it at most: one of two seeds may reach far
    beyond."""
    bounds = [t_band(group.to_numpy(float)[:, None])[1:] for group in groups if len(group) > 1]
    reach = 0.5 * (high - low)
    ends = np.clip(np.ravel(bounds), low - reach, high + reach) if bounds else np.array([low, high])
    return min(low, float(ends.min())), max(high, float(ends.max()))


def logarithmic(ax: Axes, low: float, high: float) -> None:
    pad = (high / low) ** 0.04
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(low / pad, high * pad)


def linear(ax: Axes, low: float, high: float, pad: float) -> None:
    room = pad * ((high - low) or abs(high) or 1.0)
    ax.set_ylim(low - room, high + room)
