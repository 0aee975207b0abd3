"""The worker: takes one job, leases its trajectory, trains or evaluates, and leaves everything in files.

It never opens the database. Stopping is cooperative: when asked, it ends at a step boundary with its state saved.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import socket
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from meanflow_core.checkpoint import CheckpointError, load_checkpoint, publish, write_checkpoint
from meanflow_core.data.base import DataError, DataSet
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.evaluate import evaluate
from meanflow_core.trainer import Diverged, NotBuilt, Trainer, build_network
from results.layout import Home, TrajectoryDir
from sweeps.attempt import STAGED, Attempt, recorded_evaluations
from sweeps.jobs import Done, Job, Status, WantedEvaluation, now
from sweeps.lease import acquire

log = logging.getLogger(__name__)

# Their message says what is wrong, where and what to do; a traceback would add nothing.
PLAIN = (CheckpointError, DataError, Diverged, EvaluationError, NotBuilt, OSError)

Progress = Callable[[int], None]
ShouldStop = Callable[[], bool]


def device_of(job: Job) -> torch.device:
    if job.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(job.device)


def device_name(device: torch.device) -> str:
    """What the device is called in records, e.g. ``cpu`` or ``NVIDIA H100``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def full_steps(folder: TrajectoryDir) -> list[int]:
    """Steps with a published full checkpoint."""
    if not folder.checkpoints.is_dir():
        return []
    return sorted(int(p.name) for p in folder.checkpoints.iterdir() if p.name.isdigit())


def run_job(
    home: Home,
    job: Job,
    progress: Progress = lambda step: None,
    should_stop: ShouldStop = lambda: False,
    on_attempt: Callable[[Attempt], None] = lambda attempt: None,
) -> tuple[Status, str | None, Path | None]:
    """Do one job. Returns: (status, reason, the attempt's log); ``busy`` if another attempt holds the trajectory.

    Only bugs of this function itself raise; whatever goes wrong inside an attempt is recorded in its ``DONE.json``.
    """
    job.check_key()
    lease = acquire(home.trajectory(job.trajectory).lease(job.kind))
    if lease is None:
        return "busy", None, None
    with lease, threadpool_limits(job.threads):
        torch.set_num_threads(job.threads)
        attempt = Attempt(home, job)
        on_attempt(attempt)
        started = now()
        run = (
            _Train(attempt, home, job, progress, should_stop)
            if job.kind == "train"
            else _Evaluate(attempt, job, progress, should_stop)
        )
        status: Status
        reason: str | None
        try:
            status, reason = run.run()
        except Exception as error:  # recorded, reported and raised to the exit status by the scheduler
            status, reason = "failed", in_words(error)
            sys.stderr.write(f"{reason}\n" if isinstance(error, PLAIN) else traceback.format_exc())
        attempt.close(_done(attempt, run, status, reason, started))
        return status, reason, attempt.log_path


