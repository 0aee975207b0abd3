"""One panel of a study's figure on axes of the caller's: for notebooks, and for figures of one's own."""

from __future__ import annotations

from matplotlib.axes import Axes

from meanflow_core.words import there_is
from reports import barpanels, bars, curves, levelpanels, levels, panels
from reports.axes import watermark
from reports.drawing import Subject
from reports.errors import ReportError
from reports.ownfigure import draw_rows, measured
from studies.figure import Bars, Curves, Levels, Own

LEGEND = {"frameon": False, "fontsize": 8}


def draw_on(ax: Axes, subject: Subject, panel: str | None = None) -> None:
    """Draw a panel (by default the first) with its labels and legend. Caption and assumptions are the page's alone.

    Raises: ReportError where there is no such panel, or the figure is made of pictures; NothingToReport.
    """
    study, figure = subject.study, subject.study.figure
    name = panel or next(iter(study.panels))
    if name not in study.panels:
        raise ReportError(f"'{study.study}' has no panel '{name}'{there_is(name, study.panels)}")
    match figure:
        case Curves():
            _, _, look = curves.looked(subject, figure)
            panels.draw_panel(ax, look, name)
            panels.scale(ax, look)
            ax.set_xlabel("epochs from the root", fontsize=9)
            ax.legend(handles=panels.legend_handles(look), title=figure.colour_label, **LEGEND)
            label = look.label
        case Bars():
            _, _, bar_look = bars.looked(subject, figure)
            barpanels.draw_panel(ax, bar_look, name)
            ax.legend(handles=barpanels.bar_handles(bar_look), title=figure.colour_label, **LEGEND)
            label = bar_look.label
        case Levels():
            _, _, level_look = levels.looked(subject, figure)
            levelpanels.draw_panel(ax, level_look, name)
            levelpanels.places(ax, level_look)
            ax.legend(handles=levelpanels.level_handles(level_look), **LEGEND)
            label = level_look.label
        case Own():
            rows = measured(subject)[1]
            draw_rows(ax, figure, rows[rows["panel"] == name], study)
            return
        case _:
            raise ReportError(f"the figure of '{study.study}' cannot stand on axes of yours: leave out ax")
    ax.set_ylabel(label, fontsize=9)
    ax.set_title(study.panels[name].title, fontsize=9)
    if study.meaningless:
        watermark(ax)
