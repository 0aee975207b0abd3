"""What every figure has in common: heading, caption, what is missing and assumptions around its axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from reports.errors import NothingToReport
from reports.frames import Protocols, Reading, Run
from reports.page import MARGIN, Page, style
from reports.versions import DECLARED, Shown, Version, shown_by_panel
from studies.dynamics import assumed
from studies.figure import Bars, Curves, Levels
from studies.schema import ResolvedStudy

WIDTH = 10.0  # inches
COLUMN_GAP = 0.3  # inches
ALARM = "#b30000"


@dataclass(frozen=True)
class Drawing:
    """A figure, exactly the points drawn in it, and what is missing (one phrase an arm)."""

    figure: Figure
    points: pd.DataFrame
    missing: list[str] = field(default_factory=list)

    @property
    def caption(self) -> str:
        """The heading and the caption that stand in the figure."""
        return str(self.figure.get_label())


@dataclass(frozen=True)
class Subject:
    """A study at one scale with what is stored of it. ``command`` is what continues it, and ``artefacts`` are the files
    that evaluations have kept, by key."""

    study: ResolvedStudy
    frame: pd.DataFrame
    protocols: Protocols
    run: Run
    variant: str | None = None
    version: Version = DECLARED
    command: str = ""
    artefacts: Mapping[str, Path] = field(default_factory=dict)

    def shown(self, figure: Curves | Bars | Levels) -> list[tuple[pd.DataFrame, list[Shown]]]:
        """Each panel's evaluations, and what of them is shown. Raises: ReportError."""
        return shown_by_panel(self.study, figure, self.frame, self.protocols, self.version)

    def read(
        self, figure: Curves | Levels, points: Callable[[pd.DataFrame, Reading], pd.DataFrame]
    ) -> tuple[Reading, pd.DataFrame]:
        """The one metric shown, as the first panel measures it, and the ``points`` of each panel under its own reading.
        Raises: ReportError."""
        parts = [(own, show[0].reading) for own, show in self.shown(figure)]
        return parts[0][1], pd.concat([points(*part) for part in parts], ignore_index=True)

    def nothing_of(self, readings: Sequence[Reading]) -> NothingToReport:
        """The error that none of these is measured yet."""
        study = self.study
        metrics = ", ".join(f"{r.metric} at {r.nfe} NFE" for r in readings)
        command = self.command or f"study run {study.study} --scale {study.scale}"
        return NothingToReport(
            f"run {self.run.run} of '{study.study}' at scale '{study.scale}' has no measured point of {metrics} yet: "
            f"continue it with `{command}`"
        )


def compose(study: ResolvedStudy, heading: str, body: Callable[[Page], None], caption: str, missing: str) -> Figure:
    """A page with a figure's axes, drawn by ``body``, between its heading and its caption, which are its label too."""
    with style():
        page = Page(WIDTH)
        page.y = page.text(heading, size=11, weight="bold") + 0.08
        if study.meaningless:
            said = "THESE NUMBERS ARE MEANINGLESS: this scale only checks that everything runs."
            page.y = page.text(said, size=10, weight="bold", colour=ALARM) + 0.08
        body(page)
        page.y += 0.12
        page.y = page.text(caption) + 0.08
        if missing:
            page.y = page.text(missing, colour=ALARM) + 0.08
        _assumptions(page, study)
        page.figure.set_label(f"{heading} {caption}")
        return page.finish()


def _assumptions(page: Page, study: ResolvedStudy) -> None:
    """The study's assumptions and those of its scale, in two columns."""
    columns = [("Assumptions", assumed(study), 1)]
    columns.append(("Assumptions at this scale", study.scale_assumptions, len(assumed(study)) + 1))
    columns = [column for column in columns if column[1]]
    top, bottom = page.y, page.y
    width = (WIDTH - 2 * MARGIN - COLUMN_GAP * (len(columns) - 1)) / max(len(columns), 1)
    for i, (heading, texts, first) in enumerate(columns):
        page.y, x = top, MARGIN + i * (width + COLUMN_GAP)
        page.y = page.text(heading, x=x, width=width, size=8, weight="bold") + 0.04
        for number, text in enumerate(texts, first):
            page.y = page.text(text, x=x, width=width, size=8, hang=f"{number}.") + 0.04
        bottom = max(bottom, page.y)
    page.y = bottom
