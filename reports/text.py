"""Verdicts in words: for the terminal (rich where it is one, else plain) and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from reports.statistics import Interval
from reports.verdicts import Outcome, Verdict

COLOURS = {"supported": "green", "contradicted": "red", "undecided": "yellow"}
NONE = "This run declares no claims."
COLUMNS = ("metric", "role", "verdict", "effect", "interval", "in %", "resolvable", "p", "seeds that agree")
FOOTNOTES = (
    "Effect: mean difference paired by seed, with Student's t interval at 1 − α. Resolvable: the smallest "
    "difference that this many seeds show with 80 % power, given the spread seen. Agree: seeds whose "
    "difference has the side claimed (for an equivalence: lies within the margin), with the exact interval of their "
    "share. p: of Page's test for a trend, of the two-sided t test for a difference, of two one-sided t tests for an "
    "equivalence. A speed-up is the geometric mean over seeds; tested are its log₂, two-sided. First crossings of "
    "noisy curves come early, which makes it larger, up or down, but favours neither arm.",
    "Each claim has one primary metric and one test, declared in its study; what was changed or added after a verdict "
    "was seen is flagged. α holds for one claim, without correction for their number. Tables and rankings do correct, "
    "for the rows that they compare, so that the order of a pair may be undecided there whose claim is decided here. "
    "The truth, the error against the known v and u, is judged the same way beside it; it and the secondary metrics "
    "are uncorrected and decide nothing.",
    "Page's test is one-sided. It takes arms as exchangeable within a seed; arms that share a training prefix are "
    "correlated, which makes its p too small, so a trend must also show in the two-sided t of per-seed slopes.",
)


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits; a dash for nothing."""
    return "–" if value is None else f"{value:.3g}".replace("-", "−") + unit


def span(interval: Interval | None, unit: str = "") -> str:
    """``[−1.2, 0.3]``."""
    return "–" if interval is None else f"[{number(interval[0])}, {number(interval[1])}]{unit}"


def ratio(value: float, interval: Interval | None) -> str:
    """``2.12× [1.83, 2.46]``."""
    return number(value, "×") + (f" {span(interval)}" if interval else "")


def row(outcome: Outcome) -> tuple[str, ...]:
    """One metric's line in the order of `COLUMNS`; a speed-up is told in ratios, not in the log₂ that is tested."""
    share = outcome.agree_interval
    agree = f"{outcome.agree} of {outcome.n}"
    agree += f" ({100 * share[0]:.0f}–{100 * share[1]:.0f} %)" if share else ""
    p = outcome.trend.p_forward if outcome.trend else outcome.p
    return (
        outcome.metric,
        outcome.role,
        outcome.verdict,
        number(outcome.speedup.ratio, "×") if outcome.speedup else number(outcome.effect),
        span(outcome.speedup.interval if outcome.speedup else outcome.interval),
        number(outcome.effect_percent, " %"),
        resolvable(outcome),
        number(p),
        agree if share else "–",
    )


def resolvable(outcome: Outcome) -> str:
    """The smallest difference, or speed-up, that the seeds can show."""
    if outcome.resolvable is None:
        return "–"
    if outcome.speedup:
        return number(2.0 ** min(outcome.resolvable, 1000.0), "×")
    percent = f" ({number(outcome.resolvable_percent, ' %')})" if outcome.resolvable_percent is not None else ""
    return number(outcome.resolvable) + percent


def of_paper(verdict: Verdict, effect: float) -> str:
    """The paper's effect, and whether these seeds can show one so small: ``−3.9 %, not resolvable with 12 seeds``."""
    outcome = verdict.primary
    if verdict.test == "speedup":
        said, size, least = number(effect, "×"), abs(math.log2(effect)), outcome.resolvable
    else:
        said, size, least = number(effect, " %"), abs(effect), outcome.resolvable_percent
    shown = verdict.test == "equivalence" or least is None or size >= least
    return said if shown else f"{said}, not resolvable with {outcome.n} seeds"


def findings(verdict: Verdict) -> list[str]:
    """What was declared and found, one sentence a line."""
    first = verdict.primary
    lines = [f"This implies: {verdict.implies}"] if verdict.implies else []
    lines += [f"Paper: {verdict.where}", f"Declared test: {verdict.declared}.", f"Reason: {first.reason}."]
    lines += effect_lines(first)
    if first.bound is not None:
        inner = f"; the 1 − 2α interval is {span(first.inner_interval)}" if first.inner_interval else ""
        lines.append(f"Margin of the equivalence: ±{number(first.bound)}{inner}.")
    if first.resolvable is not None:
        what = "speed-up" if first.speedup else "difference"
        lines.append(f"Smallest resolvable {what} (80 % power): {resolvable(first)}.")
    if verdict.paper is not None:
        lines.append(f"The paper's own numbers: {of_paper(verdict, verdict.paper)}.")
    if first.p_sign_flip is not None:
        lines.append(f"Sign-flip permutation test of the mean difference: p = {number(first.p_sign_flip)}.")
    lines += trend_lines(first)
    lines += [f"Note: {note}." for note in first.notes]
    lines += [f"{o.metric} ({o.role}): {o.reason}." for o in verdict.outcomes[1:] if o.effect is None]
    if verdict.disagreement:
        lines.append(verdict.disagreement)
    if first.missing_seeds:
        seeds = ", ".join(map(str, first.missing_seeds))
        lines.append(f"Seeds without all points: {seeds} ({first.n} of {verdict.planned_n} are complete).")
    return [*lines, f"{verdict.paper_scale[0].upper()}{verdict.paper_scale[1:]}."]


