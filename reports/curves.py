"""The figure kind ``curves``: a distance over epochs, one axes a panel, one colour a budget (Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from reports import words
from reports.errors import NothingToReport, ReportError
from reports.frames import Protocols, Run, find, points, readings
from reports.page import MARGIN, Page, style
from reports.panels import ALARM, GAP, add_panels, legend_handles, look_of
from studies.schema import ResolvedStudy

WIDTH = 10.0  # inches
CSV_COLUMNS = [
    "panel", "arm", "control", "seed", "stage", "epoch", "stage_epoch", "step", "metric", "nfe", "value",
    "evaluation", "trajectory", "protocol",
]  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """A figure, exactly the points drawn in it, and what is missing (one phrase an arm)."""

    figure: Figure
    points: pd.DataFrame
    missing: list[str]


def draw_curves(
    study: ResolvedStudy, frame: pd.DataFrame, protocols: Protocols, run: Run, variant: str | None = None
) -> Drawing:
    """Draw the study's figure from its evaluations.

    Raises: ReportError where the study declares no figure; NothingToReport where none of it is measured yet.
    """
    figure = study.figure
    if figure is None:
        raise ReportError(f"study '{study.study}' declares no figure")
    reading = find(readings(study, frame, protocols), figure.metric or study.primary, figure.nfe)
    rows = points(frame, reading)
    drawn = rows[rows["value"].notna()]
    if drawn.empty:
        raise NothingToReport(
            f"run {run.run} of '{study.study}' at scale '{study.scale}' has no measured point of "
            f"{reading.metric} at {reading.nfe} NFE yet: "
            f"continue it with `study run {study.study} --scale {study.scale}`"
        )
    look = look_of(study, figure, drawn, words.metric_words(reading))
    with style():
        page = Page(WIDTH)
        _head(page, study, variant)
        add_panels(page, look)
        page.legend(legend_handles(look), figure.colour_label)
        said = words.caption(study, rows, reading, run, figure.stage, log=look.log)
        _foot(page, said, words.missing_words(rows), study)
        finished = page.finish()
    return Drawing(finished, drawn[CSV_COLUMNS].reset_index(drop=True), words.missing_arms(rows))


def _head(page: Page, study: ResolvedStudy, variant: str | None) -> None:
    page.y = page.text(words.title(study, variant), size=11, weight="bold") + 0.08
    if study.meaningless:
        said = "THESE NUMBERS ARE MEANINGLESS: this scale only checks that everything runs."
        page.y = page.text(said, size=10, weight="bold", colour=ALARM) + 0.08


def _foot(page: Page, caption: str, missing: str, study: ResolvedStudy) -> None:
    """Caption, what is missing, and the assumptions in two columns."""
    page.y += 0.12
    page.y = page.text(caption) + 0.08
    if missing:
        page.y = page.text(missing, colour=ALARM) + 0.08
    columns = [("Assumptions", study.assumptions, 1)]
    columns.append(("Assumptions at this scale", study.scale_assumptions, len(study.assumptions) + 1))
    columns = [column for column in columns if column[1]]
    top, bottom = page.y, page.y
    width = (WIDTH - 2 * MARGIN - GAP * (len(columns) - 1)) / max(len(columns), 1)
    for i, (heading, texts, first) in enumerate(columns):
        page.y, x = top, MARGIN + i * (width + GAP)
        page.y = page.text(heading, x=x, width=width, size=8, weight="bold") + 0.04
        for number, text in enumerate(texts, first):
            page.y = page.text(text, x=x, width=width, size=8, hang=f"{number}.") + 0.04
        bottom = max(bottom, page.y)
    page.y = bottom
