"""What a job needs before it can start, and what it leaves: looked up in the files, the only truth there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from meanflow_core.config import Checkpoint
from results.layout import Home, TrajectoryDir
from sweeps.attempt import recorded_evaluations
from sweeps.jobs import Job


def missing_input(home: Home, job: Job) -> Checkpoint | None:
    """The first of the checkpoints that a job starts from or evaluates that is not published; None if all are."""
    folder = home.trajectory(job.trajectory)
    if job.kind == "evaluate":
        for w in job.evaluations:
            kept = w.protocol.weights == "ema" and folder.snapshot(w.step).is_dir()
            if not kept and not folder.checkpoint(w.step).is_dir():
                return Checkpoint(job.trajectory, w.step)
        return None
    if job.parent and job.start_step == job.parent.step:
        at = job.parent
    elif job.start_step == 0:
        return None
    else:
        at = Checkpoint(job.trajectory, job.start_step)
    return None if home.trajectory(at.trajectory).checkpoint(at.step).is_dir() else at


def inputs_ready(home: Home, job: Job) -> bool:
    """Whether the checkpoints that a job starts from or evaluates are published."""
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
