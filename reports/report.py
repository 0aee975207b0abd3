"""All that a study's run declares to report: its figure, its table, the ranking of its sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reports.build import FigureReport, build_figure
from reports.errors import ReportError
from reports.rankbuild import RankingReport, build_ranking
from reports.stored import declared, notes_on
from reports.tablebuild import TableReport, build_table
from studies.schema import ResolvedStudy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from results.layout import Home
    from results.queries import RunRecord

Kind = Literal["figure", "table", "sweep"]
Made = FigureReport | TableReport | RankingReport


@dataclass(frozen=True)
class Report:
    """What was made of a study, what is missing of it, and what has to be known to read it (one phrase each)."""

    made: tuple[Made, ...]
    missing: list[str]
    notes: list[str]

    @property
    def files(self) -> list[Path]:
        return [path for one in self.made for path in one.files]

    @property
    def run(self) -> RunRecord:
        return self.made[0].run

    @property
    def chosen(self) -> str:
        return self.made[0].chosen

    @property
    def table(self) -> TableReport | None:
        return next((one for one in self.made if isinstance(one, TableReport)), None)

    @property
    def ranking(self) -> RankingReport | None:
        return next((one for one in self.made if isinstance(one, RankingReport)), None)


def build_report(
    engine: Engine,
    home: Home,
    *,
    study: str,
    scale: str | None = None,
    variant: str | None = None,
    metric: str | None = None,
    nfe: int | None = None,
    figure: int | None = None,
    only: Kind | None = None,
    out: Path,
    asked: str | None = None,
) -> Report:
    """Make a study's figure, its table and the ranking of its sweep, as far as its run declares them, or ``only`` one
    of them. With a ``metric`` or ``nfe`` the figure is drawn by it, and nothing else is made.

    Raises: ReportError, NothingToReport among them, where none can be made.
    """
    where: dict[str, Any] = {"study": study, "scale": scale, "variant": variant, "out": out, "asked": asked}
    builders: dict[Kind, Callable[[], Made]] = {
        "figure": lambda: build_figure(engine, home, **where, metric=metric, nfe=nfe, figure=figure),
        "table": lambda: build_table(engine, home, **where),
        "sweep": lambda: build_ranking(engine, home, **where),
    }
    wanted: list[Kind] = ["figure"] if metric or nfe else [only] if only else []
    wanted = wanted or [kind for kind in builders if kind in declared(engine, study, scale, variant)] or ["figure"]
    made: list[Made] = []
    nothing: dict[Kind, ReportError] = {}
    for kind in wanted:
        try:
            made.append(builders[kind]())
        except ReportError as error:  # one part that cannot be made does not take the others along
            nothing[kind] = error
    if not made:
        raise next(iter(nothing.values()))
    missing = [phrase for one in made for phrase in one.missing]
    missing = [*dict.fromkeys(missing), *(f"the {kind}: {error}" for kind, error in nothing.items())]
    return Report(tuple(made), missing, notes_on(ResolvedStudy.model_validate(made[0].run.config)))
