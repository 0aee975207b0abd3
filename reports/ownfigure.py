"""The figure kind ``own``: axes that a component of the user's own draws on, on a page like every other figure's."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes

from reports import captions
from reports.drawing import WIDTH, Drawing, Subject, compose
from reports.errors import ReportError
from reports.frames import Reading, find, points, readings
from reports.page import Page
from reports.words import missing_arms, missing_words
from studies.figure import Own
from studies.schema import ResolvedStudy

SIDE, BELOW = 0.7, 0.6  # inches, for labels

Draw = Callable[[Axes, pd.DataFrame, ResolvedStudy], None]
"""Called with empty axes, the measured points (a row each: panel, arm, attributes, control, seed, stage, epoch, metric,
nfe, value, ...) and the study."""


def draw_own(subject: Subject, figure: Own) -> Drawing:
    """Draw a study's figure by the component that it names, whose docstring says how to read it; of all that is
    measured, unless one metric is asked for.

    Raises: NothingToReport where nothing is measured yet; ReportError where the component fails.
    """
    study = subject.study
    found, rows = measured(subject)
    drawn = rows[rows["value"].notna()].reset_index(drop=True)

    def body(page: Page) -> None:
        draw_rows(page.axes(SIDE, WIDTH - 2 * SIDE, figure.height), figure, rows, study)
        page.y += figure.height + BELOW

    heading = captions.heading(study, found, subject.version, subject.variant)
    how = " ".join((inspect.getdoc(type(figure.draw.params)) or "").split())
    drawing = compose(study, heading, body, captions.caption(study, found, subject.run, [how]), missing_words(rows))
    return Drawing(drawing, drawn.drop(columns="attributes"), missing_arms(rows))


def measured(subject: Subject) -> tuple[list[Reading], pd.DataFrame]:
    """All that is measured, or one metric where one is asked for: the readings, and their points.

    Raises: NothingToReport, ReportError.
    """
    study, version = subject.study, subject.version
    found = readings(study, subject.frame, subject.protocols)
    if version.metric or version.nfe:
        found = [find(found, version.metric or study.primary, version.nfe)]
    rows = pd.concat([points(subject.frame, reading) for reading in found], ignore_index=True)
    if rows["value"].isna().all():
        raise subject.nothing_of(found)
    return found, rows


def draw_rows(ax: Axes, figure: Own, rows: pd.DataFrame, study: ResolvedStudy) -> None:
    """Let the component draw the points that are measured. Raises: ReportError where it fails."""
    try:
        draw: Draw = figure.draw.build()
        draw(ax, rows[rows["value"].notna()].reset_index(drop=True), study)
    except Exception as error:  # whatever somebody's code may raise
        raise ReportError(f"the figure '{figure.draw.short}' fails: {type(error).__name__}: {error}") from error
