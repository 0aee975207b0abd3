"""What the paper has beside a study's arms."""

from __future__ import annotations

from collections.abc import Mapping

from reports.statistics import relative
from studies.claim import Claim
from studies.paper_values import PaperTable, load_paper_tables, paper_speedups
from studies.schema import ResolvedStudy
from studies.table import Column

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


def rank_groups(study: ResolvedStudy) -> dict[str, str]:
    """The group of rows among which the paper marks each arm; empty where it ranks by panel."""
    table = paper_table(study)
    if table is None or table.ranked_by == "panel":
        return {}
    return {row.arm: row.group for row in table.rows if row.arm and row.group}


def paper_column(study: ResolvedStudy, column: str | None) -> tuple[str, dict[str, float]]:
    """(``Table 4: FID (1-NFE)``, values by arm) of one column of the paper's table that the study makes; nothing where
    it makes none, or no column is asked for."""
    table = paper_table(study)
    if table is None or column is None:
        return "", {}
    return f"Table {table.table}: {table.columns.get(column, table.metric)}", table.by_arm(column)


def paper_facts(study: ResolvedStudy, name: str) -> dict[str, str | int | float | None]:
    """What the paper's table says of its arms under a name (``about``), by arm."""
    table = paper_table(study)
    return {row.arm: row.about[name] for row in table.rows if row.arm and name in row.about} if table else {}


def speedups_in(study: ResolvedStudy, panel: str) -> dict[str, float]:
    """The paper's speed-ups of the arms of a panel; none where they are not the paper's."""
    found = paper_speedups(study.study) if study.paper_values else {}
    return {arm: value for (at, arm), value in found.items() if at == panel}


def primary_columns(study: ResolvedStudy) -> list[Column]:
    """The columns of a study's table that show its primary metric at the end."""
    columns = study.table.columns if study.table else ()
    return [c for c in columns if c.metric in (None, study.primary) and c.percent == 100]


def paper_effect(paper: PaperValues, arms: tuple[str, str], column: Column) -> float | None:
    """The paper's difference of two arms, in % of the second; None where it is not known."""
    a, b = (paper.get((arm, column.id)) for arm in arms)
    return relative(a, b)


def claimed_effect(study: ResolvedStudy, claim: Claim, paper: PaperValues) -> float | None:
    """The effect that the paper's own numbers give a claim about two arms: their difference at the end in % of the
    second or, for a speed-up, its factor. None where the paper has no such numbers."""
    if claim.arms is None:
        return None
    if claim.test == "speedup":
        return speedups_in(study, claim.panel).get(claim.arms[0])
    place = (claim.metric or study.primary, claim.nfe, claim.solver)
    shown = [c for c in primary_columns(study) if (study.primary, c.nfe, c.solver) == place]
    (_, a), (_, b) = map(claim.place, claim.arms)
    return paper_effect(paper, (a, b), shown[0]) if shown and claim.summary == "end" else None
