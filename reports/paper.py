"""What the paper has beside a study's arms."""

from __future__ import annotations

from collections.abc import Mapping

from studies.paper_values import PaperTable, load_paper_tables, paper_speedups
from studies.schema import ResolvedStudy

PaperValues = Mapping[tuple[str, str], float]  # by (arm, column)


def paper_table(study: ResolvedStudy) -> PaperTable | None:
    """The paper's table that the study makes; None where its arms are not the paper's."""
    if not study.paper_values:
        return None
    number = (study.table.paper if study.table else None) or next(iter(study.paper.tables), None)
    return load_paper_tables().get(number) if number else None


def paper_values(study: ResolvedStudy) -> PaperValues:
    """The values of the paper's table that the study makes, by arm and column; empty where it makes none."""
    table = paper_table(study)
    if table is None:
        return {}
    return {(arm, column): value for column in table.columns for arm, value in table.by_arm(column).items()}


def paper_column(study: ResolvedStudy, column: str | None) -> tuple[str, dict[str, float]]:
    """(``Table 4: FID (1-NFE)``, values by arm) of one column of the paper's table that the study makes; nothing where
    it makes none, or no column is asked for."""
    table = paper_table(study)
    if table is None or column is None:
        return "", {}
    return f"Table {table.table}: {table.columns.get(column, table.metric)}", table.by_arm(column)


def speedups_in(study: ResolvedStudy, panel: str) -> dict[str, float]:
    """The paper's speed-ups of the arms of a panel; none where they are not the paper's."""
    found = paper_speedups(study.study) if study.paper_values else {}
    return {arm: value for (at, arm), value in found.items() if at == panel}
