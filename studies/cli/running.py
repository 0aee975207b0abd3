"""``study run`` and ``study verify``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meanflow_core.words import counted
from studies.cli.backends import BackendChoice, Start, open_backend, print_scripts
from studies.cli.options import (
    DEFAULT_HOME,
    AddressOpt,
    BackendName,
    BackendOpt,
    ClusterOpt,
    DetachOpt,
    DryRunOpt,
    HomeOpt,
    JsonOpt,
    OverrideOpt,
    ScaleOpt,
    SeedsOpt,
    StudiesArg,
    StudyArg,
    VariantOpt,
    WorkersOpt,
)
from studies.cli.output import say
from studies.cli.stopping import exit_status, stopping
from studies.errors import StudyError

if TYPE_CHECKING:
    from results.layout import Home
    from studies.schema import ResolvedStudy
    from sweeps.backend import Failure, Outcome
    from sweeps.jobs import Job
    from sweeps.session import Session

SHOWN_BLOCKED = 8

VerifiedOverrideOpt = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="KEY=VALUE", help="Change a setting, e.g. -o device=cpu."),
]


def run(
    studies: StudiesArg,
    scale: ScaleOpt = None,
    seeds: SeedsOpt = None,
    override: OverrideOpt = None,
    variant: VariantOpt = None,
    workers: WorkersOpt = None,
    backend: BackendOpt = BackendName.LOCAL,
    address: AddressOpt = None,
    cluster: ClusterOpt = None,
    detach: DetachOpt = False,
    dry_run: DryRunOpt = False,
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """Train and measure what a study still lacks. Running again continues; nothing is computed twice."""
    from studies.cli.choose import choose

    choice = BackendChoice(backend, workers, address, cluster, detach, dry_run)
    chosen, said = choose(studies, scale, seeds, override or [], variant, home=home)
    sys.exit(execute(chosen, said, studies, variant, choice, home))


def execute(
    chosen: list[ResolvedStudy], said: str, studies: list[str], variant: str | None, choice: BackendChoice, home: Path
) -> int:
    """Train and measure what resolved studies still lack, which the user called ``studies``. Returns: the exit status.

    Raises: StudyError where they cannot run here.
    """
    from results.layout import Home
    from studies.cli.store import evaluated_in, ingest_new, new_or_nothing
    from sweeps.backend import Outcome
    from sweeps.floors import complete_floors
    from sweeps.session import open_session

    session, place = open_session(chosen, variant), Home(home)
    jobs = session.jobs(session.inventory(place, evaluated_in(home)))
    if choice.dry_run:
        print_scripts(choice.profile(), place, jobs)
        return 0
    say(said)
    try:
        with new_or_nothing(place), ExitStack() as stack:
            start: Start | None = None
            if jobs:
                if choice.name is BackendName.LOCAL:  # its workers import what they need while we check
                    start = stack.enter_context(open_backend(choice, place, jobs))
                ready(session, studies, place, choice)
            record(session, place, variant)
            say(_todo(session, jobs))
            outcome = Outcome()
            if jobs:
                outcome = run_jobs(start or stack.enter_context(open_backend(choice, place, jobs)), jobs, choice)
    except KeyboardInterrupt as asked:  # before there was anything to stop, or for the second time
        say("stopped at once; what was saved is kept. Run the same command again to continue")
        return exit_status(asked)
    complain(outcome)
    ingest_new(place)  # what the workers left
    for problem in complete_floors(place, session.protocols()) if outcome.complete else ():
        say(f"note: {problem}")
    return conclude(outcome, studies, chosen, variant)


def ready(session: Session, studies: list[str], home: Home, choice: BackendChoice, proofs: bool = True) -> None:
    """Raises: StudyError where a session that the user called ``studies`` cannot run, or its backend is not there;
    ``proofs``, where a trainer's promise was not verified."""
    from studies.cli.choose import cannot_run
    from sweeps.preflight import preflight

    if problems := preflight(session, home, choice.elsewhere, proofs):
        raise cannot_run(studies, session.studies[0].scale, problems)
    choice.check(home)


def record(session: Session, home: Home, variant: str | None) -> None:
    from studies.cli.store import take_store
    from sweeps.provenance import collect
    from sweeps.runs import record_run

    take_store(home)  # before anything is trained
    provenance = collect()
    for study in session.studies:
        record_run(home, study, session.arms_of(study), variant, ["study", *sys.argv[1:]], provenance)


def _todo(session: Session, jobs: list[Job]) -> str:
    segments = sum(job.kind == "train" for job in jobs)
    evaluations = sum(len(job.evaluations) for job in jobs)
    there_s, there_e = session.tree.segments(), session.tree.evaluations()
    if not jobs:
        return f"everything is there already: {_work(there_s, there_e)}; nothing to compute"
    have = _work(max(0, there_s - segments), there_e - evaluations)
    return f"to do: {_work(segments, evaluations)}; already there: {have}"


def _work(segments: int, evaluations: int) -> str:
    return f"{counted(segments, 'segment')} and {counted(evaluations, 'evaluation')}"


