"""A study's latest run as the store holds it."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from meanflow_core.words import there_is
from reports.errors import NothingToReport, ReportError
from results.formats import FloorFile
from studies.arms import ema_note, expand_seed
from studies.schema import ResolvedStudy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from results.layout import Home
    from results.queries import RunRecord


@dataclass(frozen=True)
class Stored:
    """A run with its study and the evaluations of its configuration. ``command`` continues the run: of
    a variant, the one that was given, since it has the overrides."""

    run: RunRecord
    study: ResolvedStudy
    frame: pd.DataFrame
    protocols: dict[str, dict[str, Any]]
    chosen: str
    command: str


def notes_on(study: ResolvedStudy) -> list[str]:
    """What has to be known of a study's arms to read what is measured of them, a phrase each."""
    note = ema_note(expand_seed(study, study.seeds[0]))
    return [note] if note else []


def load(
    engine: Engine,
    home: Home,
    *,
    study: str,
    scale: str | None = None,
    variant: str | None = None,
    asked: str | None = None,
) -> Stored:
    """The latest run of a study (at a scale, if given) and what is measured of it.

    Raises: NothingToReport where there is no such run; ReportError where its configuration cannot be read.
    """
    from results.queries import evaluations, latest_run, protocols

    run = latest_run(engine, study=study, scale=scale, variant=variant)
    if run is None:
        at = f" at scale '{scale}'" if scale else ""
        of = f" (variant '{variant}')" if variant else ""
        command = run_command(asked or study, scale, variant)
        there = _there_are(engine, study, scale, variant)
        raise NothingToReport(f"no run of '{study}'{of}{at} in {home.root}{there}: run `{command}` first")
    command = shlex.join(run.command) if variant else run_command(asked or study, run.scale, None)
    resolved = resolved_config(run, command)
    frame = whole_arms(resolved, evaluations(engine, study=study, scale=run.scale, variant=variant))
    which = "" if scale else "the latest; no scale was given: "
    chosen = f"{which}run {run.run} at scale '{run.scale}'"
    return Stored(run, resolved, frame, with_floors(home, protocols(engine)), chosen, command)


def resolved_config(run: RunRecord, command: str | None = None) -> ResolvedStudy:
    """The study that a run has recorded; ``command`` runs it again. Raises: ReportError where this version cannot
    read it."""
    try:
        return ResolvedStudy.model_validate(run.config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        again = command or run_command(run.study, run.scale, run.variant)
        raise ReportError(
            f"the configuration of run {run.run} cannot be read by this version ({where}: {first['msg']}): "
            f"run `{again}` again; what is measured already is kept"
        ) from None


def with_floors(home: Home, protocols: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each protocol with its ``floor``, where the home or the store has it.

    Raises: ReportError for a file that is damaged.
    """
    found = {}
    for path in home.floors.glob("*.json"):
        try:
            found[path.stem] = FloorFile.model_validate_json(path.read_bytes()).value
        except ValidationError as error:
            raise ReportError(
                f"{path} is damaged: delete it, and run the study again ({error.errors()[0]['msg']})"
            ) from None
    return {key: {**p, "floor": found.get(key, p.get("floor"))} for key, p in protocols.items()}


def _there_are(engine: Engine, study: str, scale: str | None, variant: str | None) -> str:
    """The variants or scales of a study that were run, where none is what was asked for."""
    from results.stored import stored_runs

    variants = {run.variant for run in stored_runs(engine) if run.study == study}
    if variant and variant not in variants:
        return there_is(variant, sorted(filter(None, variants)))
    return scales_there(engine, scale, [study])


def scales_there(engine: Engine, scale: str | None, studies: Collection[str] | None = None) -> str:
    """What is said of a scale at which nothing (of some ``studies``) was run: at which others something was."""
    from results.stored import stored_runs

    scales = {run.scale for run in stored_runs(engine) if studies is None or run.study in studies}
    return there_is(scale, sorted(scales)) if scale and scales and scale not in scales else ""


def whole_arms(study: ResolvedStudy, frame: pd.DataFrame) -> pd.DataFrame:
    """Without the arms that an adaptive search has cut short: reports compare ends, and theirs is another."""
    short = {(panel, arm) for panel in study.panels for arm in study.cut_short(panel)}
    if not short:
        return frame
    kept = [pair not in short for pair in zip(frame["panel"], frame["arm"], strict=True)]
    return frame[kept].reset_index(drop=True)


def declared(engine: Engine, study: str, scale: str | None, variant: str | None) -> set[str]:
    """Which of ``figure``, ``table`` and ``sweep`` the latest run of a study declares; none where there is no run."""
    from results.queries import latest_run

    run = latest_run(engine, study=study, scale=scale, variant=variant)
    return {kind for kind in ("figure", "table", "sweep") if run is not None and run.config.get(kind)}


def run_command(asked: str, scale: str | None, variant: str | None) -> str:
    """What runs a study: ``study run ./mine.yaml --scale cpu``; a variant also needs its overrides."""
    parts = ["study run", shlex.quote(asked), f"--scale {scale}" if scale else ""]
    parts.append(f"-o ... --as {shlex.quote(variant)}" if variant else "")
    return " ".join(filter(None, parts))
