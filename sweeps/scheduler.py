"""Runs the jobs that are missing on workers: in order, as their inputs appear, until nothing more can be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from results.layout import Home
from sweeps.backend import Event, Failure, Outcome, Watcher, Workers
from sweeps.cancelling import CANCELLED, moment, requested
from sweeps.jobs import Job
from sweeps.lease import holder
from sweeps.losses import MAX_LOST, Losses
from sweeps.needs import inputs_ready, makes, missing_input, outputs_there
from sweeps.queue import Queue
from sweeps.records import Records

POLL_S = 0.5
HOLD_OFF_S = 1.0  # between two looks at a lease that another command holds
GLANCES = 64  # at jobs asleep, each time that a worker has nothing to do: another command may have made their inputs


class Scheduler:
    """One pass over a list of jobs (parents before children).

    A job is looked at in its turn, and again when one that makes its input or holds its trajectory has ended. What is
    asleep is also looked at now and then, since other commands publish in the same home without a word. Jobs were
    ``asked`` for at that `moment`, by default now: requests to end them count from then on.
    """

    def __init__(
        self,
        home: Home,
        pool: Workers,
        jobs: Sequence[Job],
        watcher: Watcher,
        clock: Callable[[], float] = time.monotonic,
        asked: float | None = None,
    ) -> None:
        self.home, self.pool, self.watcher, self.clock = home, pool, watcher, clock
        self.waiting = Queue(jobs)
        self.outcome = Outcome()
        self.recorded = Records()
        self.losses = Losses(home, self.recorded)
        self._told: set[tuple[str, str]] = set()  # jobs, and who does them elsewhere
        self._asked = moment(home) if asked is None else asked

    def stop(self) -> None:
        """Ask `run` to end early, with the running jobs saved. A signal handler may call this."""
        self.outcome.interrupted = True

    def waits_for(self) -> str:
        running = len(self.pool.running())
        many = f"{running} jobs save at their next step" if running > 1 else "a job saves at its next step"
        return f"stopping as soon as {many}" if running else "stopping; no job runs that would have to save"

    def run(self) -> Outcome:
        """Work until everything is done, nothing can go on, or `stop` was called."""
        while not self.outcome.interrupted and (self.waiting or self.pool.running()):
            self._give()
            events = self.pool.wait(POLL_S)
            for event in events:
                self._take(event)
            self.watcher.tick(self.pool.running())
            if not self.pool.running() and not events:
                if self._stuck():
                    break
                self.waiting.wake_some()
        if self.outcome.interrupted:
            for event in self.pool.stop():
                self._take(event)
        else:
            self.outcome.blocked = self.waiting.jobs()
        return self.outcome

    def _give(self) -> None:
        busy: set[tuple[str, str]] = {(job.kind, job.trajectory) for job in self.pool.running()}
        while self.pool.idle() > 0:
            due = self.waiting.next(self.clock())
            if due is None:
                self.waiting.wake_some(GLANCES)
                return
            self._look(*due, busy)

    def _look(self, place: int, job: Job, busy: set[tuple[str, str]]) -> None:
        """Give a job to a worker, or find out why not."""
        key = (job.kind, job.trajectory)
        if key in busy:
            self.waiting.sleep(place, key)
        elif requested(self.home, job, self._asked):
            self.waiting.remove(place)
            self._take(Event("failed", job, reason=CANCELLED))
        elif missing := missing_input(self.home, job):
            self.waiting.sleep(place, missing)
            self.waiting.wake_first(key)
        elif held := holder(self.home.trajectory(job.trajectory).lease(job.kind)):
            self._tell(job, held)
            self.waiting.delay(place, self.clock() + HOLD_OFF_S)
        elif outputs_there(self.home, job, self.recorded):
            self.waiting.remove(place)
            self.outcome.done += 1
            self._ended(job)
        else:
            self.waiting.remove(place)
            busy.add(key)
            self.pool.submit(job, self._asked)

    def _tell(self, job: Job, held: str) -> None:
        if (job.name, held) not in self._told:
            self._told.add((job.name, held))
            self.watcher.waiting(job, f"is being done by {held}")

    def _ended(self, job: Job) -> None:
        """Wake the next job on its trajectory, and those that wait for what it makes."""
        self.waiting.wake_first((job.kind, job.trajectory))
        for made in makes(job):
            self.waiting.wake(made)

    def _take(self, event: Event) -> None:
        job = event.job
        self.watcher.event(event)
        if event.kind in {"started", "progress"}:
            return
        if event.kind == "done":
            self.outcome.done += 1
        elif event.kind == "busy":
            if held := holder(self.home.trajectory(job.trajectory).lease(job.kind)):
                self._tell(job, held)
            self.waiting.put_first(job, self.clock() + HOLD_OFF_S)
        elif event.kind == "failed":
            self.outcome.failures.append(Failure(job, event.reason or "failed", event.log))
        elif event.kind == "lost":
            if self.losses.count(job) < MAX_LOST:
                self.waiting.put_first(job)
            else:
                reason = f"{event.reason}, {MAX_LOST} times"
                self.outcome.failures.append(Failure(job, reason, event.log))
        elif event.kind == "preempted" and not self.outcome.interrupted:
            self.waiting.put_first(job)
        self._ended(job)

    def _stuck(self) -> bool:
        """Nothing runs and nothing can start: what is left waits for inputs that nobody is making."""
        return bool(self.waiting) and not any(
            inputs_ready(self.home, job) or self._made_elsewhere(job) for job in self.waiting.jobs()
        )

    def _made_elsewhere(self, job: Job) -> bool:
        """Whether another command is training what this job starts from."""
        sources = [job.trajectory] + ([job.parent.trajectory] if job.parent else [])
        return any(holder(self.home.trajectory(key).lease("train")) for key in sources)
