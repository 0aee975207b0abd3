"""``study retry``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli.backends import BackendChoice, open_backend
from studies.cli.filters import KindOpt, OneScaleOpt, OneSeedsOpt, OneVariantOpt, WhatArg, chosen
from studies.cli.options import (
    DEFAULT_HOME,
    AddressOpt,
    BackendName,
    BackendOpt,
    ClusterOpt,
    DetachOpt,
    HomeOpt,
    WorkersOpt,
)
from studies.cli.output import say
from studies.cli.running import complain, in_queue, run_jobs

if TYPE_CHECKING:
    from results.layout import Home
    from sweeps.jobs import Job
    from sweeps.retrying import Verdict
    from sweeps.selection import Filter
    from sweeps.standing import Work


def retry(
    what: WhatArg = None,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    seeds: OneSeedsOpt = None,
    kind: KindOpt = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Give up what was tried so often.")] = 3,
    force: Annotated[
        bool, typer.Option("--force", help="Also what was tried too often, or ends the same until something is fixed.")
    ] = False,
    workers: WorkersOpt = None,
    backend: BackendOpt = BackendName.LOCAL,
    address: AddressOpt = None,
    cluster: ClusterOpt = None,
    detach: DetachOpt = False,
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """Try again what failed, was preempted, cancelled or lost, and what waits for it. Earlier attempts are kept.

    What is stored counts, not the study files of today. An error that repeats itself (a diverging loss, data that are
    missing) is not tried again unless --force.
    """
    from results.layout import Home
    from studies.cli.store import ingest_new

    choice = BackendChoice(backend, workers, address, cluster, detach)
    asked, place = chosen(what, scale, variant, seeds, None, kind), Home(home)
    verdicts, missing = _verdicts(place, asked, limit, force)
    jobs = list(_jobs(verdicts))
    for line in _in_words(verdicts):
        say(line)
    if not jobs:
        say("nothing is to be tried again" + (f"; {missing} were never begun: study run" if missing else ""))
        sys.exit(1 if any(not one.again for one in verdicts) else 0)
    choice.check(place)
    with open_backend(choice, place, jobs) as start:
        outcome = run_jobs(start, jobs, choice)
    complain(outcome)
    ingest_new(place)
    if outcome.left:
        say(f"{in_queue(len(outcome.left))}; `study watch` shows them")
    sys.exit(130 if outcome.interrupted else 0 if outcome.complete or outcome.left else 1)


def _verdicts(home: Home, asked: Filter, limit: int, force: bool) -> tuple[list[Verdict], int]:
    """What did not end well; and how much of what is meant was never begun."""
    from results.stored import attempt_records
    from studies.cli.store import opened
    from sweeps.cancelling import ever_requested
    from sweeps.retrying import verdicts
    from sweeps.selection import select, stored_studies
    from sweeps.view import View

    with opened(home) as engine:
        selected = select(stored_studies(engine), asked)
        view = View(engine, home, selected)
        trajectories = set(view.open)
        found = view.look()
        attempts = attempt_records(engine, trajectories)

    def cancelled(work: Work) -> bool:
        return ever_requested(home, work.trajectory, work.kind)

    missing = {work.place for works in found for work in works if work.standing == "missing"}
    return verdicts(selected, found, attempts, cancelled, asked, limit, force), len(missing)


def _jobs(verdicts: Sequence[Verdict]) -> Iterator[Job]:
    """What is tried again and what waits for it, each job once, in order."""
    made: dict[tuple[object, ...], Job] = {}
    for one in verdicts:
        for job in one.work.jobs if one.again else ():
            made.setdefault((job.kind, job.trajectory, job.start_step, job.stop_step), job)
    yield from made.values()


def _in_words(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for one in verdicts:
        if one.cause is not None:
            reason = f": {one.reason}" if one.reason else ""
            word = "again" if one.again else "left"
            why = f" ({one.why})" if one.why else ""
            yield f"{word}: {one.work.name}: {one.cause}{reason}{why}"
    waiting = sum(one.cause is None for one in verdicts)
    if waiting:
        yield f"and {waiting} more that wait for these or were never begun"
