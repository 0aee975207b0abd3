"""The SLURM backend: submits what is missing, then follows the queue until everything asked for has ended.

The cluster does the work whether anybody follows or not: stopping the command leaves its jobs in the queue, and the
same command finds them there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from results.layout import Home
from sweeps.advance import Advance, newest_attempt
from sweeps.backend import Event, Failure, Outcome, Watcher
from sweeps.cancelling import CANCELLED, moment, requested
from sweeps.jobs import Job
from sweeps.losses import MAX_LOST, Losses
from sweeps.needs import inputs_ready, outputs_there, producers
from sweeps.slurm import queue as slurm
from sweeps.slurm.live import Placed
from sweeps.slurm.profile import Cluster
from sweeps.slurm.queue import Queued, SlurmDown
from sweeps.slurm.submit import Seconds, submit_missing
from sweeps.waiting import rest

FILES_PATIENCE_S = 60.0

REASONS = {
    "TIMEOUT": "its time limit ended it before it could save: raise signal_before_s in the cluster profile",
    "OUT_OF_MEMORY": "out of memory: raise memory_gib in the cluster profile",
    "CANCELLED": "cancelled",
    "NODE_FAIL": "lost: its node failed",
    "BOOT_FAIL": "lost: its node did not start",
}


class SlurmBackend:
    """Executes jobs on a cluster. With ``detach``, `run` ends as soon as all is submitted. Jobs were ``asked`` for at
    that `moment`, by default now."""

    def __init__(
        self,
        home: Home,
        jobs: Sequence[Job],
        watcher: Watcher,
        cluster: Cluster,
        seconds: Seconds = lambda job: None,
        detach: bool = False,
        asked: float | None = None,
    ) -> None:
        self.home, self.watcher, self.cluster, self.seconds, self.detach = home, watcher, cluster, seconds, detach
        self.open = list(jobs)
        self._asked = moment(home) if asked is None else asked
        self.outcome = Outcome()
        self.losses = Losses(home)
        self._announced: set[str] = set()
        self._advances: dict[Path, Advance] = {}
        self._stuck: set[tuple[str, str]] = set()  # ids and why, as said

    def stop(self) -> None:
        """Ask `run` to end; the jobs stay in the queue. A signal handler may call this."""
        self.outcome.interrupted = True

    def waits_for(self) -> str:
        return "stopping as soon as SLURM has answered; the jobs stay in its queue"

    def run(self) -> Outcome:
        """Submit and follow until everything has ended; what was lost on the way is submitted again.

        Raises: SlurmError, StudyError where nothing can be submitted.
        """
        while not self.outcome.interrupted and self._drop_cancelled() and self._drop_blocked():
            placed = submit_missing(self.home, self.open, self.cluster, self.seconds, self._say_waiting)
            for job in [job for place, job in enumerate(self.open) if place not in placed]:
                self._done(job)
            if self.detach:
                break
            self._follow(placed.values())
        self.outcome.left = list(self.open)
        return self.outcome

    def _drop_cancelled(self) -> list[Job]:
        """Set aside what was cancelled after it had been lost, and would be submitted again. Returns: what is left."""
        for job in [job for job in self.open if requested(self.home, job, self._asked)]:
            self._fail(job, CANCELLED, None)
        return self.open

    def _drop_blocked(self) -> list[Job]:
        """Set aside what can never run: its inputs are not there, and no open job makes them. Returns: what is left."""
        while True:
            made = producers(self.open)
            pairs = zip(self.open, made, strict=True)
            stuck = [job for job, after in pairs if not after and not inputs_ready(self.home, job)]
            if not stuck:
                return self.open
            self.outcome.blocked.extend(stuck)
            self.open = [job for job in self.open if job not in stuck]

    def _follow(self, placed: Iterable[Placed]) -> None:
        """Watch the queue until none of these jobs is in it, or we are stopped."""
        waiting, running = {one.slurm_id: one for one in placed}, set[str]()
        gone: dict[str, float] = {}
        while waiting and not self._pause():
            try:
                queued = slurm.queue()
            except SlurmDown as error:
                self._say_down(error)
                self.watcher.tick([waiting[slurm_id].job for slurm_id in running])
                continue
            self._cancel_hopeless(waiting, queued)
            self._say_stuck(waiting, queued)
            for slurm_id, one in list(waiting.items()):
                if slurm_id in queued:
                    self._look(one, queued[slurm_id], running)
                elif self._settle(one, gone.setdefault(slurm_id, time.monotonic())):
                    waiting.pop(slurm_id)
                    running.discard(slurm_id)
            self.watcher.tick([waiting[slurm_id].job for slurm_id in running])

    def _pause(self) -> bool:
        """Wait until the next look. Returns: whether we are to stop."""
        rest(self.cluster.poll_s, lambda: self.outcome.interrupted)
        return self.outcome.interrupted

    def _say_down(self, error: SlurmDown) -> None:
        self._say_waiting(f"waits for SLURM, which does not answer at present ({error})")

    def _say_waiting(self, why: str) -> None:
        for job in self.open[:1]:
            self.watcher.waiting(job, why)

    def _cancel_hopeless(self, waiting: dict[str, Placed], queued: dict[str, Queued]) -> None:
        """Jobs whose dependency failed would wait for ever where the cluster does not end them by itself."""
        hopeless = [i for i in waiting if i in queued and queued[i].reason == slurm.NEVER]
        if hopeless:
            slurm.cancel(hopeless)

    def _say_stuck(self, waiting: dict[str, Placed], queued: dict[str, Queued]) -> None:
        """What may wait until somebody does something: each once, and of many at a time one and how many more."""
        found: dict[str, list[Queued]] = {}
        for slurm_id in waiting.keys() & queued.keys():
            one = queued[slurm_id]
            if one.stuck and (slurm_id, one.reason) not in self._stuck:
                self._stuck.add((slurm_id, one.reason))
                found.setdefault(one.reason, []).append(one)
        for alike in found.values():
            first, *others = sorted(alike, key=lambda one: one.slurm_id)
            more = f"; so are {len(others)} more" if others else ""
            self.watcher.waiting(waiting[first.slurm_id].job, f"{first.stuck}{more}")

    def _look(self, one: Placed, state: Queued, running: set[str]) -> None:
        if state.running:
            running.add(one.slurm_id)
            if (attempt := self._attempt(one.job)) is not None:
                self._announce(one, attempt)
                advance = self._advances.setdefault(attempt, Advance(attempt, one.job.kind))
                if (reached := advance.look()) is not None:
                    self.watcher.event(Event("progress", one.job, step=reached))
        elif one.slurm_id in running:
            running.remove(one.slurm_id)
            self.watcher.event(Event("preempted", one.job, reason="back in the queue"))

    def _attempt(self, job: Job) -> Path | None:
        return newest_attempt(self.home.trajectory(job.trajectory), job)

    def _announce(self, one: Placed, attempt: Path) -> None:
        if one.slurm_id not in self._announced:
            self._announced.add(one.slurm_id)
            self.watcher.event(Event("started", one.job, log=str(attempt / "log.txt")))

    def _settle(self, one: Placed, since: float) -> bool:
        """Find out how a job that left the queue ended. Returns: whether that is known."""
        said = one.submission.outcomes(one.index)
        if (attempt := self._attempt(one.job)) is not None:
            self._announce(one, attempt)  # it may have come and gone between two looks
        if outputs_there(self.home, one.job):
            self._done(one.job)
            return True
        if (not said or said[-1].status == "done") and time.monotonic() - since < self._patience_s:
            return False
        status = said[-1].status if said else None
        if said and status in {"failed", "busy", "cancelled"}:
            self._fail(one.job, said[-1].reason or said[-1].status, said[-1].log)
        elif status == "missing" or (status is None and not inputs_ready(self.home, one.job)):
            # Not its own fault: when its producer is run again so is it, and else it is blocked.
            self.watcher.event(Event("lost", one.job, reason="what it waits for did not end well"))
        else:
            why = said[-1].reason if status == "lost" else None
            self._lose(one.job, (slurm.ended(one.slurm_id) or "nothing").split()[0].rstrip("+"), why)
        return True

    @property
    def _patience_s(self) -> float:
        """How long results of a job that ended may take to be seen here."""
        return min(FILES_PATIENCE_S, 2 * self.cluster.poll_s)

    def _lose(self, job: Job, state: str, why: str | None = None) -> None:
        """A job ended without its results and without a word, or one of its processes did: again, a bounded number of
        times, unless that is vain."""
        reason = REASONS.get(state, f"lost: {why or f'SLURM says {state}'}")
        if state in {"OUT_OF_MEMORY", "CANCELLED"}:
            self._fail(job, reason, None)
        elif self.losses.count(job) >= MAX_LOST:
            self._fail(job, f"{reason}, {MAX_LOST} times", None)
        else:
            self.watcher.event(Event("lost", job, reason=reason))

    def _done(self, job: Job) -> None:
        self._close(Event("done", job))
        self.outcome.done += 1

    def _fail(self, job: Job, reason: str, log: str | None) -> None:
        self._close(Event("failed", job, reason=reason, log=log))
        self.outcome.failures.append(Failure(job, reason, log))

    def _close(self, event: Event) -> None:
        self.watcher.event(event)
        self.open.remove(event.job)
