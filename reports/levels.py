"""The figure kind ``levels``: the final value against an attribute of the arms, beside the paper's (Table 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from reports import captions
from reports.drawing import Drawing, Subject, compose
from reports.errors import ReportError
from reports.frames import Reading, ends
from reports.levelpanels import PAPER, LevelLook, add_levels, level_handles
from reports.page import Page
from reports.paper import paper_column, paper_facts
from reports.words import metric_words, missing_arms, missing_words
from studies.figure import Levels
from studies.schema import ResolvedStudy
from studies.strict import Attribute

COLUMNS = [
    "panel", "arm", "role", "x", "seed", "stage", "metric", "nfe", "value", "evaluation", "trajectory", "protocol",
]  # fmt: skip


def draw_levels(subject: Subject, figure: Levels) -> Drawing:
    """Draw a study's levels from its evaluations.

    Raises: NothingToReport where none of it is measured yet; ReportError.
    """
    study, version = subject.study, subject.version
    reading, rows, look = looked(subject, figure)
    drawn, paper = look.drawn, look.paper

    def body(page: Page) -> None:
        add_levels(page, look)
        page.legend(level_handles(look), "")

    heading = captions.heading(study, [reading], version, subject.variant)
    caption = captions.caption(
        study, [reading], subject.run, [*_how_to_read(rows, look), captions.floor_words(reading)]
    )
    drawing = compose(study, heading, body, caption, missing_words(rows))
    dots = pd.concat([drawn[COLUMNS], paper[COLUMNS]], ignore_index=True) if len(paper) else drawn[COLUMNS]
    return Drawing(drawing, dots.reset_index(drop=True), missing_arms(rows))


def looked(subject: Subject, figure: Levels) -> tuple[Reading, pd.DataFrame, LevelLook]:
    """The reading shown, its ends, and what the axes show of them. Raises: NothingToReport, ReportError."""
    study, version = subject.study, subject.version
    reading, rows = subject.read(figure, ends)
    rows = with_roles(figure, rows)
    drawn = rows[rows["value"].notna()]
    if drawn.empty:
        raise subject.nothing_of([reading])
    paper, title = of_paper(study, figure, rows) if version.kind == "declared" else (drawn[:0], "")
    return reading, rows, LevelLook(study, figure, drawn, paper, title, metric_words(reading), reading.floor)


def with_roles(figure: Levels, rows: pd.DataFrame) -> pd.DataFrame:
    """The ends of arms with the ``role`` of each (level, reference, control) and its place ``x``, without the arms
    that have none.

    Raises: ReportError for an ``x`` that is no number, or not positive where its axis is logarithmic.
    """
    arms = zip(rows["arm"], rows["control"], rows["attributes"], strict=True)
    rows = rows.assign(role=np.array([_role(figure, *arm) for arm in arms], dtype=object))
    rows = rows[rows["role"].notna()]
    x = [a.get(figure.x) if role == "level" else None for a, role in zip(rows["attributes"], rows["role"], strict=True)]
    for arm, value in zip(rows["arm"], x, strict=True):
        if value is not None and (not isinstance(value, int | float) or (figure.log_x and value <= 0)):
            kind = "positive number" if figure.log_x else "number"
            raise ReportError(f"figure.x: '{figure.x}' of arm '{arm}' is no {kind} but {value!r}, so it has no place")
    return rows.assign(x=pd.array(x, dtype="Float64"))


def _role(figure: Levels, arm: str, control: bool, attributes: Mapping[str, Attribute]) -> str | None:
    if control:
        return "control"
    return "reference" if arm == figure.reference else "level" if figure.x in attributes else None


def of_paper(study: ResolvedStudy, figure: Levels, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The paper's value of the reference and of all its levels, whether they are drawn beside or not, in `COLUMNS` with
    the panel `PAPER`, and the title of their axes; no rows where the figure names no column of the paper."""
    title, values = paper_column(study, figure.paper_column)
    ours = rows[rows["role"] == "level"].drop_duplicates("arm")
    x = {**paper_facts(study, figure.x), **dict(zip(ours["arm"], ours["x"], strict=True))}
    roles = dict.fromkeys(x, "level") | {figure.reference: "reference"}
    found = [(PAPER, arm, role, x.get(arm), values[arm]) for arm, role in roles.items() if arm in values]
    own = pd.DataFrame(found, columns=["panel", "arm", "role", "x", "value"]).astype({"x": "Float64"})
    return own.assign(metric=figure.paper_column).reindex(columns=COLUMNS), f"The paper, {title}"


def _how_to_read(rows: pd.DataFrame, look: LevelLook) -> Iterator[str]:
    several = rows["seed"].nunique() > 1
    if several:
        seeds = captions.seeds_words(rows, ["panel", "arm"], "dot and line")
        yield (
            f"Large dots: mean, {seeds}, of the value at an arm's end; small dots: single seeds; whiskers and bands: "
            "Student-t 95 % interval of the mean, which shows each arm's spread over seeds; claims are tested on "
            "differences paired by seed."
        )
    else:
        yield "Dots: the value at an arm's end. One seed: no interval can be given."
    if len(look.of("reference")):
        yield f"Green line: the arm {look.figure.reference}."
    if len(look.paper) and not look.study.as_in_paper:
        yield "The paper's distances are on another scale; only the course can be compared."
    yield captions.controls_words(look.study, set(look.of("control")["arm"]))
