"""Runs the jobs that are missing on a pool: in order, as their inputs appear, until nothing more can be done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from results.layout import Home
from sweeps.attempt import recorded_evaluations
from sweeps.jobs import Job
from sweeps.lease import holder
from sweeps.pool import Event, Pool

MAX_LOST = 3
POLL_S = 0.5
TAIL_LINES = 12


class Watcher(Protocol):
    """Whoever shows progress."""

    def event(self, event: Event) -> None: ...

    def waiting(self, job: Job, holder: str) -> None: ...

    def tick(self, running: Sequence[Job]) -> None: ...


@dataclass
class Failure:
    """A job that failed: why, the end of its log, and where the log is."""

    job: Job
    reason: str
    log: str | None

    def tail(self) -> str:
        if not self.log or not Path(self.log).is_file():
            return ""
        return "\n".join(Path(self.log).read_text(errors="replace").splitlines()[-TAIL_LINES:])


@dataclass
class Outcome:
    """How a run ended."""

    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    blocked: list[Job] = field(default_factory=list)
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        return not self.failures and not self.blocked and not self.interrupted


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


class Scheduler:
    """One pass over a list of jobs (parents before children)."""

    def __init__(self, home: Home, pool: Pool, jobs: Sequence[Job], watcher: Watcher) -> None:
        self.home, self.pool, self.watcher = home, pool, watcher
        self.waiting = list(jobs)
        self.outcome = Outcome()
        self.lost: dict[str, int] = {}
        self.not_before: dict[str, float] = {}

    def stop(self) -> None:
        """Ask `run` to end early, with the running jobs saved. A signal handler may call this."""
        self.outcome.interrupted = True

    def run(self) -> Outcome:
        """Work until everything is done, nothing can go on, or `stop` was called."""
        while not self.outcome.interrupted and (self.waiting or self.pool.running()):
            self._give()
            events = self.pool.wait(POLL_S)
            for event in events:
                self._take(event)
            self.watcher.tick(self.pool.running())
            if not self.pool.running() and not events and self._stuck():
                break
        if self.outcome.interrupted:
            for event in self.pool.stop():
                self._take(event)
        else:
            self.outcome.blocked = list(self.waiting)
        return self.outcome

    def _give(self) -> None:
        busy = {(job.kind, job.trajectory) for job in self.pool.running()}
        for job in list(self.waiting):
            if self.pool.idle() == 0:
                return
            key = (job.kind, job.trajectory)
            if key in busy or self.not_before.get(job.name, 0.0) > time.monotonic():
                continue
            if not inputs_ready(self.home, job):
                continue
            held = holder(self.home.trajectory(job.trajectory).lease(job.kind))
            if held is not None:
                self._hold_off(job, held)
                continue
            if outputs_there(self.home, job):
                self.waiting.remove(job)
                self.outcome.done += 1
                continue
            self.waiting.remove(job)
            busy.add(key)
            self.pool.submit(job)

    def _hold_off(self, job: Job, held: str) -> None:
        if job.name not in self.not_before:
            self.watcher.waiting(job, held)
        self.not_before[job.name] = time.monotonic() + 1.0

    def _take(self, event: Event) -> None:
        job = event.job
        self.watcher.event(event)
        if event.kind == "done":
            self.outcome.done += 1
        elif event.kind == "busy":
            self.waiting.insert(0, job)
            self._hold_off(job, "another command")
        elif event.kind == "failed":
            self.outcome.failures.append(Failure(job, event.reason or "failed", event.log))
        elif event.kind == "lost":
            self.lost[job.name] = self.lost.get(job.name, 0) + 1
            if self.lost[job.name] < MAX_LOST:
                self.waiting.insert(0, job)
            else:
                reason = f"{event.reason}, {MAX_LOST} times"
                self.outcome.failures.append(Failure(job, reason, event.log))
        elif event.kind == "preempted" and not self.outcome.interrupted:
            self.waiting.insert(0, job)

    def _stuck(self) -> bool:
        """Nothing runs and nothing can start: what is left waits for inputs that nobody is making."""
        return bool(self.waiting) and not any(
            inputs_ready(self.home, job) or self._made_elsewhere(job) for job in self.waiting
        )

    def _made_elsewhere(self, job: Job) -> bool:
        """Whether another command is training what this job starts from."""
        sources = [job.trajectory] + ([job.parent.trajectory] if job.parent else [])
        return any(holder(self.home.trajectory(key).lease("train")) for key in sources)
