"""A study's table from the store to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.claims import claimed_pairs, judge
from reports.errors import NothingToReport
from reports.latex import latex
from reports.orders import compare, rankings
from reports.othermethods import other_methods
from reports.paper import paper_values
from reports.published import published
from reports.stored import load
from reports.tablefill import fill
from reports.tableformats import markdown
from reports.tablerecords import order_records, origin, ranking_records, seed_records, value_records
from reports.tablewords import Document, document
from reports.text import implied_words

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from results.layout import Home
    from results.queries import RunRecord


@dataclass(frozen=True)
class TableReport:
    """Files written, what is missing (one phrase a panel and reason), the run, which was chosen, the table in words and
    as records for programs."""

    files: list[Path]
    missing: list[str]
    run: RunRecord
    chosen: str
    document: Document
    records: dict[str, list[dict[str, Any]]]


def build_table(
    engine: Engine,
    home: Home,
    *,
    study: str,
    scale: str | None = None,
    variant: str | None = None,
    out: Path,
    asked: str | None = None,
) -> TableReport:
    """Fill a study's table from what is stored, and write it below ``out``: ``<stem>_table`` as Markdown, LaTeX and
    CSV (one line a cell), and ``<stem>_orders.csv`` where rows have a reference to be compared with.

    Raises: NothingToReport where there is no run or no cell is measured; ReportError.
    """
    stored = load(engine, home, study=study, scale=scale, variant=variant, asked=asked)
    table = fill(stored.study, stored.frame, stored.protocols, paper_values(stored.study))
    if not table.measured:
        raise NothingToReport(
            f"run {stored.run.run} of '{study}' at scale '{stored.run.scale}' has no measured point of its table yet: "
            f"continue it with `{stored.command}`"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    claims = tuple(claim for claim in stored.study.claims if claim.test != "own" or claim.implies)
    claiming = stored.study.model_copy(update={"claims": claims})
    verdicts = judge(claiming, stored.frame, stored.protocols, run=stored.run, variant=variant, time=now)
    orders, ranked = compare(table, claimed_pairs(claiming, verdicts)), rankings(table)
    stem = "_".join(filter(None, (stored.study.study, stored.run.scale, variant)))
    said = document(table, orders, ranked, stored.run, variant)
    implied = tuple(implied_words(verdict) for verdict in verdicts if verdict.implies)
    told = replace(said, others=other_methods(stored.study), orders_file=f"{stem}_orders.csv", implied=implied)
    common = origin(table, stored.run, variant)
    texts = {
        f"{stem}_table.md": markdown(told),
        f"{stem}_table.tex": latex(told),
        f"{stem}_table.csv": _csv(value_records(table), common),
    }
    if orders:
        texts[f"{stem}_orders.csv"] = _csv(order_records(orders), common)
    with published(out, stem) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="")
    records = {"cells": seed_records(table), "orders": order_records(orders), "rankings": ranking_records(ranked)}
    files = [out / name for name in texts]
    return TableReport(files, table.missing, stored.run, stored.chosen, told, records)


def _csv(records: Sequence[dict[str, Any]], common: dict[str, Any]) -> str:
    """One line a record, with what they have in common at the end."""
    return pd.DataFrame([{**record, **common} for record in records]).to_csv(index=False, lineterminator="\n")
