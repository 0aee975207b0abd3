"""The worker: takes one job, leases its trajectory, trains or evaluates, and leaves everything in files.

It never opens the database. Stopping is cooperative: when asked, it ends at a step boundary with its state saved.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from meanflow_core.checkpoint import CheckpointError
from meanflow_core.data.base import DataError
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.ranks import Ranks, RanksDiffer, said_of
from meanflow_core.rankwatch import Failure, RanksBroken
from meanflow_core.trainer import ALONE, Diverged
from results.layout import Home
from sweeps.attempt import Attempt
from sweeps.cancelling import CANCELLED, Request
from sweeps.device import choose_device, device_name
from sweeps.evaluating import Evaluating
from sweeps.jobs import Done, Job, Progress, ShouldStop, Status, now
from sweeps.lease import acquire
from sweeps.peers import TRAIN
from sweeps.program.process import ProgramError
from sweeps.program.training import ProgramTraining
from sweeps.training import Training

# Their message says what is wrong, where and what to do; a traceback would add nothing.
PLAIN = (CheckpointError, DataError, Diverged, EvaluationError, OSError, ProgramError, RanksBroken, RanksDiffer)

Run = Training | ProgramTraining | Evaluating


def _folder() -> Path | None:
    """The working directory; None where it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _set_folder(folder: Path | None) -> None:
    if folder is not None and folder != _folder():
        os.chdir(folder)


def _set_environment(variables: dict[str, str]) -> None:
    if os.environ != variables:
        os.environ.clear()
        os.environ.update(variables)


# What jobs set of their process, and what a component of the user's own may set: how it is read, and how set.
_PROCESS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_rng_state, torch.set_rng_state),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
    (lambda: dict(os.environ), _set_environment),
    (_folder, _set_folder),
)


@contextlib.contextmanager
def process_restored() -> Iterator[None]:
    """Afterwards the process is as before, so that a job's numbers do not depend on the jobs before it."""
    before = [(write, read()) for read, write in _PROCESS]
    try:
        yield
    finally:
        for write, value in before:
            write(value)


def run_job(
    home: Home,
    job: Job,
    progress: Progress = lambda step: None,
    should_stop: ShouldStop = lambda: False,
    on_attempt: Callable[[Attempt], None] = lambda attempt: None,
    ranks: Ranks = ALONE,
    asked: float | None = None,
) -> tuple[Status, str | None, Path | None]:
    """Do one job that was asked for at a moment (seconds since the epoch; now, if None): requests to end it count from
    then on. Returns: (status, reason, the attempt's log); ``busy`` if another attempt holds the trajectory.

    Of several ``ranks`` this is the first, and the others are in `sweeps.peers.follow`.

    Only bugs of this function itself raise; whatever goes wrong inside an attempt is recorded in its ``DONE.json``.
    """
    job.check_key()
    lease = acquire(home.trajectory(job.trajectory).lease(job.kind))
    if lease is None:
        return "busy", None, None
    with lease, process_restored(), threadpool_limits(job.threads):
        torch.set_num_threads(job.threads)
        attempt = Attempt(home, job)
        on_attempt(attempt)
        since = attempt.folder.stat().st_mtime if asked is None else asked
        started, cancelled = now(), Request(home, job, since)

        def stop() -> bool:
            return should_stop() or cancelled()

        run: Run | None = None
        status: Status
        reason: str | None

        def broken(failure: Failure) -> None:
            attempt.close(_done(attempt, run, "failed", said_of(failure), started, ranks.size))
            lease.release()

        ranks.on_failure(broken)
        try:
            run = _run_of(attempt, home, job, progress, stop, ranks)
            status, reason = run.run()
        except (Exception, SystemExit) as error:  # recorded, reported and raised to the exit status by the scheduler
            sys.stderr.write(f"{in_words(error)}\n" if isinstance(error, PLAIN) else traceback.format_exc())
            status, reason = "failed", ranks.failed(in_words(error), error)
        if status == "preempted" and cancelled.made:
            status, reason = "failed", CANCELLED  # nobody is to try again by himself
        ranks.settle()
        attempt.close(_done(attempt, run, status, reason, started, ranks.size))
        return status, reason, attempt.log_path


def _run_of(attempt: Attempt, home: Home, job: Job, progress: Progress, stop: ShouldStop, ranks: Ranks) -> Run:
    """What does a job: training by us or by a program of the user's own, or measuring."""
    if job.kind == "evaluate":
        return Evaluating(attempt, home, job, progress, stop)
    if job.dynamics.trainer is None:
        run = Training(attempt, home, job, progress, stop, ranks)
        ranks.tell(TRAIN)
        return run
    if ranks.size > 1:
        raise ProgramError("a trainer of your own starts its processes itself: give its job one process")
    return ProgramTraining(attempt, home, job, progress, stop)


def in_words(error: BaseException) -> str:
    """Why an attempt failed, in one line."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk is full: free some space, then run the same command again ({error})"
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _device(job: Job) -> str:
    """What it ran on; what a program of the user's own makes of the device asked for is its own affair."""
    own = job.kind == "train" and job.dynamics.trainer is not None
    return job.device if own else device_name(choose_device(job.device))


def _done(attempt: Attempt, run: Run | None, status: Status, reason: str | None, started: str, ranks: int) -> Done:
    job = attempt.job
    first, last = (run.first_step, run.last_step) if run else (job.start_step, job.start_step)
    return Done(
        status=status,
        reason=reason,
        kind=job.kind,
        start_step=first,
        stop_step=last,
        steps=max(0, last - first) if job.kind == "train" else 0,
        seconds=round(time.monotonic() - attempt.started, 3),
        seconds_per_step=run.seconds_per_step() if run else None,
        started=started,
        ended=now(),
        host=socket.gethostname(),
        device=_device(job),
        threads=job.threads,
        ranks=ranks if job.kind == "train" else 1,
        versions={} if job.dynamics.trainer is not None and job.kind == "train" else {"torch": torch.__version__},
    )
