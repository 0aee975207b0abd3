"""Verdicts in words: for the terminal (rich where it is one, else plain) and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from reports.statistics import Interval, as_log_ratio, as_percent
from reports.verdicts import Outcome, Verdict

COLOURS = {"supported": "green", "contradicted": "red", "undecided": "yellow"}
NONE = "This run declares no claims."
COLUMNS = (
    "metric", "role", "verdict", "effect", "in %", "interval", "resolvable", "p", "p (Holm)", "seeds that agree",
)  # fmt: skip
FOOTNOTES = (
    "Effect: mean difference paired by seed, in the metric's units. In %: the geometric mean of the ratios minus 1; "
    "its log is what is tested, and its interval (Student's t, at 1 − α) is in % as well. Where values can be 0 or "
    "negative (cosines, sums of rises, KID), differences are tested as they are, the interval is in units, and % are "
    "of the mean of the second arm. Resolvable: the smallest difference, upwards, that this many seeds show with 80 "
    "% power, given the spread seen, before Holm's correction. Agree: seeds whose difference has the side claimed "
    "(for an equivalence: lies within the margin), with the exact interval of their share.",
    "p: two-sided, by Student's t and, from 6 seeds on, by Hall's t, which corrects for skewness: the larger counts. "
    "Of a trend the larger of that of per-seed slopes and of Page's test; of an equivalence that of two one-sided "
    "tests or, where the effect lies outside the margin, that it does. A speed-up is the geometric mean over seeds; "
    "tested are its log₂. First crossings of noisy curves come early, which makes it larger, up or down, but favours "
    "neither arm.",
    "p (Holm) decides: p adjusted for all claims of the study, so that the chance of calling any of them wrong stays "
    "below α. The interval is that of one claim alone: one that excludes 0 beside a p (Holm) above α is undecided. "
    "An order in a table that a claim is about has the claim's p. Each claim has one primary metric and one test, "
    "declared in its study; what was changed or added after a verdict was seen is flagged. The truth, the error "
    "against the known v and u, and each secondary metric are judged the same way, each with a correction of its "
    "own; they decide nothing.",
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
    return (
        outcome.metric,
        f"{outcome.role}: {outcome.under}" if outcome.role == "reading" else outcome.role,
        outcome.verdict,
        number(outcome.speedup.ratio, "×") if outcome.speedup else number(outcome.effect),
        number(outcome.effect_percent, " %"),
        span(outcome.speedup.interval) if outcome.speedup else tested_interval(outcome),
        resolvable(outcome),
        number(outcome.tested_p),
        number(outcome.p_holm),
        agree if share else "–",
    )


def tested_interval(outcome: Outcome) -> str:
    """The interval of what is tested: in % where that are ratios, else in the metric's units."""
    return span(outcome.interval_percent, " %") if outcome.ratios else span(outcome.interval)


def resolvable(outcome: Outcome) -> str:
    """The smallest difference, or speed-up, that the seeds can show."""
    if outcome.ratios or outcome.resolvable is None:
        return number(outcome.resolvable_percent if outcome.ratios else None, " %")
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
        said, size, least = number(effect, " %"), size_of(effect, outcome.ratios), outcome.resolvable_percent
    shown = verdict.test == "equivalence" or least is None or size >= least
    return said if shown else f"{said}, not resolvable with {outcome.n} seeds"


def size_of(percent: float, ratios: bool) -> float:
    """The size of an effect in %: of a ratio below 1, that of its inverse."""
    return as_percent(abs(as_log_ratio(percent))) if ratios else abs(percent)