def in_words(error: Exception) -> str:
    """Why an attempt failed, in one line."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk is full: free some space, then run the same command again ({error})"
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _done(attempt: Attempt, run: Any, status: Status, reason: str | None, started: str) -> Done:
    job = attempt.job
    return Done(
        status=status,
        reason=reason,
        kind=job.kind,
        start_step=run.first_step,
        stop_step=run.last_step,
        steps=max(0, run.last_step - run.first_step) if job.kind == "train" else 0,
        seconds=round(time.monotonic() - attempt.started, 3),
        seconds_per_step=run.seconds_per_step(),
        started=started,
        ended=now(),
        host=socket.gethostname(),
        device=device_name(device_of(job)),
        threads=job.threads,
        versions={"torch": torch.__version__},
    )


class _Train:
    """Trains (start, stop], saving what the job names; resumes at the nearest checkpoint that is there."""

    def __init__(self, attempt: Attempt, home: Home, job: Job, progress: Progress, should_stop: ShouldStop) -> None:
        self.attempt, self.home, self.job = attempt, home, job
        self.progress, self.should_stop = progress, should_stop
        self.folder = home.trajectory(job.trajectory)
        self.first_step = self.last_step = job.start_step
        self.periodic: Path | None = None
        self._times: list[float] = []

    def seconds_per_step(self) -> float | None:
        return round(statistics.median(self._times), 6) if self._times else None

    def _begin(self, trainer: Trainer) -> None:
        """Restore the nearest own checkpoint at or before the first thing that is missing, else branch, else start."""
        wanted = {*self.job.full_steps, *self.job.snapshot_steps, self.job.stop_step}
        missing = [s for s in sorted(wanted) if not self._have(s)]
        limit = missing[0] if missing else self.job.stop_step
        own = [s for s in full_steps(self.folder) if s <= limit]
        parent = self.job.parent
        if own:
            at, folder, expect = own[-1], self.folder.checkpoint(own[-1]), self.job.trajectory
        elif parent:
            at, folder, expect = (
                parent.step,
                self.home.trajectory(parent.trajectory).checkpoint(parent.step),
                (parent.trajectory),
            )
        else:
            return
        loaded = load_checkpoint(folder, device=trainer.device, expect={"trajectory": expect, "step": at})
        trainer.restore(loaded.parts, at, branch=not own)

    def _have(self, step: int) -> bool:
        if self.folder.checkpoint(step).is_dir():
            return True
        return step not in self.job.full_steps and self.folder.snapshot(step).is_dir()

    def run(self) -> tuple[Status, str | None]:
        job = self.job
        self._clear_up()
        trainer = Trainer(
            job.dynamics,
            job.seed,
            horizon_steps=job.horizon_steps,
            device=device_of(job),
            observers=job.observers,
            divergence=job.divergence,
        )
        self._begin(trainer)
        self.first_step = self.last_step = trainer.step
        self._save_wanted(trainer)
        while trainer.step < job.stop_step:
            if self.should_stop():
                if trainer.step > self.first_step:
                    self._save_full(trainer)
                return "preempted", f"stopped on request at step {trainer.step}"
            self._advance(trainer)
            self._save_wanted(trainer)
            self.progress(trainer.step)
        if self.periodic is not None:
            self._discard(self.periodic)
        return "done", None

    def _advance(self, trainer: Trainer) -> None:
        began = time.perf_counter()
        log_now = (trainer.step + 1) % self.job.log_every_steps == 0
        values = trainer.advance(log_now)
        self.last_step = trainer.step
        if log_now:
            self.attempt.metrics(trainer.step, values)
        if len(self._times) < 1000:
            self._times.append(time.perf_counter() - began)

    def _save_wanted(self, trainer: Trainer) -> None:
        step, job = trainer.step, self.job
        if step in job.full_steps:
            self._save_full(trainer)
        elif step in job.snapshot_steps and not self._have(step):
            self._save(trainer, self.folder.snapshot(step), {"ema": trainer.ema_part()})
        if (every := job.checkpoint_every_steps) and step % every == 0 and step > self.first_step:
            self._save_periodic(trainer)

    def _save(self, trainer: Trainer, target: Path, parts: Any) -> None:
        trainer.check_finite()
        staged = self.attempt.staged(f"{target.parent.name}-{target.name}")
        meta = {"trajectory": self.job.trajectory, "step": trainer.step, "attempt": self.attempt.number}
        try:
            write_checkpoint(staged, parts, meta)
        except OSError:  # a full disk needs every byte that it can have back
            shutil.rmtree(staged, ignore_errors=True)
            raise
        publish(staged, target)

    def _save_full(self, trainer: Trainer) -> None:
        target = self.folder.checkpoint(trainer.step)
        if not target.is_dir():
            self._save(trainer, target, trainer.parts())

    def _save_periodic(self, trainer: Trainer) -> None:
        """Keep one rolling checkpoint of our own, for resuming; branch points and ends stay."""
        target = self.folder.checkpoint(trainer.step)
        if target.is_dir():
            return
        self._save_full(trainer)
        if self.periodic is not None:
            self._discard(self.periodic)
        self.periodic = target

    def _discard(self, folder: Path) -> None:
        """Remove a folder. A rename comes first, so that at no moment half of it can be seen."""
        aside = self.attempt.staged(f"discarded-{folder.name}")
        with contextlib.suppress(OSError):
            folder.rename(aside)
            shutil.rmtree(aside)

    def _clear_up(self) -> None:
        """Remove what earlier attempts, which are over since we hold the lease, had begun to write or remove."""
        for folder in self.folder.attempts.glob(f"*/{STAGED}*"):
            self._discard(folder)


class _Evaluate:
    """Measures checkpoints of one trajectory, step by step."""

    def __init__(self, attempt: Attempt, job: Job, progress: Progress, should_stop: ShouldStop) -> None:
        self.attempt, self.job, self.progress, self.should_stop = attempt, job, progress, should_stop
        self.first_step, self.last_step = job.start_step, job.stop_step

    def seconds_per_step(self) -> float | None:
        return None

    def run(self) -> tuple[Status, str | None]:
        job, device = self.job, device_of(self.job)
        recorded = recorded_evaluations(self.attempt.trajectory)  # e.g. by an attempt that was killed later
        missing = [wanted for wanted in job.evaluations if wanted.evaluation not in recorded]
        if not missing:
            return "done", None
        data: DataSet = job.dynamics.data.build()
        network = build_network(job.dynamics, data, job.seed, device).eval()
        groups: dict[tuple[int, str], list[WantedEvaluation]] = {}
        for wanted in missing:
            groups.setdefault((wanted.step, wanted.protocol.weights), []).append(wanted)
        done = len(job.evaluations) - len(missing)
        for (step, weights), group in sorted(groups.items()):
            if self.should_stop():
                return "preempted", f"stopped on request before step {step}"
            self._load(network, step, weights, device)
            began = time.perf_counter()
            values = evaluate([w.protocol for w in group], network, data, device)
            seconds = (time.perf_counter() - began) / len(group)
            for w in group:
                self._record(w, values[w.protocol.key], seconds)
            done += len(group)
            self.progress(done)
        return "done", None

    def _load(self, network: torch.nn.Module, step: int, part: str, device: torch.device) -> None:
        folder = self.attempt.trajectory
        place = folder.snapshot(step)
        if part != "ema" or not place.is_dir():
            place = folder.checkpoint(step)
        expect = {"trajectory": self.job.trajectory, "step": step}
        state = load_checkpoint(place, [part], device, expect).parts[part]
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"{place} does not fit the network: {error}") from error

    def _record(self, wanted: WantedEvaluation, value: float, seconds: float) -> None:
        self.attempt.evaluation(
            {
                "evaluation": wanted.evaluation,
                "step": wanted.step,
                "weights": wanted.protocol.weights,
                "protocol": wanted.protocol.key,
                "metric": wanted.protocol.metric_label,
                "nfe": wanted.protocol.nfe,
                "value": value,
                "seconds": round(seconds, 4),
            }
        )
