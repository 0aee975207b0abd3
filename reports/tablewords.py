"""A filled table and the orders of its rows in words, the same for every format."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports import captions
from reports.claimwords import MEANINGLESS
from reports.frames import Run
from reports.orders import Order, Ranking, value_verdict
from reports.paper import paper_table, rank_groups
from reports.tables import Cell, FilledTable, Mark, Part, Row
from reports.text import number, span
from reports.versions import DECLARED
from studies.dynamics import assumed
from studies.schema import ResolvedStudy

MARKS = "the best of its part, {}: the second best; controls take no part."
ORDER_HEAD = (
    "value", "difference", "95 % interval", "p", "p (Holm)", "paper", "order", "smallest resolvable", "seeds",
)  # fmt: skip
ORDER_NOTES = (
    "Differences from the reference row, paired by seed, with Student's 95 % interval: log ratios, which are tested, "
    "said in %; where values can be 0 or negative, differences in % of the reference's mean. p: two-sided. p (Holm) "
    "decides: where a claim is about the two rows it is the claim's, adjusted for all claims of the study (`study "
    "claims`), so that both say the same; else it is adjusted for the other rows of the column in all parts. Order: "
    "whether the sign found is the paper's or, where the paper has none, whether the row is lower or higher; "
    "undecided unless p (Holm) is below 0.05 (or the claim's α). The interval is of one row alone, without that "
    "correction.",
    "Smallest resolvable: the difference, upwards, that these seeds show with 80 % power at the spread seen "
    "(two-sided, 0.05, before Holm's correction). A smaller one that is not seen says nothing about whether it is "
    "there.",
)
ONE_SEED = "One seed resolves nothing: how large a difference it could show is not known without a spread over seeds."


@dataclass(frozen=True)
class Words:
    """What stands in one cell, and how it stands out."""

    text: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Block:
    """One part as shown; the rows from ``controls`` on stand below a rule."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Words, ...], ...]
    controls: int


@dataclass(frozen=True)
class Document:
    """All that is said of one table: values, other methods in the paper's table, then orders, with notes on how to read
    them. ``last_orders`` are those of the columns at the end of training, ``orders_file`` is where all are. ``implied``
    is what the verdicts on claims say that explain their outcome, as those about controls do."""

    heading: str
    warning: str
    values: tuple[Block, ...]
    caption: str
    orders: tuple[Block, ...]
    last_orders: tuple[Block, ...]
    order_notes: tuple[str, ...]
    missing: tuple[str, ...]
    assumptions: tuple[str, ...]
    others: Block | None = None
    orders_file: str = ""
    implied: tuple[str, ...] = ()

    @property
    def elsewhere(self) -> str:
        """Where the orders are that the terminal leaves out; empty where it shows all."""
        left_out = sum(len(block.rows) for block in self.orders) > sum(len(block.rows) for block in self.last_orders)
        return f"Orders of the other columns: {self.orders_file}" if left_out and self.orders_file else ""


def document(
    table: FilledTable, orders: Sequence[Order], rankings: Sequence[Ranking], run: Run, variant: str | None
) -> Document:
    """A table with its orders in words. ``caption`` names what was trained and measured, the run and its
    configuration."""
    study = table.study
    return Document(
        heading=captions.heading(study, table.readings, DECLARED, variant),
        warning=f"MEANINGLESS: {MEANINGLESS}." if study.meaningless else "",
        values=value_blocks(table),
        caption=captions.caption(study, table.readings, run, value_notes(table)),
        orders=order_blocks(table, orders),
        last_orders=order_blocks(table, [order for order in orders if order.column.percent == 100]),
        order_notes=(
            *ORDER_NOTES,
            *([ONE_SEED] if any(order.n == 1 for order in orders) else []),
            *_ranking_notes(rankings),
        ),
        missing=tuple(table.missing),
        assumptions=(*assumed(study), *study.scale_assumptions),
    )


def value_blocks(table: FilledTable) -> tuple[Block, ...]:
    """The values, a block a part; beside a column stands the paper's where it has one for any row."""
    cells = [[row.cells[i] for _, row in table.rows] for i in range(len(table.columns))]
    in_paper = [any(cell.paper is not None for cell in column) for column in cells]
    write = [writer([cell.mean for cell in column if cell.mean is not None]) for column in cells]
    head = [table.table.row_label, *(name.capitalize() for name in table.table.about)]
    for column, beside in zip(table.columns, in_paper, strict=True):
        head += [column.label, "paper"] if beside else [column.label]

    def words(row: Row) -> tuple[Words, ...]:
        said = [Words(row.label), *(Words(_fact(name, row)) for name in table.table.about)]
        for cell, say, beside in zip(row.cells, write, in_paper, strict=True):
            said.append(Words(_value(cell, say), cell.mark))
            if beside:
                said.append(Words(_paper(cell, compared=table.study.as_in_paper), cell.paper_mark))
        return tuple(said)

    def floor(part: Part) -> list[tuple[Words, ...]]:
        if all(reading.floor is None for reading in part.readings):
            return []
        said = [Words("floor"), *(Words("–") for _ in table.table.about)]
        for reading, say, beside in zip(part.readings, write, in_paper, strict=True):
            said += [Words("–" if reading.floor is None else say(reading.floor)), *([Words("–")] if beside else [])]
        return [tuple(said)]

    return tuple(
        Block(part.title, tuple(head), (*map(words, part.rows), *floor(part)), sum(not r.control for r in part.rows))
        for part in table.parts
    )


