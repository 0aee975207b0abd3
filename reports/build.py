"""Figures, verdicts and implications from the store."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from meanflow_core.words import listed
from reports.errors import NothingToReport
from reports.ledger import new_lines, read_verdicts, record_verdicts
from reports.stored import Stored, load, notes_on, run_command, scales_there
from reports.verdicts import Verdict, flags
from results.owner import is_writable
from studies.figure import Bars
from studies.loader import builtin_names

READINGS = "readings"  # what the names of the studies begin with that try every reading of the paper

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from reports.drawing import Drawing, Subject
    from reports.implications import SumUp
    from reports.versions import Version
    from results.layout import Home
    from results.queries import RunRecord


@dataclass(frozen=True)
class FigureReport:
    """Files written (the figure's, then those of its other versions), what is missing (one phrase an arm), the run, in
    words which was chosen, and a caption a version."""

    files: list[Path]
    missing: list[str]
    run: RunRecord
    chosen: str
    captions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClaimsReport:
    """Verdicts in the order declared, what was changed after one was seen, the run, which was chosen, and what has to
    be known of its arms."""

    verdicts: list[Verdict]
    flags: list[str]
    run: RunRecord
    chosen: str
    notes: list[str]


@dataclass(frozen=True)
class ImplicationsReport:
    """Implications in the order declared, what was changed after a verdict was seen, and which scale was chosen."""

    sums: list[SumUp]
    flags: list[str]
    scale: str
    chosen: str


def build_figure(
    engine: Engine,
    home: Home,
    *,
    study: str,
    scale: str | None = None,
    variant: str | None = None,
    metric: str | None = None,
    nfe: int | None = None,
    figure: int | None = None,
    out: Path,
    asked: str | None = None,
) -> FigureReport:
    """Draw a study's figure from what is stored, and write it below ``out``: as declared with its truth version and its
    layers, where they are measured, or by another metric alone.

    ``figure`` is the number of the paper's figure asked for, where the study draws several that differ in panels.
    ``asked`` is what the user called the study, for the commands that messages propose.

    Raises: NothingToReport where there is no run or no point of the figure is measured; ReportError.
    """
    from reports.files import save_figure
    from reports.versions import Version

    stored = load(engine, home, study=study, scale=scale, variant=variant, asked=asked)
    subject, part = subject_of(engine, home, stored, figure)
    drawings, missing = _drawn(engine, subject, Version("other", metric, nfe) if metric or nfe else None)
    stem = "_".join(filter(None, (stored.study.study, stored.run.scale, variant, part)))
    files = [path for suffix, drawn in drawings.items() for path in save_figure(drawn, out, stem + suffix)]
    captions = [drawn.caption for drawn in drawings.values()]
    return FigureReport(files, missing, stored.run, stored.chosen, captions)


def subject_of(engine: Engine, home: Home, stored: Stored, figure: int | None = None) -> tuple[Subject, str]:
    """What is drawn of a stored study (its panels of one ``figure`` of the paper, or all), and what the names of its
    files end in. Raises: ReportError for a panel that the study lacks."""
    from reports.drawing import Subject
    from reports.figures import of_number

    subject = Subject(
        stored.study, stored.frame, stored.protocols, stored.run, stored.run.variant, command=stored.command,
        artefacts=_artefacts(engine, home, stored),
    )  # fmt: skip
    return of_number(subject, figure)


def _drawn(engine: Engine, subject: Subject, other: Version | None) -> tuple[dict[str, Drawing], list[str]]:
    """Drawings by the ending of their files' names, and what is missing of them: another version alone, or the figure
    as declared with what stands beside it."""
    from reports.figures import draw

    if other:
        drawings, beside = {other.suffix: draw(replace(subject, version=other))}, []
    else:
        drawings = {"": draw(subject)}
        beside = _draw_beside(drawings, engine, subject)
    missing = [*(phrase for drawn in drawings.values() for phrase in drawn.missing), *beside]
    return drawings, list(dict.fromkeys(missing))


def _artefacts(engine: Engine, home: Home, stored: Stored) -> dict[str, Path]:
    """The files of pictures that the study's evaluations have kept, by key."""
    from results.queries import artefacts

    kept = {m.metric_label for m in stored.study.measure if m.metric.params.pictures}
    found = stored.frame["evaluation"][stored.frame["metric"].isin(kept)]
    return artefacts(engine, home, list(found.unique())) if kept else {}


def _draw_beside(drawings: dict[str, Drawing], engine: Engine, subject: Subject) -> list[str]:
    """Add what stands beside a figure where it is measured (its truth version, and the cosines of layers behind its
    bars), and return what is missing of it."""
    from reports.figures import draw, truth_measured
    from reports.layers import draw_layers, layer_points
    from reports.versions import TRUTH
    from results.queries import training_metrics

    missing = []
    if truth_measured(subject):
        try:
            drawings[TRUTH.suffix] = draw(replace(subject, version=TRUTH))
        except NothingToReport:
            missing.append("the truth version: all points")
    figure = subject.study.figure
    if isinstance(figure, Bars) and figure.metrics:
        points = layer_points(subject, figure)
        logged = training_metrics(engine, list(points["trajectory"].unique()))
        if layers := draw_layers(subject, figure, points, logged):
            drawings["_layers"] = layers
    return missing


def build_claims(
    engine: Engine,
    home: Home,
    *,
    study: str,
    scale: str | None = None,
    variant: str | None = None,
    record: bool = True,
    asked: str | None = None,
) -> ClaimsReport:
    """Judge a study's claims from what is stored; with ``record`` append new verdicts to the home's, or
    flag that they are not recorded where it is read-only.

    Raises: NothingToReport where there is no run or no point is measured; ReportError.
    """
    stored = load(engine, home, study=study, scale=scale, variant=variant, asked=asked)
    if not stored.frame["value"].notna().any():
        raise NothingToReport(
            f"run {stored.run.run} of '{study}' at scale '{stored.run.scale}' has no measured point yet: "
            f"continue it with `{stored.command}`"
        )
    verdicts = _judged(engine, stored, variant)
    if variant is None:
        verdicts = _settled(engine, home, stored, verdicts)
    recording = record and is_writable(home)
    previous = record_verdicts(home.verdicts, verdicts) if recording else read_verdicts(home.verdicts)
    flagged = flags(previous, verdicts)
    if record and not recording and new_lines(previous, verdicts):
        flagged.append(f"not recorded: {home.root} is read-only")
    return ClaimsReport(verdicts, flagged, stored.run, stored.chosen, notes_on(stored.study))


def _judged(engine: Engine, stored: Stored, variant: str | None) -> list[Verdict]:
    from reports.claims import judge
    from results.queries import latest_run

    paper = latest_run(engine, study=stored.study.study, scale="paper", variant=variant)
    return judge(
        stored.study,
        stored.frame,
        stored.protocols,
        run=stored.run,
        variant=variant,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        paper_run=paper.run if paper else None,
    )


def _settled(engine: Engine, home: Home, stored: Stored, verdicts: list[Verdict]) -> list[Verdict]:
    """Verdicts with what the built-in studies of readings have found at the same scale of the same claims."""
    from results.queries import latest_run

    found: dict[str, Verdict] = {}
    for name in builtin_names():
        if name.startswith(READINGS) and latest_run(engine, study=name, scale=stored.run.scale):
            other = load(engine, home, study=name, scale=stored.run.scale)
            of = {claim.id: claim.of for claim in other.study.claims if claim.of}
            found |= {of[v.claim]: v for v in _judged(engine, other, None) if v.claim in of and v.primary.n > 1}
    by_name = {verdict.claim: found.get(f"{verdict.study}/{verdict.claim}") for verdict in verdicts}
    return [
        verdict
        if (all_of_them := by_name[verdict.claim]) is None
        else verdict.model_copy(
            update={
                "settled": all_of_them.judgement,
                "settled_words": f"By what the paper leaves open ({all_of_them.study}/{all_of_them.claim}): "
                f"{all_of_them.readings_words}.",
            }
        )
        for verdict in verdicts
    ]


def build_implications(
    engine: Engine, home: Home, *, scale: str | None = None, record: bool = True
) -> ImplicationsReport:
    """Sum up the paper's implications from the verdicts on their claims, judged from what is stored at one scale; by
    default that of the latest run of a study concerned.

    Raises: NothingToReport where none of the studies concerned has a measured point at the scale; ReportError.
    """
    from reports.implications import sum_up
    from results.queries import latest_run
    from studies.implications import load_implications

    implications = load_implications()
    studies = list(dict.fromkeys(name.split("/")[0] for one in implications for name in one.claims))
    latest = [run for study in studies if (run := latest_run(engine, study=study, scale=scale))]
    chosen = max(latest, key=lambda run: run.run).scale if latest else scale
    found: dict[str, ClaimsReport] = {}
    for study in studies if chosen else ():
        with contextlib.suppress(NothingToReport):
            found[study] = build_claims(engine, home, study=study, scale=chosen, record=record)
    if chosen is None or not found:
        at = f" at scale '{scale}'" if scale else ""
        there, command = scales_there(engine, scale, studies), run_command(studies[0], scale, None)
        raise NothingToReport(
            f"nothing of {listed(studies)} is measured{at} in {home.root}{there}: run `{command}` first"
        )
    verdicts = {study: report.verdicts for study, report in found.items()}
    sums = [sum_up(one, chosen, verdicts) for one in implications]
    said = f"scale '{chosen}'" + ("" if scale else ", that of the latest run; no scale was given")
    flagged = list(dict.fromkeys(flag for report in found.values() for flag in report.flags))
    return ImplicationsReport(sums, flagged, chosen, said)
