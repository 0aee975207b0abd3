"""Submitting jobs that are not in the queue yet, with a record that survives us.

The order is: write down what is about to be submitted, call sbatch, write down SLURM's id. Whoever dies in between is
found out by the array's name, which is ours: the next to submit adopts what SLURM took and submits nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from results.layout import Home
from studies.errors import StudyError
from sweeps.cancelling import requested
from sweeps.jobs import Job
from sweeps.lease import Lease, acquire, holder
from sweeps.needs import covers, inputs_ready, outputs_there, producers
from sweeps.slurm import queue as slurm
from sweeps.slurm.arrays import Array, arrays, shape_of
from sweeps.slurm.ledger import Submission, create, submissions, task_id
from sweeps.slurm.live import Placed, live
from sweeps.slurm.profile import Cluster
from sweeps.slurm.queue import SlurmError
from sweeps.slurm.script import parameters
from sweeps.slurm.task import run_task

Seconds = Callable[[Job], float | None]
LOCK_PATIENCE_S = 60.0
ADOPTION_PATIENCE_S = 10.0  # an sbatch that its killed parent left behind ends within this


@dataclass(frozen=True)
class Planned:
    """An array that is still to be submitted. ``after`` are SLURM's ids."""

    array: Array
    jobs: tuple[Job, ...]
    minutes: int
    after: tuple[str, ...]


def submit_missing(
    home: Home,
    jobs: Sequence[Job],
    cluster: Cluster,
    seconds: Seconds,
    waiting: Callable[[str], None] = lambda why: None,
) -> dict[int, Placed]:
    """Put jobs into the queue, but for those that are there already and those that have done their work.

    Args:
        waiting: told, once, what this waits for.
    Returns: where those are that have not, by place. Raises: StudyError if another command is submitting, SlurmError if
    SLURM refuses; what was taken stays in the queue.
    """
    with _lock(home, waiting):
        adopt(home)
        placed = found_in_queue(home, jobs)
        largest = min(cluster.max_array_size or 10**9, slurm.max_array_size())
        # Looked at after the queue: what ends between the two looks was in it, and nothing is submitted again.
        missing = {place for place in range(len(jobs)) if place not in placed and not outputs_there(home, jobs[place])}
        after = [makers & (placed.keys() | missing) for makers in producers(jobs)]
        for array in arrays(jobs, _waited_for(home, jobs, after), missing, largest, partial(shape_of, cluster=cluster)):
            ids = [placed[place].slurm_id for place in array.after]
            members = [jobs[place] for place in array.members]
            submission = _submit(home, members, cluster, array, _minutes(cluster, members, seconds), ids)
            placed |= dict(zip(array.members, submission, strict=True))
        return placed


def planned_arrays(
    home: Home, jobs: Sequence[Job], cluster: Cluster, seconds: Seconds, largest: int
) -> Iterator[Planned]:
    """What `submit_missing` would submit to an empty queue, with made-up ids: a dry run."""
    ids: dict[int, str] = {}
    after, shape = _waited_for(home, jobs, producers(jobs)), partial(shape_of, cluster=cluster)
    for number, array in enumerate(arrays(jobs, after, range(len(jobs)), largest, shape), 1):
        members = tuple(jobs[place] for place in array.members)
        yield Planned(array, members, _minutes(cluster, members, seconds), tuple(ids[place] for place in array.after))
        for index, place in enumerate(array.members):
            ids[place] = task_id(f"ARRAY{number}", len(members), index)


def _waited_for(home: Home, jobs: Sequence[Job], after: Sequence[Collection[int]]) -> list[Collection[int]]:
    """Producers of what is not there yet."""
    return [() if inputs_ready(home, job) else after[place] for place, job in enumerate(jobs)]


def _minutes(cluster: Cluster, jobs: Sequence[Job], seconds: Seconds) -> int:
    """What the longest of some jobs asks for. Estimates are of one device; several processes share the steps."""

    def asked(job: Job) -> int:
        shape, estimate = shape_of(job, cluster), seconds(job)
        return cluster.time.minutes(estimate and estimate / shape.tasks)

    return max(map(asked, jobs))


