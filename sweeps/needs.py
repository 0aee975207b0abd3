"""What a job needs before it can start, and what it leaves: looked up in the files, the only truth there is."""

from __future__ import annotations

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
