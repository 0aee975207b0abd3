"""The figure kind ``curves``: a distance over epochs, one axes a panel, one colour a budget (Figs 2, 3)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports import captions
from reports.arrivals import arrivals_words
from reports.drawing import Drawing, Subject, compose
from reports.frames import Reading, points
from reports.page import Page
from reports.panels import Look, add_panels, legend_handles, look_of
from reports.words import metric_words, missing_arms, missing_words
from studies.figure import Curves

CSV_COLUMNS = [
    "panel", "arm", "control", "seed", "stage", "epoch", "stage_epoch", "step", "metric", "nfe", "value",
    "evaluation", "trajectory", "protocol",
]  # fmt: skip


def draw_curves(subject: Subject, figure: Curves) -> Drawing:
    """Draw a study's curves from its evaluations.

    Raises: NothingToReport where none of it is measured yet; ReportError.
    """
    study = subject.study
    reading, rows, look = looked(subject, figure)
    drawn = look.drawn

    def body(page: Page) -> None:
        add_panels(page, look)
        page.legend(legend_handles(look), figure.colour_label)

    heading = captions.heading(study, [reading], subject.version, subject.variant)
    caption = captions.caption(
        study, [reading], subject.run, [*_how_to_read(rows, look), captions.floor_words(reading)]
    )
    drawing = compose(study, heading, body, caption, missing_words(rows))
    return Drawing(drawing, drawn[CSV_COLUMNS].reset_index(drop=True), missing_arms(rows))


def looked(subject: Subject, figure: Curves) -> tuple[Reading, pd.DataFrame, Look]:
    """The reading shown, its points, and what the axes show of them. Raises: NothingToReport, ReportError."""
    reading, rows = subject.read(figure, points)
    if rows["value"].isna().all():
        raise subject.nothing_of([reading])
    return reading, rows, look_of(subject.study, figure, rows, metric_words(reading), reading.floor)


def _how_to_read(rows: pd.DataFrame, look: Look) -> Iterator[str]:
    if rows["seed"].nunique() > 1:
        seeds = captions.seeds_words(rows, ["panel", "arm", "stage", "epoch"], "point")
        yield (
            f"Strong lines: mean, {seeds}; thin lines: single seeds; bands: pointwise Student-t 95 % interval of the "
            "mean. Bands show each arm's spread over seeds; claims are tested on differences paired by seed."
        )
    else:
        yield "One seed: no interval can be given."
    if rows["stage"].nunique() > 1:
        yield f"Solid: {look.figure.stage}, from the end of the stage before; dashed: earlier stages."
    if found := look.arrivals:
        yield arrivals_words(look.reference_label, list(found.values()))
    if look.log:
        yield "Lower row: the ends of the curves on a linear scale."
    yield captions.controls_words(look.study, set(rows["arm"][rows["control"].astype(bool)]))
