"""The figure kind ``bars``: groups along x, in each a bar for every value coloured by (Figs 4, 5)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports import captions
from reports.bardata import bars_of, needed_points, readings_of
from reports.barpanels import BarLook, add_bars, bar_handles, bar_look
from reports.drawing import Drawing, Subject, compose
from reports.page import Page
from reports.versions import Shown
from reports.words import common_words, missing_arms, missing_words
from studies.figure import Bars


def draw_bars(subject: Subject, figure: Bars) -> Drawing:
    """Draw a study's bars from its evaluations.

    Raises: NothingToReport where none of it is measured yet; ReportError.
    """
    study = subject.study
    show, rows, look = looked(subject, figure)

    def body(page: Page) -> None:
        add_bars(page, look)
        page.legend(bar_handles(look), figure.colour_label)

    floor = captions.floor_words(show[0].reading) if len(show) == 1 else ""
    heading = captions.heading(study, readings_of(show), subject.version, subject.variant)
    caption = captions.caption(study, readings_of(show), subject.run, [*_how_to_read(rows, look), floor])
    drawing = compose(study, heading, body, caption, missing_words(rows))
    return Drawing(drawing, look.dots, missing_arms(rows))


def looked(subject: Subject, figure: Bars) -> tuple[list[Shown], pd.DataFrame, BarLook]:
    """What is shown, its points, and what the axes show of them. Raises: NothingToReport, ReportError."""
    study = subject.study
    panels = subject.shown(figure)
    show, rows = panels[0][1], needed_points(figure, panels)
    dots = bars_of(figure, rows)
    if dots.empty:
        raise subject.nothing_of(readings_of(show))
    declared = figure.value_label if subject.version.kind == "declared" else None
    floor = show[0].reading.floor if len(show) == 1 else None
    return show, rows, bar_look(study, figure, dots, declared or common_words(readings_of(show)), floor)


def _how_to_read(rows: pd.DataFrame, look: BarLook) -> Iterator[str]:
    """Bars, dots and lines, in the order in which they strike the eye."""
    figure, dots = look.figure, look.dots
    what = "last value" if figure.summary == "end" else "mean of the points"
    if rows["seed"].nunique() > 1:
        bars = dots[dots["role"] == "bar"]
        seeds = captions.seeds_words(_with_gaps(rows, bars), ["panel", "x", "colour"], "bar")
        yield (
            f"Bars: mean, {seeds}, of the {what} in the arm's last stage; dots: single seeds; whiskers: Student-t 95 % "
            "interval of the mean, which shows each arm's spread over seeds; claims are tested on differences paired "
            "by seed."
        )
    else:
        yield f"Bars: the {what} in the arm's last stage. One seed: no interval can be given."
    roles = set(dots["role"])
    if "reference" in roles:
        yield f"Green line: the arm {figure.reference}" + (" and its interval." if dots["seed"].nunique() > 1 else ".")
    if "ceiling" in roles:
        yield "Short dark lines: the ceiling, what the metric could reach at most with the noise of its estimate."
    if look.log:
        yield "The axis is logarithmic, so the lengths of bars mean nothing; their ends do."
    yield captions.controls_words(look.study, set(dots["arm"][dots["role"] == "control"]))


def _with_gaps(rows: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
    """The bars' dots and, without a value, the seeds that a bar lacks."""
    seeds = pd.DataFrame({"seed": sorted(rows["seed"].unique()), "_": 0})
    places = bars[["panel", "x", "colour"]].drop_duplicates().assign(_=0)
    return places.merge(seeds, on="_").merge(bars, on=["panel", "x", "colour", "seed"], how="left")
