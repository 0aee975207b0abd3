"""A filled table and its orders as tidy records, for CSV and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.frames import Run
from reports.orders import Order, Ranking, value_verdict
from reports.tables import FilledTable

Record = dict[str, Any]


def origin(table: FilledTable, run: Run, variant: str | None) -> Record:
    """What all records of a table have in common."""
    study = table.study
    return {"study": study.study, "scale": study.scale, "variant": variant, "run": run.run,
            "config_hash": run.config_hash, "meaningless": study.meaningless}  # fmt: skip


def value_records(table: FilledTable) -> list[Record]:
    """One record a cell, without the values of single seeds."""
    records = []
    for part, row in table.rows:
        for column, reading, cell in zip(table.columns, part.readings, row.cells, strict=True):
            records.append(
                {
                    "panel": part.panel, "row": row.label, "arm": row.arm, "control": row.control, **row.about,
                    "column": column.id, "label": column.label, "metric": reading.metric, "nfe": reading.nfe,
                    "solver": reading.solver, "percent": column.percent, "protocol": reading.protocol,
                    "n": cell.n, "planned_n": len(cell.seeds), "mean": cell.mean, "half_width": cell.half_width,
                    "best": cell.mark == "best", "second": cell.mark == "second", "paper": cell.paper,
                    "paper_best": cell.paper_mark == "best", "paper_second": cell.paper_mark == "second",
                    "value_verdict": (value_verdict(cell) or None) if table.study.as_in_paper else None,
                    "missing": cell.missing or None, "floor": reading.floor,
                }
            )  # fmt: skip
    return records


def seed_records(table: FilledTable) -> list[Record]:
    """The same with the value of every seed."""
    cells = [cell for _, row in table.rows for cell in row.cells]
    return [
        {**record, "values": {str(seed): value for seed, value in cell.values.items()}}
        for record, cell in zip(value_records(table), cells, strict=True)
    ]


def order_records(orders: Sequence[Order]) -> list[Record]:
    """One record a row and column. Effects are in %: of ``ratios``, log ratios said in %, else of the reference's
    mean."""
    return [
        {
            "panel": o.panel, "row": o.row, "arm": o.arm, "control": o.control, "column": o.column.id,
            "label": o.column.label, "reference": o.reference, "n": o.n, "planned_n": o.planned,
            "effect_percent": o.effect, "low_percent": o.interval[0] if o.interval else None,
            "high_percent": o.interval[1] if o.interval else None, "sd_percent": o.sd, "p": o.p, "p_holm": o.p_holm,
            "tests": o.tests or None, "claim": o.claim, "ratios": o.ratios,
            "paper_percent": o.paper, "verdict": o.verdict, "reason": o.reason or None,
            "resolvable_percent": o.resolvable, "resolution": o.resolution or None,
        }
        for o in orders
    ]  # fmt: skip


def ranking_records(rankings: Sequence[Ranking]) -> list[Record]:
    """One record a panel and column."""
    return [
        {"panel": o.panel, "column": o.column.id, "rows": o.rows, "n": o.seeds, "kendall_tau": o.tau} for o in rankings
    ]
