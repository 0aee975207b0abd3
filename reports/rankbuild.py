"""The ranking of a study's sweep from the store to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reports.errors import NothingToReport
from reports.frames import readings
from reports.published import published
from reports.ranking import SweepRanking, rank_sweep
from reports.rankingtext import markdown, records
from reports.stored import load
from reports.versions import DECLARED, TRUTH

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from results.layout import Home
    from results.queries import RunRecord


@dataclass(frozen=True)
class RankingReport:
    """Files written, what is missing, the run, in words which was chosen, and the rankings: by the primary metric and,
    where it is measured, by the truth."""

    files: list[Path]
    missing: list[str]
    run: RunRecord
    chosen: str
    rankings: list[SweepRanking]


def build_ranking(
    engine: Engine,
    home: Home,
    *,
    study: str,
    scale: str | None = None,
    variant: str | None = None,
    out: Path,
    asked: str | None = None,
) -> RankingReport:
    """Rank the points of a study's sweep from what is stored, and write it below ``out`` as ``<stem>_ranking.md`` and
    ``.csv``.

    Raises: NothingToReport where there is no run, or no seed with all points that are measured at all; ReportError.
    """
    stored = load(engine, home, study=study, scale=scale, variant=variant, asked=asked)
    resolved = stored.study
    measured = {reading.metric for reading in readings(resolved, stored.frame, stored.protocols)}
    versions = [DECLARED, TRUTH] if resolved.truth in measured - {resolved.primary} else [DECLARED]
    ranked = [rank_sweep(resolved, stored.frame, stored.protocols, version) for version in versions]
    if not ranked[0].measured:
        raise NothingToReport(
            f"run {stored.run.run} of '{study}' at scale '{stored.run.scale}' has no seed with all points of its sweep "
            f"yet: continue it with `{stored.command}`"
        )
    stem = "_".join(filter(None, (resolved.study, stored.run.scale, variant, "ranking")))
    texts = {
        f"{stem}.md": markdown(ranked),
        f"{stem}.csv": pd.DataFrame(records(ranked)).to_csv(index=False, lineterminator="\n"),
    }
    with published(out, stem) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="")
    missing = [f"{panel.panel} {arm}: no value at its end" for panel in ranked[0].panels for arm in panel.unmeasured]
    return RankingReport([out / name for name in texts], missing, stored.run, stored.chosen, ranked)
