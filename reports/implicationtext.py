"""Implications in words: as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from reports.claimwords import MEANINGLESS
from reports.implications import RULE, Judged, SumUp, Tally
from reports.text import aligned, escaped, markdown_table, number

COLUMNS = ("study", "claim", "by the primary metric", "by the truth")


def title(one: SumUp) -> str:
    """``Implication of Sec. 4.1 (v_first): MIXED at scale cpu; by the truth SUPPORTED``."""
    truth = f"; by the truth {one.truth.overall.upper()}" if one.truth.judged else "; not judged by the truth"
    return f"Implication of Sec. {one.section} ({one.id}): {one.primary.overall.upper()} at scale {one.scale}{truth}"


def table(one: SumUp) -> list[tuple[str, ...]]:
    """The claims, one a row, below their head."""
    return [COLUMNS, *((line.study, line.claim, _cell(line.primary), _cell(line.truth)) for line in one.claims)]


def _cell(judged: Judged | None) -> str:
    if judged is None:
        return "–"
    seeds = f"{judged.n}" if judged.n == judged.planned_n else f"{judged.n} of {judged.planned_n}"
    percent = f" ({number(judged.effect_percent, ' %')})" if judged.effect_percent is not None else ""
    effect = f": {number(judged.effect)}{percent}" if judged.effect is not None else ""
    return f"{judged.verdict}{effect}; {judged.metric}, n = {seeds}"


def findings(one: SumUp) -> list[str]:
    """The tallies, and the studies that have no verdicts."""
    said = [f"By the primary metrics: {_tally(one.primary)}.", f"By the truth: {_tally(one.truth)}."]
    if one.meaningless:
        said.append(f"{MEANINGLESS[0].upper()}{MEANINGLESS[1:]}.")
    if one.not_run:
        said.append(f"Nothing measured at scale {one.scale} of: {', '.join(one.not_run)}.")
    return said


def _tally(tally: Tally) -> str:
    judged = f"{tally.judged} of {tally.of} claims judged"
    if not tally.judged:
        return judged
    counts = f"{tally.supported} supported, {tally.contradicted} contradicted, {tally.undecided} undecided"
    return f"{tally.overall}; {judged}: {counts}"


def plain(sums: Sequence[SumUp], flags: Sequence[str]) -> str:
    """Implications as plain text."""
    parts = ["\n  ".join([title(one), one.text, *findings(one), *aligned(table(one))]) for one in sums]
    return "\n\n".join([*parts, *(f"FLAG  {flag}" for flag in flags), RULE])


def markdown(sums: Sequence[SumUp], flags: Sequence[str]) -> str:
    """Implications as Markdown."""
    parts = []
    for one in sums:
        facts = "\n".join(f"- {escaped(line)}" for line in findings(one))
        lines = "\n".join(markdown_table(table(one)))
        parts.append(f"### {title(one)}\n\n> {escaped(one.text)}\n\n{facts}\n\n{lines}")
    if flags:
        parts.append("\n".join(f"- **Flag:** {escaped(flag)}" for flag in flags))
    return "\n\n".join([*parts, f"<sub>{RULE}</sub>"]) + "\n"