def writer(values: Sequence[float]) -> Callable[[float], str]:
    """Writes the values of a column with equally many decimals: four digits of the largest."""
    largest = max(map(abs, values), default=0.0)
    decimals = 2 if largest == 0 else max(0, 3 - math.floor(math.log10(largest)))
    style = f".{decimals}f" if decimals < 8 else ".3e"
    return lambda value: f"{value:{style}}".replace("-", "−")


def _value(cell: Cell, say: Callable[[float], str]) -> str:
    if cell.mean is None:
        return "–"
    some = f" (n = {cell.n})" if cell.n < len(cell.seeds) else ""
    return say(cell.mean) + ("" if cell.half_width is None else f" ± {say(cell.half_width)}") + some


def _paper(cell: Cell, *, compared: bool) -> str:
    if cell.paper is None:
        return "–"
    verdict = value_verdict(cell) if compared else ""
    return f"{cell.paper:.2f}" + (f" ({verdict})" if verdict else "")


def _fact(name: str, row: Row) -> str:
    value = row.about.get(name)
    if value is None:
        return "–"
    return count(value) if name == "parameters" else str(value)


def count(n: int) -> str:
    """``131M``, ``1.3M``, ``215k``."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if n >= 10 * size:
            return f"{n / size:.0f}{unit}"
        if n >= size:
            return f"{n / size:.1f}{unit}"
    return str(n)


def value_notes(table: FilledTable) -> list[str]:
    """How to read the values."""
    study, cells = table.study, [cell for _, row in table.rows for cell in row.cells]
    counts = {cell.n for cell in cells if cell.n}
    said = ["One seed: no interval can be given, and no difference is resolved."]
    if max(counts, default=0) > 1:
        seeds = f"{max(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        said = [
            f"Values: mean ± half the width of its Student-t 95 % interval over {seeds} seeds. It shows each arm's "
            "spread over seeds; orders are tested on differences paired by seed."
        ]
    said.append("Lower is better.")
    if any(reading.floor is not None for reading in table.readings):
        said.append("Floor: what as many samples of the data's own law score.")
    if table.uneven:
        said.append(f"No best is marked while arms of a part differ in seeds: {'; '.join(table.uneven)}.")
    if any(cell.paper is not None for cell in cells):
        said.append(f"Paper: {_papers(study)}, in its setting (network, data, budget, guidance).")
    if groups := rank_groups(study):
        said.append(f"The paper's are marked among its rows of: {'; '.join(dict.fromkeys(groups.values()))}.")
    if study.as_in_paper:
        said.append(
            "In brackets: where the paper's value, a single number, lies with respect to our 95 % prediction interval, "
            "where one more seed of ours would fall."
        )
    elif not study.meaningless:
        said.append("Values are not compared: this scale is not the paper's; orders are.")
    said.append(_sweep_note(table))
    return [*said, captions.controls_words(study, {row.arm for _, row in table.rows if row.control})]


def _papers(study: ResolvedStudy) -> str:
    table = paper_table(study)
    return f"the values of its Table {table.table} (“{table.caption.rstrip('.')}”)" if table else "its own values"


def _sweep_note(table: FilledTable) -> str:
    """What the rows are that bear the names of a sweep's points: ``k…``."""
    sweep = table.study.sweep
    if sweep is None or "{arm}" not in table.table.row:
        return ""
    names = re.sub(r"\{[^}]*\}", "…", sweep.arm_name)
    base = "".join(f", {name} {value}" for name, value in sweep.base.items())
    return f"Rows {names}: the points of the sweep over {' and '.join(sweep.space)}{base}."


def order_blocks(table: FilledTable, orders: Sequence[Order]) -> tuple[Block, ...]:
    """The orders, a block a part, column by column."""
    blocks = []
    for part in table.parts:
        rows = tuple(_order(order) for order in orders if order.panel == part.panel)
        title = f"{part.title}: rows minus {_references(part)}"
        blocks.append(Block(title, (table.table.row_label, *ORDER_HEAD), rows, len(rows)))
    return tuple(block for block in blocks if block.rows)


def _references(part: Part) -> str:
    names = {row.arm: row.label for row in part.rows}
    return " or ".join(dict.fromkeys(names[row.reference] for row in part.rows))


def _order(order: Order) -> tuple[Words, ...]:
    """One line in the order of `ORDER_HEAD`."""
    least = number(order.resolvable, " %")
    if order.resolution:
        least = f"{least}: the paper's is {order.resolution}" if order.n > 1 else order.resolution
    said = (
        order.row + (" (control)" if order.control else ""),
        order.column.label,
        number(order.effect, " %"),
        span(order.interval, " %"),
        number(order.p),
        number(order.p_holm),
        number(order.paper, " %"),
        order.said,
        least,
        str(order.n),
    )
    return tuple(map(Words, said))


def _ranking_notes(rankings: Sequence[Ranking]) -> list[str]:
    """One sentence a panel."""
    by_panel: dict[str, list[str]] = {}
    for one in rankings:
        over = f"{one.rows} rows, {one.seeds} seed{'s' if one.seeds > 1 else ''}"
        by_panel.setdefault(one.panel, []).append(f"{one.column.label} {number(one.tau)} ({over})")
    return [
        "Kendall's τ between our means, over the seeds that all its rows have, and the paper's values in "
        f"{panel} (descriptive): {', '.join(said)}."
        for panel, said in by_panel.items()
    ]
