"""A study's figure, whatever its kind."""

from __future__ import annotations

from dataclasses import replace

from reports.bars import draw_bars
from reports.curves import draw_curves
from reports.drawing import Drawing, Subject
from reports.errors import ReportError
from reports.frames import readings
from reports.imagegrid import draw_images
from reports.levels import draw_levels
from reports.ownfigure import draw_own
from reports.versions import has_truth
from studies.figure import Bars, Curves, Images, Levels, Own


def draw(subject: Subject) -> Drawing:
    """Draw one version of a study's figure.

    Raises: NothingToReport where none of it is measured yet; ReportError.
    """
    match subject.study.figure:
        case Curves() as figure:
            return draw_curves(subject, figure)
        case Bars() as figure:
            return draw_bars(subject, figure)
        case Levels() as figure:
            return draw_levels(subject, figure)
        case Images() as figure:
            return draw_images(subject, figure)
        case Own() as figure:
            return draw_own(subject, figure)
        case None:
            raise ReportError(f"study '{subject.study.study}' declares no figure")


def of_number(subject: Subject, number: int | None) -> tuple[Subject, str]:
    """The panels of a study that make one figure of the paper, and what the names of its files end in; all panels, and
    no ending, unless the study's figure says which make it.

    Raises: ReportError for a panel that the study lacks at this scale.
    """
    study = subject.study
    named = study.figure.panels_of.get(number or 0) if isinstance(study.figure, Curves) else None
    if named is None:
        return subject, ""
    absent = [name for name in named if name not in study.panels]
    if absent:
        there = f"scale '{study.scale}' has: {', '.join(study.panels)}"
        raise ReportError(f"figure {number} needs the panel '{absent[0]}', which is not there ({there})")
    panels = {name: panel for name, panel in study.panels.items() if name in named}
    frame = subject.frame[subject.frame["panel"].isin(named)]
    paper = study.paper.model_copy(update={"figures": (number,)})
    part = study.model_copy(update={"panels": panels, "paper": paper})
    return replace(subject, study=part, frame=frame), f"figure{number}"


def truth_measured(subject: Subject) -> bool:
    """Whether the figure has a truth version at this scale."""
    figure = subject.study.figure
    if figure is None or isinstance(figure, Images | Own):
        return False
    return has_truth(subject.study, figure, readings(subject.study, subject.frame, subject.protocols))
