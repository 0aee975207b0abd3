"""What a job needs before it can start, and what it leaves: looked up in the files, the only truth there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from meanflow_core.config import Checkpoint
from results.layout import Home, TrajectoryDir
from sweeps.attempt import recorded_evaluations
from sweeps.jobs import Job
from sweeps.plan import checkpoint_steps


def inputs(job: Job) -> Iterator[tuple[Checkpoint, bool]]:
    """The checkpoints that a job starts from or evaluates, and whether a snapshot of them will do."""
    if job.kind == "evaluate":
        for wanted in job.evaluations:
            snapshot_will_do = wanted.protocol.weights == "ema" or job.dynamics.trainer is not None
            yield Checkpoint(job.trajectory, wanted.step), snapshot_will_do
    elif job.parent and job.start_step == job.parent.step:
        yield job.parent, False
    elif job.start_step:
        yield Checkpoint(job.trajectory, job.start_step), False


def missing_input(home: Home, job: Job) -> Checkpoint | None:
    """The first input of a job that is not published; None if all are."""
    for at, snapshot_will_do in inputs(job):
        folder = home.trajectory(at.trajectory)
        if (snapshot_will_do and folder.snapshot(at.step).is_dir()) or folder.checkpoint(at.step).is_dir():
            continue
        if not (job.kind == "train" and at.trajectory == job.trajectory and _passed(folder, job)):
            return at
    return None


def _passed(folder: TrajectoryDir, job: Job) -> bool:
    """Whether another command has trained on from where a job starts: what it started from may have been a rolling
    checkpoint, which is removed once the next one is there. Training begins at the nearest."""
    return any(job.start_step <= step <= job.stop_step for step in checkpoint_steps(folder.checkpoints))


def inputs_ready(home: Home, job: Job) -> bool:
    """Whether all that a job starts from or evaluates is published."""
    return missing_input(home, job) is None


def makes(job: Job) -> Iterator[Checkpoint]:
    """The checkpoints and snapshots that a job publishes for others."""
    if job.kind == "train":
        for step in (*job.full_steps, *job.snapshot_steps):
            yield Checkpoint(job.trajectory, step)


def outputs_there(home: Home, job: Job, recorded: Callable[[TrajectoryDir], set[str]] = recorded_evaluations) -> bool:
    """Whether all that a job makes is there, since another command has made it.

    Args:
        recorded: the evaluations that the attempts on a trajectory have recorded.
    """
    folder = home.trajectory(job.trajectory)
    wanted = {one.evaluation for one in job.evaluations}
    if wanted and not wanted <= recorded(folder):
        return False
    if job.kind == "evaluate":
        return True
    weights = [folder.snapshot(step).is_dir() or folder.checkpoint(step).is_dir() for step in job.snapshot_steps]
    return all(weights) and all(folder.checkpoint(step).is_dir() for step in job.full_steps)


def progress(home: Home, job: Job, recorded: Callable[[TrajectoryDir], set[str]] = recorded_evaluations) -> int:
    """How far a job that did not end has come for good: the last checkpoint on its way, or its evaluations recorded."""
    folder = home.trajectory(job.trajectory)
    if job.kind == "evaluate":
        return len({one.evaluation for one in job.evaluations} & recorded(folder))
    steps = checkpoint_steps(folder.checkpoints)
    if job.dynamics.trainer is not None:  # which resumes from whatever it has saved
        steps |= checkpoint_steps(folder.snapshots)
    return max((step for step in steps if job.start_step <= step <= job.stop_step), default=job.start_step)


def producers(jobs: Sequence[Job]) -> list[set[int]]:
    """For each job, the places in the list of the jobs that make what it starts from or measures. What no job of the
    list makes is there already, or is made by nobody."""
    full: dict[Checkpoint, int] = {}
    weights: dict[Checkpoint, int] = {}
    for place, job in enumerate(jobs):
        full.update({at: place for at in makes(job) if at.step in job.full_steps})
        weights.update(dict.fromkeys(makes(job), place))
    found = [{(weights if snapshot_will_do else full).get(at) for at, snapshot_will_do in inputs(job)} for job in jobs]
    return [{maker for maker in makers if maker not in (None, place)} for place, makers in enumerate(found)]


def covers(given: Job, wanted: Job) -> bool:
    """Whether a job that was given out already makes all that another one makes."""
    return (
        (given.kind, given.trajectory) == (wanted.kind, wanted.trajectory)
        and {w.evaluation for w in given.evaluations} >= {w.evaluation for w in wanted.evaluations}
        and set(given.full_steps) >= set(wanted.full_steps)
        and {*given.full_steps, *given.snapshot_steps} >= set(wanted.snapshot_steps)
    )
