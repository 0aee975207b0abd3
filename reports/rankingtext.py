"""The ranking of a sweep in words: for the terminal, as Markdown, and as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reports.claimwords import MEANINGLESS
from reports.ranking import PanelRanking, Ranked, SweepRanking
from reports.text import aligned, escaped, markdown_table, number, span
from reports.words import metric_words, ranges
from studies.sweep import Drawn

NOTE = (
    "Ranked by the mean at the end of each arm, over the seeds that all points have; intervals are Student's t at "
    "95 %. Differences to the best are paired by seed: log ratios, said in %, or, where values can be 0 or negative, "
    "in the metric's units. Their p is Holm-adjusted for all pairs of points, since which "
    "one is best is found from the same seeds. Arms without a rank are no points of the sweep and stand beside it."
)


def heading(ranking: SweepRanking) -> str:
    """``Points of k_schedule at scale cpu by 1-NFE Fréchet distance, pixel space (frechet_pixel)``."""
    study, reading = ranking.study, ranking.reading
    return f"Points of {study.study} at scale {study.scale} by {metric_words(reading)} ({reading.metric})"


def table(ranking: SweepRanking, panel: PanelRanking) -> list[tuple[str, ...]]:
    """One panel, best first, below its head; without the paper's values where there are none, and without remarks where
    numbers mean nothing."""
    head = ("rank", "point", "n", "mean", "95 % interval", "minus the best", "interval", "p (Holm)", "remark")
    rows = [head, *(_row(row, "" if ranking.study.meaningless else row.remark) for row in panel.rows)]
    if not any(row.paper is not None for row in panel.rows):
        return rows
    beside = [(ranking.paper, "its rank"), *(_paper(row) for row in panel.rows)]
    return [(*row, *paper) for row, paper in zip(rows, beside, strict=True)]


def _row(row: Ranked, remark: str) -> tuple[str, ...]:
    difference = (number(row.difference), span(row.difference_interval), number(row.p_holm))
    if row.percent is not None:
        difference = (number(row.percent, " %"), span(row.percent_interval, " %"), number(row.p_holm))
    if row.rank == 1:
        difference = ("–", "–", "–")
    rank = "" if row.rank is None else str(row.rank)
    return (rank, row.label, str(row.n), f"{row.mean:.4g}", span(row.interval), *difference, remark)


def _paper(row: Ranked) -> tuple[str, str]:
    return ("–" if row.paper is None else f"{row.paper:.2f}"), ("" if row.paper_rank is None else str(row.paper_rank))


def remarks(panel: PanelRanking) -> Iterator[str]:
    """What is left out of a panel's ranking."""
    if panel.unmeasured:
        yield f"Not measured: {', '.join(panel.unmeasured)}."
    if panel.short:
        cut = ", ".join(f"{arm} ({_how_short(drawn)})" for arm, drawn in panel.short.items())
        yield f"Not ranked, since only values of the same epoch are compared: {cut}."
    lacking = "; ".join(f"{arm} lacks {ranges(seeds)}" for arm, seeds in panel.lacking.items())
    if panel.rows and lacking:
        yield f"Seeds left out, since not all points have them: {ranges(panel.incomplete)} ({lacking})."
    if not panel.rows and lacking:
        yield f"No seed has all points: {lacking}."


def _how_short(drawn: Drawn) -> str:
    how = {"failed": "failed after", "active": "on its way to"}.get(drawn.state, "stopped at")
    return f"{how} epoch {drawn.until_epoch}"


def plain(rankings: Sequence[SweepRanking]) -> str:
    """Rankings as plain text."""
    parts = []
    for ranking in rankings:
        parts.append(heading(ranking) + (f"\n{MEANINGLESS[0].upper()}{MEANINGLESS[1:]}." * ranking.study.meaningless))
        for panel in ranking.panels:
            lines = aligned(table(ranking, panel)) if panel.rows else []
            parts.append("\n  ".join([f"{panel.panel}: {panel.title}", *lines, *remarks(panel)]))
    return "\n\n".join([*parts, NOTE])


def markdown(rankings: Sequence[SweepRanking]) -> str:
    """Rankings as Markdown."""
    parts = []
    for ranking in rankings:
        parts.append(f"### {escaped(heading(ranking))}")
        parts += [f"**{MEANINGLESS[0].upper()}{MEANINGLESS[1:]}.**"] if ranking.study.meaningless else []
        for panel in ranking.panels:
            parts.append(f"**{escaped(panel.panel)}**: {escaped(panel.title)}")
            parts += ["\n".join(markdown_table(table(ranking, panel)))] if panel.rows else []
            parts += [escaped(remark) for remark in remarks(panel)]
    return "\n\n".join([*parts, f"<sub>{NOTE}</sub>"]) + "\n"


def records(rankings: Sequence[SweepRanking]) -> list[dict[str, Any]]:
    """One record an arm and metric, with the attributes of the sweep's space."""
    return [
        {
            "study": ranking.study.study, "scale": ranking.study.scale, "metric": ranking.reading.metric,
            "nfe": panel.reading.nfe, "protocol": panel.reading.protocol, "panel": panel.panel, "rank": row.rank,
            "arm": row.arm, **_space(ranking, row), "n": row.n, "mean": row.mean,
            **_bounds("mean", row.interval), "difference": row.difference,
            **_bounds("difference", row.difference_interval), "percent": row.percent,
            **_bounds("percent", row.percent_interval), "p_holm": row.p_holm,
            "remark": row.remark, "meaningless": ranking.study.meaningless,
            "paper": row.paper, "paper_rank": row.paper_rank,
        }
        for ranking in rankings for panel in ranking.panels for row in panel.rows
    ]  # fmt: skip


def _space(ranking: SweepRanking, row: Ranked) -> dict[str, Any]:
    names = ranking.study.sweep.space if ranking.study.sweep else {}
    return {name: row.attributes.get(name) for name in names}


def _bounds(name: str, interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}
