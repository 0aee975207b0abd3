"""Orders of a table's rows: each against its reference row, paired by seed, beside the paper's order.

What is tested are log ratios, given in %; where a value is not positive or can be negative, differences in % of the
reference's mean over the seeds that both rows have. Lower is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from reports.claims import Claimed, Pair
from reports.statistics import (
    Array,
    Interval,
    as_log_ratio,
    as_percent,
    holm_by_family,
    paired_t,
    prediction_interval,
    relative,
    resolvable,
    tested,
)
from reports.tables import Cell, FilledTable, Part, Row
from reports.words import signed
from studies.table import Column

OrderVerdict = Literal["agrees", "contradicts", "lower", "higher", "undecided"]
ALPHA = 0.05


@dataclass(frozen=True)
class Order:
    """A row minus its reference in one column. ``effect``, ``interval`` (95 %), ``sd`` over seeds, ``paper`` and
    ``resolvable`` are in % of the reference: of ``ratios``, log ratios said in %. ``p_holm`` is ``p`` adjusted for
    ``tests`` tests: those of the study's claims where ``claim`` is about the same two rows, else those of the other
    rows of this column in all parts.

    ``verdict``: with an order in the paper, whether the sign found agrees with it; without, whether the row is lower
    or higher; undecided, for the ``reason`` given, where ``p_holm`` is not below α: the claim's, else 0.05. With ``n``
    below the number of seeds ``planned`` it is provisional. ``absent``: no value can be there, so there is no test.
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
    tests: int = 0
    claim: str | None = None
    alpha: float = ALPHA
    ratios: bool = False
    resolvable: float | None = None
    verdict: OrderVerdict = "undecided"
    reason: str = ""
    absent: bool = False

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
        if not self.paper or self.resolvable is None:
            return ""
        size = as_percent(abs(as_log_ratio(self.paper))) if self.ratios else abs(self.paper)
        if size >= self.resolvable:
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


def compare(table: FilledTable, claimed: Mapping[Pair, Claimed] | None = None) -> list[Order]:
    """Every row against its reference in every column, part by part and column by column. ``claimed``: what the study's
    claims say of pairs of rows (`reports.claims.claimed_pairs`)."""
    orders = []
    for part in table.parts:
        for i, column in enumerate(table.columns):
            reference = {row.arm: row.cells[i] for row in part.rows}
            for row in part.rows:
                if row.arm != row.reference:
                    order = _difference(part, row, i, column, reference[row.reference])
                    orders.append(_with_claim(order, part, i, claimed or {}))
    families = [None if order.claim or order.absent else order.column.id for order in orders]
    own = holm_by_family(families, [order.p for order in orders])
    adjusted = [o if o.claim else replace(o, p_holm=p, tests=n) for o, (p, n) in zip(orders, own, strict=True)]
    return [_decided(order, table.study.meaningless) for order in adjusted]


def _difference(part: Part, row: Row, i: int, column: Column, reference: Cell) -> Order:
    """The row minus the reference in the i-th column, seed by seed, without a verdict."""
    cell = row.cells[i]
    seeds = [seed for seed in cell.values if seed in reference.values]
    order = Order(
        part.panel, row.arm, row.label, row.control, column, row.reference, len(seeds), len(cell.seeds),
        paper=relative(cell.paper, reference.paper), absent=bool(cell.absent or reference.absent),
    )  # fmt: skip
    if not seeds:
        return replace(order, reason="no seed has both values yet")
    both = np.array([[values[seed] for seed in seeds] for values in (cell.values, reference.values)])
    (a, b), ratios = tested(both, signed=signed(part.readings[i].metric))
    if not ratios:
        base = abs(float(b.mean()))
        if base == 0:
            return replace(order, reason="the reference is 0, so that nothing is relative to it")
        a, b = 100 * a / base, 100 * b / base
    return _tested(replace(order, ratios=ratios), a, b)


def _tested(order: Order, a: Array, b: Array) -> Order:
    """The order with its effect, which are logs or in % already, and with its test."""

    def said(value: float) -> float:
        return as_percent(value) if order.ratios else value

    order = replace(order, effect=said(float((a - b).mean())))
    if order.n < 2:
        return replace(order, reason="one seed is never a verdict")
    t = paired_t(a, b, ALPHA)
    if t is None:
        what = "ratio" if order.ratios else "difference"
        return replace(order, reason=f"the {what} is the same in every seed, so there is nothing to test against")
    low, high = map(said, t.interval)
    least = resolvable(t.sd, t.n, ALPHA)
    return replace(order, interval=(low, high), sd=said(t.sd), p=t.p, resolvable=None if least is None else said(least))


def _with_claim(order: Order, part: Part, i: int, claimed: Mapping[Pair, Claimed]) -> Order:
    """The order as the claim about the same two rows decides it, where there is one."""
    one, column = part.readings[i], order.column
    found = claimed.get((part.panel, frozenset((order.arm, order.reference)), one.metric, column.nfe, column.solver))
    if found is None or order.p is None or column.percent != 100:
        return order
    return replace(order, claim=found.claim, p_holm=found.p_holm, tests=found.tests, alpha=found.alpha)


def _decided(order: Order, meaningless: bool) -> Order:
    """The order with its verdict."""
    if meaningless:
        return replace(order, reason="the numbers of this scale mean nothing")
    if order.p_holm is None or order.effect is None:
        return order
    if order.p_holm >= order.alpha:
        corrected = order.p is not None and order.p < order.alpha
        return replace(order, reason=f"p ≥ {order.alpha:g}" + (" after Holm's correction" if corrected else ""))
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
    """Whether the paper's value, a single number, lies where one more of ours would in 95 % of cases; empty where there
    are not both. Only to be asked of a study that is ``as_in_paper``."""
    if cell.paper is None or cell.mean is None:
        return ""
    interval = prediction_interval(np.array([*cell.values.values()]))
    if interval is None:
        return "one seed: no verdict"
    low, high = interval
    if low <= cell.paper <= high:
        return "within"
    return f"outside: ours {'lower' if high < cell.paper else 'higher'}"
