"""The rows of the paper's table that are other methods: the paper's values, nothing of ours."""

from __future__ import annotations

from reports.paper import paper_table
from reports.tablewords import Block, Words
from studies.paper_values import PaperRow
from studies.schema import ResolvedStudy

FACTS = {"parameters": "Parameters", "epochs": "Epochs", "nfe": "NFE"}


def other_methods(study: ResolvedStudy) -> Block | None:
    """A block of the rows without an arm, in the paper's groups and order; None where the paper has none."""
    table = paper_table(study)
    rows = [row for row in table.rows if row.arm is None] if table else []
    if table is None or not rows:
        return None
    facts = [name for name in FACTS if any(name in row.about for row in rows)]
    columns = [name for name in table.columns if any(row.values.get(name) is not None for row in rows)]

    def words(row: PaperRow) -> tuple[Words, ...]:
        about = (_said(row.about.get(name)) for name in facts)
        values = (row.values.get(name) for name in columns)
        said = [row.group or "", row.row, *about, *(_said(value and f"{value:.2f}") for value in values)]
        return tuple(map(Words, said))

    head = ("Kind", "Method", *(FACTS[name] for name in facts), *(table.columns[name] for name in columns))
    title = f"Other methods, as the paper's Table {table.table} prints them"
    return Block(title, head, tuple(map(words, rows)), len(rows))


def _said(value: str | float | None) -> str:
    return "–" if value is None else str(value)
