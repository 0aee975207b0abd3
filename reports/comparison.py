"""Two arms side by side: every number that both have, paired by seed, and their curves on one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports import statistics as st
from reports.axes import beyond_a_decade, dress, linear, logarithmic, watermark
from reports.drawing import Drawing
from reports.errors import NothingToReport, ReportError
from reports.files import save_figure
from reports.frames import Reading, ends, find, points, readings
from reports.page import MARGIN, Page, style
from reports.predicates import percent
from reports.stored import Stored
from reports.words import metric_words, signed

WIDTH, HEIGHT, LEFT, BELOW = 8.0, 3.6, 0.9, 0.55  # inches
COLOURS = ("#1f77b4", "#d95f02")
COLUMNS = [
    "metric", "nfe", "solver", "a", "b", "difference", "low", "high", "percent", "low_percent", "high_percent", "p",
    "n",
]  # fmt: skip


@dataclass(frozen=True)
class Side:
    """An arm of a stored study."""

    stored: Stored
    panel: str
    arm: str

    @property
    def study(self) -> str:
        """``obs_v_then_u at cpu``, ``obs_v_then_u at cpu as NAME``."""
        run = self.stored.run
        return f"{run.study} at {run.scale}" + (f" as {run.variant}" if run.variant else "")

    @property
    def name(self) -> str:
        return f"{self.study}: {self.panel}/{self.arm}"

    def rows(self, reading: Reading) -> pd.DataFrame:
        """Its points under a reading."""
        rows = points(self.stored.frame, reading)
        return rows[(rows["panel"] == self.panel) & (rows["arm"] == self.arm)]

    @property
    def readings(self) -> list[Reading]:
        """Those under which the arm has a measured point."""
        found = readings(self.stored.study, self.stored.frame, self.stored.protocols)
        return [reading for reading in found if self.rows(reading)["value"].notna().any()]

    def ends(self, reading: Reading) -> pd.Series:
        """The value at the arm's end, by seed; of seeds that have it."""
        rows = ends(self.stored.frame, reading)
        last = rows[(rows["panel"] == self.panel) & (rows["arm"] == self.arm)]
        return last.dropna(subset=["value"]).set_index("seed")["value"].astype(float)


@dataclass(frozen=True)
class Comparison:
    """``table``: a row a protocol under which both arms are measured at their ends, in `COLUMNS`: means over the seeds
    that both have, the paired difference a − b with its Student 95 % interval, in units and in %, and its two-sided p,
    None where it has none. What is tested are log ratios, said in %, where the metric has ratios; else there is no
    interval in %, and differences are tested (`reports.statistics.tested`)."""

    a: Side
    b: Side
    table: pd.DataFrame
    common: list[Reading]

    @property
    def labels(self) -> tuple[str, str]:
        """What tells the arms apart."""
        if self.a.study != self.b.study:
            return self.a.name, self.b.name
        if self.a.panel != self.b.panel:
            return f"{self.a.panel}/{self.a.arm}", f"{self.b.panel}/{self.b.arm}"
        return self.a.arm, self.b.arm

    @property
    def title(self) -> str:
        """What is compared with what."""
        same = f"{self.a.study}: " if self.a.study == self.b.study else ""
        return same + " and ".join(self.labels)

    def reading(self, metric: str | None = None, nfe: int | None = None) -> Reading:
        """That of a metric, by default the first study's primary. Raises: ReportError that lists what there is."""
        wanted = metric or self.a.stored.study.primary
        if metric is None and all(reading.metric != wanted for reading in self.common):
            return self.common[0]
        return find(self.common, wanted, nfe)

    def plot(self, ax: Axes, metric: str | None = None, nfe: int | None = None) -> None:
        """Draw both curves over epochs from the root: mean, Student's 95 % band, single seeds."""
        reading = self.reading(metric, nfe)
        values = []
        for side, label, colour in zip((self.a, self.b), self.labels, COLOURS, strict=True):
            rows = side.rows(reading).dropna(subset=["value"]).drop_duplicates(["seed", "epoch"])
            grid = rows.pivot(index="seed", columns="epoch", values="value").sort_index(axis=1)
            mean, low, high = st.t_band(grid.to_numpy(float))
            x = grid.columns.to_numpy(float)
            for _, seed in grid.iterrows():
                ax.plot(x[seed.notna()], seed.dropna(), color=colour, linewidth=0.5, alpha=0.35)
            if len(grid) > 1:
                ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            ax.plot(x, mean, "o-", color=colour, markersize=4, linewidth=1.7, label=label)
            values.append(rows["value"])
        both = pd.concat(values)
        scale = logarithmic if beyond_a_decade(both) else lambda ax, low, high: linear(ax, low, high, 0.06)
        scale(ax, float(both.min()), float(both.max()))
        ax.set_xlabel("epochs from the root", fontsize=9)
        ax.set_ylabel(metric_words(reading), fontsize=9)
        ax.legend(frameon=False, fontsize=8.5)