def run_jobs(start: Start, jobs: list[Job], choice: BackendChoice) -> Outcome:
    """Execute jobs on a backend that is open, showing progress, until they end or Ctrl-C, or until nobody reads the
    output any more, which stops as cleanly."""
    from studies.cli.progress import progress

    watcher = progress(jobs, redrawn=choice.name is not BackendName.INLINE)
    backend = start(jobs, watcher)
    watcher.unheard = backend.stop
    with watcher, stopping(backend, watcher.say):
        return backend.run()


def complain(outcome: Outcome) -> None:
    """Say what failed, why, and what could not start because of it."""
    for failure in outcome.failures:
        say(f"\nFAILED {failure.job.name}: {failure.reason}")
        if tail := failure.tail():
            say("  last lines of its log:")
            say("\n".join(f"  | {line}" for line in tail.splitlines()))
        if failure.log:
            say(f"  log: {failure.log}")
    if outcome.blocked:
        jobs = counted(len(outcome.blocked), "job")
        say(f"\nblocked, since what they start from or measure failed or is missing: {jobs}")
        say("\n".join(f"  - {job.name}" for job in outcome.blocked[:SHOWN_BLOCKED]))
        if len(outcome.blocked) > SHOWN_BLOCKED:
            say(f"  ... and {len(outcome.blocked) - SHOWN_BLOCKED} more")


def in_queue(jobs: int) -> str:
    """How many jobs a cluster goes on with."""
    return f"{counted(jobs, 'job')} {'is' if jobs == 1 else 'are'} in SLURM's queue"


def conclude(outcome: Outcome, studies: list[str], chosen: list[ResolvedStudy], variant: str | None) -> int:
    """Say how it ended and what comes next. Returns: the exit status."""
    if outcome.left:
        say(f"{in_queue(len(outcome.left))}. Run the same command again to follow")
        return 130 if outcome.interrupted else 0
    if outcome.interrupted:
        say("stopped; what was trained is saved. Run the same command again to continue")
        return 130
    if not outcome.complete:
        say(f"{next_step(outcome.failures)}; nothing that is done will be computed again")
        return 1
    suffix = f" --as {variant}" if variant else ""
    for name, study in zip(studies, chosen, strict=True):
        claims = f"   and   study claims {name}{suffix}" if study.claims else "   (this run declares no claims)"
        say(f"done. Next: study report {name}{suffix}{claims}")
    return 0


def next_step(failures: Sequence[Failure]) -> str:
    """What to do about failures: some end the same until what they name is changed."""
    from sweeps.causes import VAIN, cause_of_reason

    vain = sum(cause_of_reason(failure.reason) in VAIN for failure in failures)
    if not vain:
        return "run the same command again to retry"
    which = (
        "this failure"
        if len(failures) == 1
        else "these failures"
        if vain == len(failures)
        else f"{vain} of these failures"
    )
    return f"run the same command again once what it names is fixed; until then {which} will repeat"


def verify(
    study: StudyArg,
    scale: ScaleOpt = None,
    override: VerifiedOverrideOpt = None,
    first: Annotated[int, typer.Option("--first", min=1, help="n: steps before the restore.")] = 25,
    second: Annotated[int, typer.Option("--second", min=1, help="m: steps after it.")] = 25,
    stored: Annotated[
        int, typer.Option("--stored", min=0, metavar="N", help="Also train N finished segments of the home again.")
    ] = 0,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Train n + m steps in one go, and n, save, restore, m; compare bitwise. Uses every dynamics of the study.

    A trainer of your own that promises to resume exactly is run only in a home where it has passed this."""
    from results.layout import Home
    from studies.cli.choose import choose
    from studies.cli.output import print_json
    from sweeps.program.process import ProgramError
    from sweeps.session import open_session
    from sweeps.verify import verify_session, verify_stored

    chosen, said = choose([study], scale, None, override or [], "verified" if override else None, home=home)
    session = open_session(chosen)
    ready(session, [study], Home(home), BackendChoice(BackendName.INLINE), proofs=False)  # it is what proves
    try:
        dynamics = verify_session(session, Home(home), first, second)
        segments = verify_stored(session, Home(home), stored)
    except ProgramError as error:
        raise StudyError(str(error)) from None
    if len(segments) < stored:
        raise StudyError(
            f"{home} holds {counted(len(segments), 'finished segment')} of {study} at scale {chosen[0].scale}"
        )
    if json:
        record = {"study": chosen[0].study, "scale": chosen[0].scale, "first": first, "second": second}
        print_json({**record, "dynamics": dynamics, "stored": segments})
    else:
        say(said)
        if not dynamics:
            say("nothing to verify: the trainer of this study does not promise to resume exactly")
        for result in dynamics:
            say(f"{result['stages']}: {first} + {second} steps on {result['device']}: {_equality(result)}")
        for result in segments:
            say(f"stored {result['segment']}, on {result['device']}: {_equality(result)}")
    if not all(result["equal"] for result in [*dynamics, *segments]):
        sys.exit(1)


def _equality(result: dict[str, Any]) -> str:
    return "bitwise equal" if result["equal"] else f"DIFFERS in {', '.join(result['differing'][:5])}"
