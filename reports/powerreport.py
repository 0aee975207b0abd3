"""How many seeds studies need: from the store, in words and as records."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.errors import NothingToReport
from reports.paper import paper_values
from reports.power import MOST_SEEDS, Need, needs
from reports.stored import load
from reports.text import aligned, number
from studies.schema import ResolvedStudy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from results.layout import Home

COLUMNS = (
    "comparison", "of", "sd", "seeds there", "resolvable now", "resolvable as planned", "effect", "seeds needed",
)  # fmt: skip
NOTES = (
    "Log ratios paired by seed, said in % of the second arm (where values can be 0 or negative, differences in % of "
    "its mean), at the end unless a claim says otherwise; of a speed-up its log₂, told as factors. sd: of these over "
    "seeds. Resolvable: the smallest, upwards, that so many seeds show with 80 % power by the test that verdicts "
    "rest on, without Holm's correction. Seeds needed: for 80 % power to see the paper's effect, or 10 % (a speed-up "
    "of 1.5) where the paper has none to compare with.",
    "The sd of few seeds is itself uncertain: the true one may be 3.7 times as large at n = 4, 1.7 times at n = 12 "
    "(upper ends of 95 % intervals).",
)


def build_power(engine: Engine | None, home: Home, studies: Sequence[ResolvedStudy], variant: str | None) -> list[Need]:
    """What seeds can show of every comparison of some studies, from what the store holds of them at their scale; no
    engine where there is no store yet.

    Raises: ReportError.
    """
    found = []
    for study in studies:
        frame, protocols = None, {}
        if engine is not None:
            with contextlib.suppress(NothingToReport):
                stored = load(engine, home, study=study.study, scale=study.scale, variant=variant)
                frame, protocols = stored.frame, stored.protocols
        found += needs(study, frame, protocols, paper_values(study) if study.table else {})
    return found


def cells(need: Need) -> tuple[str, ...]:
    """One line in the order of `COLUMNS`."""
    one, say = need.comparison, partial(_said, need.comparison.unit)
    return (
        f"{one.study} {one.panel}: {one.arms[0]} − {one.arms[1]}",
        one.what,
        say(need.sd),
        str(need.n),
        say(need.now),
        f"{say(need.then)} ({need.planned})",
        f"{say(one.paper)} (paper)" if one.paper else f"{'±' if one.unit == 'percent' else ''}{say(need.effect)}",
        need.seeds_said,
    )


def _said(unit: str, value: float | None) -> str:
    """``5.3 %``, or log₂ of a speed-up as a factor: ``1.4×``."""
    if unit == "log2":
        return number(None if value is None else 2.0 ** min(value, 1000.0), "×")
    return number(value, " %")


def show(found: Sequence[Need], console: Console) -> None:
    """Print one line a comparison: a table in a terminal, plain lines elsewhere."""
    rows = [cells(need) for need in found]
    if console.is_terminal:
        table = Table(*COLUMNS, box=HORIZONTALS)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    else:
        console.print("\n".join(aligned([COLUMNS, *rows])), markup=False, highlight=False, soft_wrap=True)
    for note in NOTES:
        console.print(note, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def records(found: Sequence[Need]) -> list[dict[str, Any]]:
    """One record a comparison, for programs: numbers in %, those of speed-ups in log₂, as their names say;
    ``seeds_needed`` is null where it is unknown or above ``more_than``."""
    return [
        {
            "study": n.comparison.study, "panel": n.comparison.panel, "arms": list(n.comparison.arms),
            "claim": n.comparison.claim.id if n.comparison.claim else None, "what": n.comparison.what,
            "metric": n.comparison.metric, "nfe": n.comparison.nfe, "solver": n.comparison.solver,
            "alpha": n.comparison.alpha, "n": n.n, "planned_n": n.planned, f"sd_{n.comparison.unit}": n.sd,
            f"resolvable_now_{n.comparison.unit}": n.now, f"resolvable_planned_{n.comparison.unit}": n.then,
            f"paper_{n.comparison.unit}": n.comparison.paper, f"effect_{n.comparison.unit}": n.effect,
            "seeds_needed": n.seeds,
            "more_than": MOST_SEEDS if n.sd is not None and n.seeds is None else None, "unknown": n.unknown or None,
        }
        for n in found
    ]  # fmt: skip
