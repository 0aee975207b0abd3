"""Reports from the store: the only module here that asks `results.queries`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from reports.errors import NothingToReport, ReportError
from reports.ledger import append_verdicts, read_verdicts
from reports.verdicts import Verdict, flags
from studies.schema import ResolvedStudy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from results.layout import Home
    from results.queries import RunRecord


@dataclass(frozen=True)
class FigureReport:
    """Files written, what is missing (one phrase an arm), the run, and in words which was chosen."""

    files: list[Path]
    missing: list[str]
    run: RunRecord
    chosen: str


@dataclass(frozen=True)
class ClaimsReport:
    """Verdicts in the order declared, what was changed after one was seen, the run, and which was chosen."""

    verdicts: list[Verdict]
    flags: list[str]
    run: RunRecord
    chosen: str


@dataclass(frozen=True)
class Stored:
    """A run with its study and the evaluations of its configuration."""

    run: RunRecord
    study: ResolvedStudy
    frame: pd.DataFrame
    protocols: dict[str, dict[str, Any]]
    chosen: str


def build_figure(
    engine: Engine, home: Home, *, study: str, scale: str | None = None, variant: str | None = None, out: Path
) -> FigureReport:
    """Draw a study's figure from what is stored and write it below ``out``.

    Raises: NothingToReport where there is no run or no point of the figure is measured; ReportError.
    """
    from reports.curves import draw_curves
    from reports.files import save_figure

    stored = load(engine, home, study=study, scale=scale, variant=variant)
    drawing = draw_curves(stored.study, stored.frame, stored.protocols, stored.run, variant)
    stem = "_".join(filter(None, (stored.study.study, stored.run.scale, variant)))
    return FigureReport(save_figure(drawing, out, stem), drawing.missing, stored.run, stored.chosen)


def build_claims(
    engine: Engine,
    home: Home,
    *,
    study: str,
    scale: str | None = None,
    variant: str | None = None,
    record: bool = True,
) -> ClaimsReport:
    """Judge a study's claims from what is stored; with ``record`` append new verdicts to the home's verdicts.

    Raises: NothingToReport where there is no run or no point is measured; ReportError.
    """
    from reports.claims import judge
    from results.queries import latest_run

    stored = load(engine, home, study=study, scale=scale, variant=variant)
    if not stored.frame["value"].notna().any():
        raise NothingToReport(
            f"run {stored.run.run} of '{study}' at scale '{stored.run.scale}' has no measured point yet: "
            f"continue it with `study run {study} --scale {stored.run.scale}`"
        )
    paper = latest_run(engine, study=study, scale="paper", variant=variant)
    verdicts = judge(
        stored.study,
        stored.frame,
        stored.protocols,
        run=stored.run,
        variant=variant,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        paper_run=paper.run if paper else None,
    )
    previous = read_verdicts(home.verdicts)
    said = flags(previous, verdicts)
    if record:
        append_verdicts(home.verdicts, previous, verdicts)
    return ClaimsReport(verdicts, said, stored.run, stored.chosen)


def load(engine: Engine, home: Home, *, study: str, scale: str | None = None, variant: str | None = None) -> Stored:
    """The latest run of a study (at a scale, if given) and what is measured of it.

    Raises: NothingToReport where there is no such run; ReportError where its configuration cannot be read.
    """
    from results.queries import evaluations, latest_run, protocols

    run = latest_run(engine, study=study, scale=scale, variant=variant)
    if run is None:
        at = f" at scale '{scale}'" if scale else ""
        of = f" (variant '{variant}')" if variant else ""
        option = f" --scale {scale}" if scale else ""
        raise NothingToReport(f"no run of '{study}'{of}{at} in {home.root}: run `study run {study}{option}` first")
    try:
        resolved = ResolvedStudy.model_validate(run.config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ReportError(
            f"the configuration of run {run.run} cannot be read by this version ({where}: {first['msg']}): "
            f"run `study run {study} --scale {run.scale}` again; what is measured already is kept"
        ) from None
    frame = evaluations(engine, study=study, scale=run.scale, variant=variant)
    which = "" if scale else "the latest; no scale was given: "
    chosen = f"{which}run {run.run} at scale '{run.scale}'"
    return Stored(run, resolved, frame, protocols(engine), chosen)