def _lock(home: Home, waiting: Callable[[str], None]) -> Lease:
    """One command at a time submits for a home."""
    home.submissions.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home.submissions / "submit.lease"
    deadline = time.monotonic() + LOCK_PATIENCE_S
    told = False
    while (lease := acquire(path)) is None:
        if not told and (held := holder(path)):
            waiting(f"waits until {held} has submitted what it has for the same home, {LOCK_PATIENCE_S:.0f} s at most")
            told = True
        if time.monotonic() > deadline:
            raise StudyError(f"{holder(path) or 'another command'} is submitting for {home.root}; try again later")
        time.sleep(0.5)
    return lease


def found_in_queue(home: Home, jobs: Sequence[Job]) -> dict[int, Placed]:
    """Those of some jobs, by place, that are in the queue: ours of earlier times, or another command's; but for those
    that were asked to end since, which will not do it."""
    by_trajectory: dict[str, list[Placed]] = {}
    for one in live(home, slurm.queue()):
        if requested(home, one.job, one.submission.asked):
            continue
        by_trajectory.setdefault(one.job.trajectory, []).append(one)
    found = {}
    for place, job in enumerate(jobs):
        at = next((one for one in by_trajectory.get(job.trajectory, ()) if covers(one.job, job)), None)
        if at is not None:
            found[place] = Placed(job, at.submission, at.index, at.slurm_id)
    return found


def _submit(
    home: Home, jobs: Sequence[Job], cluster: Cluster, array: Array, minutes: int, after: Sequence[str]
) -> list[Placed]:
    submission = create(home, jobs, minutes, after)
    wanted = parameters(cluster, array.shape, minutes, submission.name, after)
    slurm_job = _call_submitit(home, submission, cluster, wanted, len(jobs))
    return [Placed(job, submission, i, task_id(slurm_job, len(jobs), i)) for i, job in enumerate(jobs)]


def _call_submitit(
    home: Home, submission: Submission, cluster: Cluster, wanted: dict[str, object], members: int
) -> str:
    """Every task's pickle holds the same: a function's name and two texts. Raises: SlurmError in sbatch's words."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.slurm.slurm import SlurmExecutor

    arguments = str(home.root.resolve()), submission.name
    try:
        executor = SlurmExecutor(folder=submission.private, python=cluster.python)
        executor.update_parameters(**wanted)
        if members == 1:
            taken = [executor.submit(run_task, *arguments)]
        else:
            taken = executor.map_array(run_task, *([one] * members for one in arguments))
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        submission.answered(None)
        raise SlurmError(f"SLURM did not take {submission.name}: {_refusal(str(error))}") from None
    slurm_job: str = taken[0].job_id.split("_")[0]
    submission.answered(slurm_job)
    return slurm_job


def _refusal(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if "error:" in line]
    return "; ".join(lines) or (said.strip().splitlines() or ["no reason given"])[-1]


def adopt(home: Home) -> None:
    """Settle what an earlier command wrote down without living to see SLURM's answer."""
    for submission in submissions(home):
        if submission.slurm_file is None:
            submission.answered(_find(submission))


def _find(submission: Submission) -> str | None:
    """SLURM's id of an array by its name, its pickles put where its tasks look for them; None if it is not there."""
    deadline = time.monotonic() + ADOPTION_PATIENCE_S
    while True:
        ids = {q.slurm_id.split("_")[0] for q in slurm.queue().values() if q.name == submission.name}
        if ids or time.monotonic() > deadline:
            break
        time.sleep(1.0)
    if not ids:
        return None
    slurm_job, members = ids.pop(), submission.record.members
    _write_pickles(submission, slurm_job, members)
    return slurm_job


def _write_pickles(submission: Submission, slurm_job: str, members: int) -> None:
    from submitit.core.utils import DelayedSubmission, JobPaths

    home = submission.root.parent.parent.resolve()
    for index in range(members):
        pickle = JobPaths(submission.private, task_id(slurm_job, members, index)).submitted_pickle
        if not pickle.exists():
            aside = pickle.with_suffix(".adopted")
            DelayedSubmission(run_task, str(home), submission.name).dump(aside)
            aside.replace(pickle)