def compare(a: Side, b: Side) -> Comparison:
    """Two arms under every protocol that both are measured by. Values of different protocols are never compared.

    Raises: NothingToReport where there is none.
    """
    theirs = {reading.protocol for reading in b.readings}
    common = [reading for reading in a.readings if reading.protocol in theirs]
    if not common:
        said = ["; ".join(f"{r.metric} at {r.nfe} NFE" for r in side.readings) or "nothing" for side in (a, b)]
        raise NothingToReport(
            f"{a.name} and {b.name} are measured by no common protocol ({a.name}: {said[0]}; {b.name}: {said[1]})"
        )
    table = pd.DataFrame([_row(a, b, reading) for reading in common], columns=COLUMNS)
    return Comparison(a, b, table, common)


def _row(a: Side, b: Side, reading: Reading) -> dict[str, Any]:
    pairs = pd.DataFrame({"a": a.ends(reading), "b": b.ends(reading)}).dropna()
    row: dict[str, Any] = {"metric": reading.metric, "nfe": reading.nfe, "solver": reading.solver, "n": len(pairs)}
    if pairs.empty:
        return row
    means, difference = pairs.mean(), float((pairs["a"] - pairs["b"]).mean())
    row |= {"a": means["a"], "b": means["b"], "difference": difference}
    row["percent"] = percent(difference, float(means["b"]))
    values = pairs.to_numpy(float)
    if (t := st.paired_t(*values.T)) is not None:
        row |= {"low": t.interval[0], "high": t.interval[1], "p": t.p}
    logs, ratios = st.tested(values, signed=signed(reading.metric))
    if ratios:
        row |= {"percent": st.as_percent(float((logs[:, 0] - logs[:, 1]).mean())), "p": None}
        if (t := st.paired_t(*logs.T)) is not None:
            low, high = map(st.as_percent, t.interval)
            row |= {"low_percent": low, "high_percent": high, "p": t.p}
    return row


def save_comparison(
    found: Comparison, out: Path, stem: str, caption: str, metric: str | None = None, nfe: int | None = None
) -> list[Path]:
    """The curves as PNG, PDF, SVG and CSV. Raises: ReportError for a metric that both do not have."""
    reading = found.reading(metric, nfe)
    meaningless = any(side.stored.study.meaningless for side in (found.a, found.b))
    with style():
        page = Page(WIDTH)
        page.y = page.text(found.title, size=11, weight="bold") + 0.1
        ax = page.axes(LEFT, WIDTH - LEFT - MARGIN, HEIGHT)
        found.plot(ax, metric, nfe)
        dress(ax, page, metric_words(reading), HEIGHT, labelled=True, meaningless=False)
        if meaningless:
            watermark(ax)
        page.y += HEIGHT + BELOW
        page.y = page.text(caption)
        figure = page.finish()
    drawn = [side.rows(reading).assign(side=side.name) for side in (found.a, found.b)]
    rows = pd.concat(drawn, ignore_index=True).drop(columns="attributes").dropna(subset=["value"])
    return save_figure(Drawing(figure, rows), out, stem)


def one_side(stored: Stored, panel: str, arm: str) -> Side:
    """Raises: ReportError where the store has no such arm."""
    frame = stored.frame
    if not np.any((frame["panel"] == panel) & (frame["arm"] == arm)):
        raise ReportError(f"run {stored.run.run} of '{stored.study.study}' has no arm {panel}/{arm}")
    return Side(stored, panel, arm)
