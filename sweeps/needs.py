"""What a job needs before it can start, and what it leaves: looked up in the files, the only truth there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meanflow_core.config import Checkpoint
from results.layout import Home
from sweeps.attempt import recorded_evaluations
from sweeps.jobs import Job


def inputs_ready(home: Home, job: Job) -> bool:
    """Whether the checkpoints that a job starts from or evaluates are published."""
    folder = home.trajectory(job.trajectory)
    if job.kind == "evaluate":
        return all(
            folder.checkpoint(w.step).is_dir() or (w.protocol.weights == "ema" and folder.snapshot(w.step).is_dir())
            for w in job.evaluations
        )
    if job.parent and job.start_step == job.parent.step:
        return home.trajectory(job.parent.trajectory).checkpoint(job.parent.step).is_dir()
    return job.start_step == 0 or folder.checkpoint(job.start_step).is_dir()


def outputs_there(home: Home, job: Job) -> bool:
    """Whether all that a job makes is there, since another command has made it."""
    folder = home.trajectory(job.trajectory)
    wanted = {one.evaluation for one in job.evaluations}
    if wanted and not wanted <= recorded_evaluations(folder):
        return False
    if job.kind == "evaluate":
        return True
    weights = [folder.snapshot(step).is_dir() or folder.checkpoint(step).is_dir() for step in job.snapshot_steps]
    return all(weights) and all(folder.checkpoint(step).is_dir() for step in job.full_steps)


def producers(jobs: Sequence[Job]) -> list[set[int]]:
    """For each job, the places in the list of the jobs that make what it starts from or measures. What no job of the
    list makes is there already, or is made by nobody."""
    full: dict[tuple[str, int], int] = {}
    weights: dict[tuple[str, int], int] = {}
    for place, job in enumerate(jobs):
        if job.kind == "train":
            full.update({(job.trajectory, step): place for step in job.full_steps})
            weights.update({(job.trajectory, step): place for step in (*job.full_steps, *job.snapshot_steps)})
    return [_made_by(job, full, weights) - {place} for place, job in enumerate(jobs)]


def _made_by(job: Job, full: Mapping[tuple[str, int], int], weights: Mapping[tuple[str, int], int]) -> set[int]:
    if job.kind == "evaluate":
        wanted = {(w.step, w.protocol.weights == "ema") for w in job.evaluations}
        makers = {(weights if ema else full).get((job.trajectory, step)) for step, ema in wanted}
    else:
        branches = job.parent is not None and job.start_step == job.parent.step
        start = job.parent if branches and job.parent else Checkpoint(job.trajectory, job.start_step)
        makers = {full.get((start.trajectory, start.step))}
    return {place for place in makers if place is not None}


def covers(given: Job, wanted: Job) -> bool:
    """Whether a job that was given out already makes all that another one makes."""
    return (
        (given.kind, given.trajectory) == (wanted.kind, wanted.trajectory)
        and {w.evaluation for w in given.evaluations} >= {w.evaluation for w in wanted.evaluations}
        and set(given.full_steps) >= set(wanted.full_steps)
        and {*given.full_steps, *given.snapshot_steps} >= set(wanted.snapshot_steps)
    )
