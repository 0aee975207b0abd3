"""A study's figure, whatever its kind."""

from __future__ import annotations

from reports.bars import draw_bars
from reports.curves import draw_curves
from reports.drawing import Drawing, Subject
from reports.errors import ReportError
from reports.frames import readings
from reports.imagegrid import draw_images
from reports.versions import has_truth
from studies.figure import Bars, Images


def draw(subject: Subject) -> Drawing:
    """Draw one version of a study's figure.

    Raises: NothingToReport where none of it is measured yet; ReportError.
    """
    figure = subject.study.figure
    if figure is None:
        raise ReportError(f"study '{subject.study.study}' declares no figure")
    if isinstance(figure, Images):
        return draw_images(subject, figure)
    return draw_bars(subject, figure) if isinstance(figure, Bars) else draw_curves(subject, figure)


def truth_measured(subject: Subject) -> bool:
    """Whether the figure has a truth version at this scale."""
    figure = subject.study.figure
    if figure is None or isinstance(figure, Images):
        return False
    return has_truth(subject.study, figure, readings(subject.study, subject.frame, subject.protocols))