def findings(verdict: Verdict) -> list[str]:
    """What was declared and found, one sentence a line."""
    first = verdict.primary
    lines = [f"This implies: {verdict.implies}"] if verdict.implies else []
    lines += [f"Paper: {verdict.where}", f"Declared test: {verdict.declared}.", f"Reason: {first.reason}."]
    if verdict.readings:
        lines.append(f"By what the paper leaves open: {verdict.readings_words}.")
    if verdict.settled_words:
        lines.append(verdict.settled_words)
    lines += effect_lines(first)
    if first.tests and first.tests > 1:
        holm = f"{number(first.p_holm)} by Holm's method for the {first.tests} tests of the study"
        lines.append(f"p = {number(first.tested_p)}; {holm}.")
    if first.bound is not None or first.bound_percent is not None:
        margin = span(first.bound_percent, " %") if first.ratios else f"±{number(first.bound)}"
        inner = span(first.inner_interval_percent, " %") if first.ratios else span(first.inner_interval)
        lines.append(f"Margin of the equivalence: {margin}; the 1 − 2α interval is {inner}.")
    if first.resolvable is not None or first.resolvable_percent is not None:
        what = "speed-up" if first.speedup else "difference"
        lines.append(f"Smallest resolvable {what} (80 % power): {resolvable(first)}.")
    if verdict.paper is not None:
        lines.append(f"The paper's own numbers: {of_paper(verdict, verdict.paper)}.")
    if first.p_sign_flip is not None:
        what = "log ratio" if first.ratios else "difference"
        lines.append(f"Sign-flip permutation test of the mean {what}: p = {number(first.p_sign_flip)}.")
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
    if outcome.ratios:
        told = f"{number(outcome.effect_percent, ' %')} of {b}, interval {span(outcome.interval_percent, ' %')}"
        return [f"Effect ({outcome.metric}): {a} − {b} = {told}; {number(outcome.effect)} in units, n = {outcome.n}."]
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
    slope = f"{number(trend.slope)} a unit, {span(trend.slope_interval)}"
    if outcome.ratios:
        slope = f"{number(trend.slope_percent, ' %')} a unit, {span(trend.slope_interval_percent, ' %')}"
    return [
        f"Page's trend test: p = {number(trend.p_forward)} in the direction claimed, "
        f"{number(trend.p_reverse)} in reverse; t of per-seed slopes: {slope}, p = {number(trend.slope_p)}.",
        f"Means of the levels (Holm-adjusted p against the lowest level): {levels}.",
    ]


def title(verdict: Verdict) -> str:
    """``fixed_u_budget: SUPPORTED at scale cpu``."""
    return f"{verdict.claim}: {verdict.judgement.upper()}{verdict.label.removeprefix(verdict.judgement)}"


def implied_words(verdict: Verdict) -> str:
    """A claim, its verdict and what that implies: ``k = 1 is better than k → ∞. Contradicted: Table 4's ...``."""
    return f"{verdict.text} {verdict.primary.verdict.capitalize()}: {verdict.implies}"


def show(verdicts: Sequence[Verdict], flags: Sequence[str], console: Console, notes: Sequence[str] = ()) -> None:
    """Print verdicts: panels and tables in a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        console.print(plain(verdicts, flags, notes), markup=False, highlight=False, soft_wrap=True)
        return
    for verdict in verdicts:
        table = Table(*COLUMNS, box=None, header_style="bold", padding=(0, 1))
        for outcome in (*verdict.outcomes, *verdict.readings):
            table.add_row(*row(outcome), style="dim" if outcome.role == "secondary" else None)
        body = Group(Text(verdict.text, style="italic"), Text("\n".join(findings(verdict))), Text(), table)
        console.print(Panel(body, title=Text(title(verdict)), border_style=COLOURS.get(verdict.judgement, "yellow")))
    for flag in flags:
        console.print(Text(f"FLAG  {flag}", style="bold red"))
    for note in notes:
        console.print(Text(f"note: {note}"))
    for note in FOOTNOTES if verdicts else (NONE,):
        console.print(Text(note, style="dim"))


def plain(verdicts: Sequence[Verdict], flags: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Verdicts as plain text, one fact a line."""
    parts = []
    for verdict in verdicts:
        table = aligned([COLUMNS, *(row(outcome) for outcome in (*verdict.outcomes, *verdict.readings))])
        lines = [title(verdict), verdict.text, *findings(verdict), *table]
        parts.append("\n  ".join(lines))
    parts += [*(f"FLAG  {flag}" for flag in flags), *(f"note: {note}" for note in notes)]
    return "\n\n".join([*parts, *(FOOTNOTES if verdicts else (NONE,))])


def markdown(verdicts: Sequence[Verdict], flags: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Verdicts as Markdown."""
    parts = []
    for verdict in verdicts:
        table = markdown_table([COLUMNS, *(row(outcome) for outcome in (*verdict.outcomes, *verdict.readings))])
        facts = "\n".join(f"- {escaped(line)}" for line in findings(verdict))
        head = f"### {title(verdict)}\n\n> {escaped(verdict.text)}"
        parts.append(f"{head}\n\n{facts}\n\n" + "\n".join(table))
    said = [*(("Flag", flag) for flag in flags), *(("Note", note) for note in notes)]
    if said:
        parts.append("\n".join(f"- **{kind}:** {escaped(words)}" for kind, words in said))
    footnotes = [f"<sub>{note}</sub>" for note in FOOTNOTES] if verdicts else [NONE]
    return "\n\n".join([*parts, *footnotes]) + "\n"


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
