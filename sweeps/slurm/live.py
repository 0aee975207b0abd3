"""Which jobs of a home are in SLURM's queue now."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from results.layout import Home
from sweeps.jobs import Job
from sweeps.queued import QueuedJob
from sweeps.slurm import queue as slurm
from sweeps.slurm.ledger import Submission, submissions, task_id
from sweeps.slurm.queue import Queued, SlurmError


@dataclass(frozen=True)
class Placed:
    """A job and where it is: task ``index`` of a submission, under SLURM's id."""

    job: Job
    submission: Submission
    index: int
    slurm_id: str


def live(home: Home, queued: Mapping[str, Queued]) -> list[Placed]:
    """Every job of this home that is in the queue and can still run."""
    names = {one.name for one in queued.values()}
    found = []
    for submission in submissions(home):
        if submission.name not in names:
            continue
        answer, record = submission.slurm_file, submission.record
        if answer is None or answer.slurm_job is None:
            continue
        for index in range(record.members):
            slurm_id = task_id(answer.slurm_job, record.members, index)
            if slurm_id in queued and queued[slurm_id].reason != slurm.NEVER:
                found.append(Placed(submission.job(index), submission, index, slurm_id))
    return found


def queued_jobs(home: Home) -> Iterator[QueuedJob]:
    """Jobs of this home that wait in SLURM's queue or run there (`sweeps.queued`)."""
    if not home.submissions.is_dir() or not shutil.which("squeue"):
        return
    try:
        queued = slurm.queue()
    except SlurmError as error:
        sys.stderr.write(f"what SLURM has in its queue is not known: {error}\n")
        return
    for one in live(home, queued):
        state = queued[one.slurm_id]
        reason = "" if state.reason in {"None", ""} else f", {state.reason}"
        where = f"SLURM job {one.slurm_id} ({state.state.lower()}{reason})"
        yield QueuedJob(one.job.kind, one.job.trajectory, one.job.stop_step, where)
