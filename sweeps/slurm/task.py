"""What a SLURM job runs on its node: one task of a submission, once or, after a requeue, again.

`afterok` is a hint: the task looks for its inputs itself. It is told to stop by the signal that SLURM sends before the
time limit (or before a preemption), saves at a step boundary and goes back into the queue by itself. SIGTERM comes from
a cancellation or from a requeue by somebody else, and then SLURM decides.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from results.layout import Home
from sweeps.attempt import Attempt
from sweeps.cancelling import CANCELLED, requested
from sweeps.jobs import EXIT_PREEMPTED, Job, now
from sweeps.lease import EXPIRY_S, holder
from sweeps.logs import log_to
from sweeps.needs import inputs_ready, outputs_there
from sweeps.slurm import queue as slurm
from sweeps.slurm.ledger import OutcomeLine, Submission
from sweeps.slurm.script import SIGNAL
from sweeps.waiting import rest

if TYPE_CHECKING:
    from meanflow_core.ranks import Ranks
    from meanflow_core.rankwatch import Failure

FILES_PATIENCE_S = float(os.environ.get("STUDY_FILES_PATIENCE_S", "60"))  # until a published checkpoint is seen here
BUSY_PATIENCE_S = 5 * EXPIRY_S  # a lease whose owner is gone expires well within this
FRUITLESS = 3  # executions in a row that were cut off before they had done a step


class Stop:
    """Set by signals. ``requeue`` says whether to go back into the queue by ourselves."""

    def __init__(self) -> None:
        self.asked = self.requeue = False
        signal.signal(getattr(signal, f"SIG{SIGNAL}"), self._warned)
        signal.signal(signal.SIGTERM, self._ended)

    def _warned(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = self.requeue = True

    def _ended(self, _number: int, _frame: FrameType | None) -> None:
        self.asked, self.requeue = True, False

    def __call__(self) -> bool:
        return self.asked


def run_task(home: str, submission: str) -> None:
    """Entry point of every SLURM job: do the job of this task of a submission. Ends the process with an exit status
    that `afterok` understands."""
    from sweeps.peers import END, follow

    stop, place = Stop(), Home(Path(home))
    ours, index = Submission(place.submissions / submission), int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    job = ours.job(index)
    with _joined(ours, index) as ranks:
        if not ranks.first:
            follow(place, job, stop, ranks)
            return  # the first rank decides what becomes of the job
        line = _execute(place, job, stop, ranks, ours, index)
        ours.ended(index, line)
        if line.status == "preempted" and stop.requeue:
            if _fruitless(ours.outcomes(index)):
                why = f"cut off {FRUITLESS} times before it had done a step: raise time.max_min in the cluster profile"
                ours.ended(index, line.model_copy(update={"status": "failed", "reason": why, "time": now()}))
            else:
                slurm.requeue(os.environ["SLURM_JOB_ID"])
        ranks.end(END)
    if line.status != "done":
        sys.exit(EXIT_PREEMPTED if line.status == "preempted" else 1)


@contextmanager
def _joined(ours: Submission, index: int) -> Iterator[Ranks]:
    """The ranks of this SLURM job, which meet in a folder if they are on one node; what measures has one."""
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if os.environ.get("SLURM_JOB_NUM_NODES", "1") == "1":  # no port, so none that is taken
            unique = "-".join(os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"))
            os.environ["STUDY_RENDEZVOUS"] = f"file://{ours.private / f'rendezvous-{unique}'}"
    from meanflow_core.ranks import joined
    from meanflow_core.rankwatch import RanksBroken

    try:
        with joined(ours.job(index).device) as ranks:
            yield ranks
    except RanksBroken as error:  # before they had met; else it is recorded, and does not come so far
        if os.environ["RANK"] == "0":
            ours.ended(index, _line("failed", str(error)))
        raise


def _fruitless(outcomes: list[OutcomeLine]) -> bool:
    last = outcomes[-FRUITLESS:]
    return len(last) == FRUITLESS and all(line.status == "preempted" and line.steps == 0 for line in last)


def _line(status: str, reason: str | None = None, log: str | None = None, steps: int = 0) -> OutcomeLine:
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    fields = {"status": status, "reason": reason, "log": log, "steps": steps}
    return OutcomeLine.model_validate({**fields, "restarts": restarts, "time": now()})


def _execute(home: Home, job: Job, stop: Stop, ranks: Ranks, ours: Submission, index: int) -> OutcomeLine:
    """Wait for inputs and for the lease, then do the job."""
    from meanflow_core.ranks import said_of

    reached, log, told = [0], list[str](), set[str]()

    def begun(attempt: Attempt) -> None:
        log.append(str(attempt.log_path))
        log_to(attempt.log_path)

    def progress(step: int) -> None:
        reached[0] += 1

    def broken(failure: Failure) -> None:
        ours.ended(index, _line("lost" if failure.lost else "failed", said_of(failure), log[-1] if log else None))

    ranks.on_failure(broken)
    started = time.monotonic()
    while True:
        waited = time.monotonic() - started
        if outputs_there(home, job):
            return _line("done")
        if stop():
            return _line("preempted", "stopped on request before it began")
        if requested(home, job, ours.asked):
            return _line("failed", CANCELLED)
        if not inputs_ready(home, job):
            if waited > FILES_PATIENCE_S:
                return _line("missing", "what it starts from or measures is not there")
            rest(1.0, stop)
            continue
        from sweeps.worker import run_job  # not before there is something to do

        status, reason, _ = run_job(home, job, progress, stop, begun, ranks, ours.asked)
        if status != "busy":
            return _line(status, reason, log[-1], reached[0])
        if (held := holder(home.trajectory(job.trajectory).lease(job.kind))) and held not in told:
            told.add(held)
            sys.stderr.write(f"waits for {held}, which works on the same trajectory\n")
        if waited > BUSY_PATIENCE_S:
            return _line("busy", "another attempt holds its trajectory")
        rest(5.0, stop)
