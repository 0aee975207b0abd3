"""Runs the jobs that are missing on workers: in order, as their inputs appear, until nothing more can be done."""

from __future__ import annotations

import time
from collections.abc import Sequence

from results.layout import Home
from sweeps.backend import Event, Failure, Outcome, Watcher, Workers
from sweeps.jobs import Job
from sweeps.lease import holder
from sweeps.needs import inputs_ready, outputs_there

MAX_LOST = 3
POLL_S = 0.5


class Scheduler:
    """One pass over a list of jobs (parents before children)."""

    def __init__(self, home: Home, pool: Workers, jobs: Sequence[Job], watcher: Watcher) -> None:
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