def effect_lines(outcome: Outcome) -> list[str]:
    """The effect, as a difference or as a speed-up, with its interval."""
    if outcome.effect is None:
        return []
    if outcome.compared is None:  # a test of the user's own
        return [
            f"Effect ({outcome.metric}): {number(outcome.effect)}, interval {span(outcome.interval)}, n = {outcome.n}."
        ]
    a, b = outcome.compared
    if outcome.speedup:
        first, lasting = outcome.speedup, ratio(outcome.speedup.lasting, outcome.speedup.lasting_interval)
        return [
            f"Speed-up ({outcome.metric}): {a} over {b} {ratio(first.ratio, first.interval)}, geometric mean, "
            f"n = {outcome.n}.",
            f"Lasting speed-up, counted from where the curve stays there for good: {lasting}.",
        ]
    percent = f" ({number(outcome.effect_percent, ' %')} of {b})" if outcome.effect_percent is not None else ""
    return [
        f"Effect ({outcome.metric}): {a} − {b} = {number(outcome.effect)}{percent}, "
        f"interval {span(outcome.interval)}, n = {outcome.n}."
    ]


def trend_lines(outcome: Outcome) -> list[str]:
    """Page's test, its check by slopes, and the levels one by one."""
    trend = outcome.trend
    if trend is None:
        return []
    levels = "; ".join(
        f"{level.arm} {number(level.mean)}" + ("" if level.p_holm is None else f" (p {number(level.p_holm)})")
        for level in trend.levels
    )
    return [
        f"Page's trend test: p = {number(trend.p_forward)} in the direction claimed, "
        f"{number(trend.p_reverse)} in reverse; t of per-seed slopes: {number(trend.slope)} a unit, "
        f"{span(trend.slope_interval)}, one-sided p = {number(trend.slope_p_forward)}.",
        f"Means of the levels (Holm-adjusted p against the lowest level): {levels}.",
    ]


def title(verdict: Verdict) -> str:
    """``fixed_u_budget: SUPPORTED at scale cpu``."""
    name, rest = verdict.label.split(" ", 1)
    return f"{verdict.claim}: {name.upper()} {rest}"


def implied_words(verdict: Verdict) -> str:
    """A claim, its verdict and what that implies: ``k = 1 is better than k → ∞. Contradicted: Table 4's ...``."""
    return f"{verdict.text} {verdict.primary.verdict.capitalize()}: {verdict.implies}"


def show(verdicts: Sequence[Verdict], flags: Sequence[str], console: Console) -> None:
    """Print verdicts: panels and tables in a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        console.print(plain(verdicts, flags), markup=False, highlight=False, soft_wrap=True)
        return
    for verdict in verdicts:
        table = Table(*COLUMNS, box=None, header_style="bold", padding=(0, 1))
        for outcome in verdict.outcomes:
            table.add_row(*row(outcome), style="dim" if outcome.role == "secondary" else None)
        body = Group(Text(verdict.text, style="italic"), Text("\n".join(findings(verdict))), Text(), table)
        console.print(Panel(body, title=Text(title(verdict)), border_style=COLOURS[verdict.primary.verdict]))
    for flag in flags:
        console.print(Text(f"FLAG  {flag}", style="bold red"))
    for note in FOOTNOTES if verdicts else (NONE,):
        console.print(Text(note, style="dim"))


def plain(verdicts: Sequence[Verdict], flags: Sequence[str]) -> str:
    """Verdicts as plain text, one fact a line."""
    parts = []
    for verdict in verdicts:
        table = aligned([COLUMNS, *(row(outcome) for outcome in verdict.outcomes)])
        lines = [title(verdict), verdict.text, *findings(verdict), *table]
        parts.append("\n  ".join(lines))
    parts += [f"FLAG  {flag}" for flag in flags]
    return "\n\n".join([*parts, *(FOOTNOTES if verdicts else (NONE,))])


def markdown(verdicts: Sequence[Verdict], flags: Sequence[str]) -> str:
    """Verdicts as Markdown."""
    parts = []
    for verdict in verdicts:
        table = markdown_table([COLUMNS, *(row(outcome) for outcome in verdict.outcomes)])
        facts = "\n".join(f"- {escaped(line)}" for line in findings(verdict))
        head = f"### {title(verdict)}\n\n> {escaped(verdict.text)}"
        parts.append(f"{head}\n\n{facts}\n\n" + "\n".join(table))
    if flags:
        parts.append("\n".join(f"- **Flag:** {escaped(flag)}" for flag in flags))
    notes = [f"<sub>{note}</sub>" for note in FOOTNOTES] if verdicts else [NONE]
    return "\n\n".join([*parts, *notes]) + "\n"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of plain text."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of Markdown; the first row is its head."""
    lines = ["| " + " | ".join(escaped(cell) for cell in r) + " |" for r in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line (a bar or the line's end would end a table's cell)."""
    for sign in "\\|*<":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.splitlines())
