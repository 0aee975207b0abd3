"""Orders of a table's rows: each against its reference row, paired by seed, beside the paper's order.

Every difference is relative to the mean of the reference over the seeds that both rows have, in %. Lower is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from reports.statistics import Interval, holm, paired_t, relative, resolvable
from reports.tables import Cell, FilledTable, Part, Row
from studies.table import Column

OrderVerdict = Literal["agrees", "contradicts", "lower", "higher", "undecided"]
ALPHA = 0.05


@dataclass(frozen=True)
class Order:
    """A row minus its reference in one column. ``effect``, ``interval`` (95 %), ``sd`` over seeds, ``paper`` and
    ``resolvable`` are in % of the reference; ``p_holm`` is adjusted for the rows of the panel in this column.

    ``verdict``: with an order in the paper, whether the sign found agrees with it; without, whether the row is lower
    or higher; undecided, for the ``reason`` given, where ``p_holm`` is not below 0.05. With ``n`` below the number of
    seeds ``planned`` it is provisional.
    """

    panel: str
    arm: str
    row: str
    control: bool
    column: Column
    reference: str
    n: int
    planned: int
    paper: float | None = None
    effect: float | None = None
    interval: Interval | None = None
    sd: float | None = None
    p: float | None = None
    p_holm: float | None = None
    resolvable: float | None = None
    verdict: OrderVerdict = "undecided"
    reason: str = ""

    @property
    def said(self) -> str:
        """The verdict in words."""
        if self.verdict == "undecided":
            return f"undecided: {self.reason}"
        return self.verdict + (f", provisional ({self.n} of {self.planned} seeds)" if self.n < self.planned else "")

    @property
    def resolution(self) -> str:
        """What to say of the paper's effect where these seeds are too few to show it; else empty."""
        if self.n == 1:
            return "unknown with one seed"
        if not self.paper or self.resolvable is None or abs(self.paper) >= self.resolvable:
            return ""
        return f"not resolvable with {self.n} seeds"


@dataclass(frozen=True)
class Ranking:
    """Kendall's τ between our means and the paper's values of the rows of one panel that have both. Descriptive. The
    means are over the ``seeds`` that all these rows have."""

    panel: str
    column: Column
    rows: int
    seeds: int
    tau: float


def compare(table: FilledTable) -> list[Order]:
    """Every row against its reference in every column, part by part and column by column."""
    orders = []
    for part in table.parts:
        for i, column in enumerate(table.columns):
            reference = {row.arm: row.cells[i] for row in part.rows}
            raw = [
                _difference(part, row, column, row.cells[i], reference[row.reference])
                for row in part.rows
                if row.arm != row.reference
            ]
            orders += [_decided(order, table.study.meaningless) for order in _adjusted(raw)]
    return orders


def _difference(part: Part, row: Row, column: Column, cell: Cell, reference: Cell) -> Order:
    """The row minus the reference, seed by seed, without a verdict."""
    seeds = [seed for seed in cell.values if seed in reference.values]
    order = Order(
        part.panel, row.arm, row.label, row.control, column, row.reference, len(seeds), len(cell.seeds),
        paper=relative(cell.paper, reference.paper),
    )  # fmt: skip
    a, b = (np.array([values[seed] for seed in seeds]) for values in (cell.values, reference.values))
    if not seeds:
        return replace(order, reason="no seed has both values yet")
    base = abs(float(b.mean()))
    if base == 0:
        return replace(order, reason="the reference is 0, so that nothing is relative to it")
    a, b = 100 * a / base, 100 * b / base
    order = replace(order, effect=float((a - b).mean()))
    if len(seeds) < 2:
        return replace(order, reason="one seed is never a verdict")
    t = paired_t(a, b, ALPHA)
    if t is None:
        return replace(order, reason="the difference is the same in every seed, so there is nothing to test against")
    return replace(order, interval=t.interval, sd=t.sd, p=t.p, resolvable=resolvable(t.sd, t.n, ALPHA))


def _adjusted(orders: Sequence[Order]) -> list[Order]:
    """Orders of one panel and column with Holm's p for as many as were tested."""
    p_holm = iter(holm([order.p for order in orders if order.p is not None]))
    return [order if order.p is None else replace(order, p_holm=next(p_holm)) for order in orders]


def _decided(order: Order, meaningless: bool) -> Order:
    """The order with its verdict."""
    if meaningless:
        return replace(order, reason="the numbers of this scale mean nothing")
    if order.p_holm is None or order.effect is None:
        return order
    if order.p_holm >= ALPHA:
        return replace(order, reason="p ≥ 0.05")
    if not order.paper:
        return replace(order, verdict="lower" if order.effect < 0 else "higher")
    return replace(order, verdict="agrees" if order.effect * order.paper > 0 else "contradicts")


def rankings(table: FilledTable) -> list[Ranking]:
    """How alike ours and the paper's ranking are, for every part and column with at least two rows of both that have a
    seed in common."""
    found = []
    for part in table.parts:
        for i, column in enumerate(table.columns):
            both = [cell for cell in (row.cells[i] for row in part.rows) if cell.n and cell.paper is not None]
            seeds = [seed for seed in (both[0].values if both else ()) if all(seed in cell.values for cell in both)]
            papers = [cell.paper for cell in both]
            ours = [np.mean([cell.values[seed] for seed in seeds]) for cell in both if seeds]
            if len(set(ours)) > 1 and len(set(papers)) > 1:
                tau = stats.kendalltau(ours, papers).statistic
                found.append(Ranking(part.panel, column, len(both), len(seeds), float(tau)))
    return found


def value_verdict(cell: Cell) -> str:
    """Whether the paper's value lies in our 95 % interval; empty where there are not both. Only to be asked of a study
    that is ``as_in_paper``."""
    if cell.paper is None or cell.mean is None:
        return ""
    if cell.interval is None:
        return "one seed: no verdict"
    low, high = cell.interval
    if low <= cell.paper <= high:
        return "within"
    return f"outside: ours {'lower' if high < cell.paper else 'higher'}"
