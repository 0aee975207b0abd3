"""``study audit``: some arms of committed results trained again, and every value compared."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from meanflow_core.words import counted
from studies.cli.backends import BackendChoice, default_workers, open_backend
from studies.cli.options import BackendName, WorkersOpt, place
from studies.cli.output import say
from studies.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Engine

    from reports.audit import Pair, Value
    from results.layout import Home
    from sweeps.jobs import Job
    from sweeps.session import Session


@dataclass(eq=False)
class _Drawn:
    """A pair that was drawn: why its values need not be equal here (``differing``), the session that trains it, and
    what came of it; or the ``problem`` that stands in the way."""

    pair: Pair
    frame: pd.DataFrame
    differing: list[str]
    session: Session | None = None
    problem: str = ""
    failed: bool = False
    values: list[Value] = field(default_factory=list)

    @property
    def exactly(self) -> bool:
        """Whether its values must be equal."""
        return not self.differing


def audit(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            parser=place,
            help="A folder that `study results --all` wrote, a CSV in it, or a file that `study bundle` wrote.",
        ),
    ],
    sample: Annotated[int, typer.Option("--sample", min=1, metavar="N", help="How many arms and seeds.")] = 12,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.0, help="Begin nothing after so many minutes; what was begun is ended.")
    ] = 30.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which are drawn: another seed draws others.")] = 0,
    workers: WorkersOpt = None,
    inline: Annotated[bool, typer.Option("--inline", help="Train in this process, one job after another.")] = False,
    home: Annotated[
        Path | None,
        typer.Option("--home", parser=place, metavar="PATH", help="Keep what is trained in this new folder."),
    ] = None,
) -> None:
    """Train arms and seeds drawn at random from published results again, from nothing, and compare every value.

    On the processor and with the versions of the results it must be equal to rounding; elsewhere it must be equal, or
    lie in the 95 % prediction interval of the other seeds. Exit status 1: one is not, more are outside than chance
    allows, or training failed."""
    from reports.audit import draw, pairs_of
    from results.layout import Home

    choice = BackendChoice(BackendName.INLINE if inline else BackendName.LOCAL, workers)
    if home:
        _check_new(home)
    with ExitStack() as stack:
        engine = stack.enter_context(_opened(data))
        frames = _frames(engine)
        pairs = [pair for frame in frames.values() for pair in pairs_of(frame)]
        if not pairs:
            raise StudyError(f"{data} holds no measured value of a study without a variant")
        chosen = draw(pairs, sample, seed)
        drawn = [_prepared(engine, frames[pair.study, pair.scale], pair) for pair in chosen]
        say(f"drawn: {len(chosen)} of {counted(len(pairs), 'arm and seed', 'arms and seeds')} (--seed {seed})")
        aside = None if home else stack.enter_context(tempfile.TemporaryDirectory(prefix="study-audit-"))
        interrupted = _train(engine, Home(home or Path(str(aside))), drawn, choice, minutes)
        status = _report(drawn, data)
    sys.exit(130 if interrupted else status)


@contextmanager
def _opened(data: Path) -> Iterator[Engine]:
    """The store that is audited, of committed results or of a bundle, which is taken into a home for the while.

    Raises: StoreError.
    """
    if data.is_dir() or data.suffix == ".csv":
        from results.committed import as_store, read

        engine = as_store(read(data))
        try:
            yield engine
        finally:
            engine.dispose()
        return
    from results.importing import take
    from results.layout import Home
    from studies.cli.store import created
    from sweeps.lease import holding

    with tempfile.TemporaryDirectory(prefix="study-audit-") as folder:
        there = Home(Path(folder) / "home")
        take(data, there, lambda trajectory: holding(*trajectory.leases))
        with created(there) as engine:
            yield engine


def _check_new(home: Path) -> None:
    """Raises: StudyError where something is there: it would be compared with itself."""
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise StudyError(f"{home} is not empty, and everything is to be trained again: give a new folder with --home")


def _frames(engine: Engine) -> dict[tuple[str, str], pd.DataFrame]:
    """The evaluations of every plain study, by study and scale."""
    from results.queries import evaluations
    from results.stored import stored_runs

    plain = [run for run in stored_runs(engine) if run.variant is None]
    return {(run.study, run.scale): evaluations(engine, run.study, run.scale) for run in plain}


def _prepared(engine: Engine, frame: pd.DataFrame, pair: Pair) -> _Drawn:
    """A pair with the session that trains it, if this version still makes it under the same keys."""
    from reports.audit import machine_differences
    from reports.errors import ReportError
    from reports.stored import resolved_config
    from results.queries import latest_run, runs
    from studies.arms import expand_seed
    from sweeps.provenance import machine, package_versions
    from sweeps.session import session_of

    run = latest_run(engine, pair.study, pair.scale)
    assert run is not None  # the pair is one of its
    known = runs(engine, pair.study)
    same = known[(known["scale"] == pair.scale) & known["variant"].isna() & (known["config_hash"] == run.config_hash)]
    drawn = _Drawn(pair, frame, machine_differences(list(same["provenance"]), machine(), package_versions()))
    try:
        study = resolved_config(run).model_copy(update={"seeds": (pair.seed,)})
        arms = expand_seed(study, pair.seed)
    except (ReportError, StudyError) as error:
        drawn.problem = str(error)
        return drawn
    if study.device != "cpu":
        drawn.differing.append(f"the study's device is '{study.device}', and results do not say which it was")
    arm = next((one for one in arms if (one.panel, one.name) == (pair.panel, pair.arm)), None)
    own = frame[(frame["panel"] == pair.panel) & (frame["arm"] == pair.arm) & (frame["seed"] == pair.seed)]
    if arm is None or {point.evaluation for point in arm.points} != set(own["evaluation"]):
        drawn.problem = f"this version trains or measures it otherwise; use that of {_commit(run.provenance)}"
        return drawn
    drawn.session = session_of([study], [arm])
    return drawn


def _commit(provenance: Mapping[str, object]) -> str:
    return f"commit {str(provenance['commit'])[:12]}" if provenance.get("commit") else "the results"


def _train(engine: Engine, home: Home, drawn: Sequence[_Drawn], choice: BackendChoice, minutes: float) -> bool:
    """Train as many as can be begun in time, and compare each. Returns: whether it was interrupted."""
    from studies.cli.running import complain, ready, run_jobs
    from studies.cli.store import take_store
    from sweeps.plan import Inventory

    end, outcome = time.monotonic() + 60 * minutes, None
    for one in drawn:
        if one.session is not None:
            try:
                ready(one.session, [one.pair.study], home, choice)
            except StudyError as error:
                one.problem, one.session = str(error), None
    waiting = [(one, one.session) for one in drawn if one.session is not None]
    if not waiting:
        return False
    jobs = [job for _, session in waiting for job in session.jobs(Inventory())]
    take_store(home)
    with open_backend(choice, home, jobs) as start:
        while waiting and time.monotonic() < end:
            at_once = 1 if choice.name is BackendName.INLINE else choice.workers or default_workers(jobs)
            batch, lacking = _batch(home, waiting, at_once)
            waiting = [one for one in waiting if one not in batch]
            outcome = run_jobs(start, lacking, choice) if lacking else None
            if outcome is not None:
                complain(outcome)
            stopped = outcome is not None and outcome.interrupted
            for one, session in batch:
                _compare(engine, home, one, session, stopped)
            if stopped:
                break
    stopped = outcome is not None and outcome.interrupted
    for one, _ in waiting:
        one.problem = "not begun" if stopped else "not begun in time"
    return stopped


def _batch(
    home: Home, waiting: Sequence[tuple[_Drawn, Session]], at_once: int
) -> tuple[list[tuple[_Drawn, Session]], list[Job]]:
    """The next pairs, no two of which train the same trajectory, and the jobs that they lack."""
    from studies.cli.store import evaluated_in

    evaluated = evaluated_in(home.root)
    batch: list[tuple[_Drawn, Session]] = []
    jobs: list[Job] = []
    for one, session in waiting:
        lacking = session.jobs(session.inventory(home, evaluated))
        if len(batch) < at_once and not {job.trajectory for job in jobs} & {job.trajectory for job in lacking}:
            batch.append((one, session))
            jobs += lacking
    return batch, jobs


def _compare(engine: Engine, home: Home, one: _Drawn, session: Session, stopped: bool) -> None:
    """Note what came of a pair that was trained, or whose training was ``stopped``."""
    from reports.audit import compare
    from studies.cli.store import created

    keys = {point.evaluation for arm in session.arms for point in arm.points}
    known = _values(engine, keys)
    with created(home) as own:
        found = _values(own, keys)
    if lacking := len(known.keys() - found.keys()):
        one.problem = "stopped" if stopped else f"{counted(lacking, 'value')} could not be measured again"
        one.failed = not stopped
        return
    one.values = compare(one.frame, one.pair, known, found, exactly=one.exactly)


def _values(engine: Engine, keys: set[str]) -> dict[str, float]:
    """What is measured, by key; nan for what is no finite number."""
    from results.queries import evaluated_keys, measured_values

    there = dict.fromkeys(keys & evaluated_keys(engine), float("nan"))
    return {**there, **measured_values(engine, sorted(keys))}


def _report(drawn: Sequence[_Drawn], data: Path) -> int:
    """Print what was found. Returns: the exit status."""
    trained = [one for one in drawn if one.values]
    if trained:
        _table(trained)
    for one in drawn:
        if one.problem:
            say(f"{one.pair}: {one.problem}")
    good = [_exact(trained), _elsewhere(trained), not any(one.failed for one in drawn)]
    if not trained:
        say("nothing was trained again, so nothing is confirmed")
        return 1
    if not all(good):
        say("NOT confirmed")
        return 1
    judged = [value.judged for one in trained for value in one.values]
    arms, values = counted(len(trained), "arm"), counted(len(judged), "value")
    say(f"confirmed: {values} of {arms} trained again, {judged.count('equal')} of them equal")
    if data.is_dir():
        say(f"the verdicts again, by numpy and scipy alone: python scripts/recompute_verdicts.py {data}")
    return 0


def _table(trained: Sequence[_Drawn]) -> None:
    """A line a pair."""
    from reports.audit import Judged
    from reports.text import aligned, number

    kinds = get_args(Judged)
    rows: list[Sequence[str]] = [(*trained[0].pair._fields, "values", *kinds, "largest difference")]
    for one in trained:
        judged = [value.judged for value in one.values]
        counts = (str(judged.count(kind)) for kind in kinds)
        rows.append((*map(str, one.pair), str(len(judged)), *counts, number(_largest(one.values), " %")))
    say("\n" + "\n".join(aligned(rows)) + "\n")


def _exact(trained: Sequence[_Drawn]) -> bool:
    """Whether what had to be equal is, which is said."""
    judged = [value.judged for one in trained if one.exactly for value in one.values]
    if judged:
        differ = judged.count("differs")
        values = counted(len(judged), "value")
        said = f"{differ} of them {'differs' if differ == 1 else 'differ'}" if differ else "all of them equal"
        say(f"{values} on the processor and with the versions of the results: {said}")
    return "differs" not in judged


def _elsewhere(trained: Sequence[_Drawn]) -> bool:
    """Whether no more of what was compared with the other seeds lies outside than chance allows, which is said."""
    from reports.audit import ALPHA, EXPECTED, excesses

    others = [one for one in trained if not one.exactly]
    for reason in dict.fromkeys(reason for one in others for reason in one.differing):
        say(f"values need not be equal: {reason}")
    found = excesses([one.values for one in others])
    for one in found:
        say(
            f"{one.metric}, at the end: {one.outside} of {counted(one.pairs, 'arm')} outside the prediction interval, "
            f"{EXPECTED * one.pairs:.2g} expected (p = {one.p:.2g}, {one.p_holm:.2g} by Holm)"
        )
    return all(one.p_holm >= ALPHA for one in found)


def _largest(values: Sequence[Value]) -> float | None:
    """The largest difference in % of what is known."""
    sizes = [100 * abs(value.found - value.known) / abs(value.known) for value in values if value.known]
    return max((size for size in sizes if isfinite(size)), default=None)
