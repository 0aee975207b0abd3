"""The contract of what executes jobs: the local pool, Ray and SLURM.

A *backend* is given all the jobs that are missing (parents before children) and executes them; it can be stopped and
started again at will, and what it makes is the same. *Workers* are the simpler kind: they do one job after another, as
a `sweeps.scheduler.Scheduler` hands them out. Torch-free, so that progress can be shown without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from sweeps.jobs import Job

TAIL_LINES = 12
PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True)
class Event:
    """News of a job: ``started`` and ``progress`` while it runs, then one of the others.

    ``step`` is the step reached, or the number of evaluations done, where that is known; else 0.

    ``lost`` means that its process died without a word (killed, or out of memory).
    """

    kind: Literal["started", "progress", "done", "failed", "preempted", "busy", "lost"]
    job: Job
    step: int = 0
    reason: str | None = None
    log: str | None = None


class Paced:
    """Passes progress on, at most every `PROGRESS_EVERY_S`, and remembers how far it is."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.step = 0
        self._tell, self._told = tell, time.monotonic()

    def __call__(self, step: int) -> None:
        self.step = step
        if time.monotonic() - self._told > PROGRESS_EVERY_S:
            self._told = time.monotonic()
            self._tell(step)


class Watcher(Protocol):
    """Whoever shows progress."""

    def event(self, event: Event) -> None: ...

    def waiting(self, job: Job, why: str) -> None:
        """``why`` goes on where the job's name ended: "is being done by ..."."""

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
    """How a run ended. ``left`` are jobs that a cluster goes on with after the command has ended."""

    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    blocked: list[Job] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        return not self.failures and not self.blocked and not self.left and not self.interrupted


class Backend(Protocol):
    """Executes jobs until all are done, nothing can go on, or it is stopped."""

    def run(self) -> Outcome: ...

    def stop(self) -> None:
        """Ask `run` to end early. A signal handler may call this."""

    def waits_for(self) -> str:
        """What `run` waits for once it is stopped. A signal handler may call this."""


class Workers(Protocol):
    """What does jobs one by one, several at a time. Used as a context manager; leaving it stops them."""

    def idle(self) -> int:
        """How many more jobs can be given now."""

    def running(self) -> Sequence[Job]: ...

    def submit(self, job: Job, asked: float | None = None) -> None:
        """Give a job, of which its inputs are published; never more than `idle` allows. It was ``asked`` for at that
        moment (seconds since the epoch; None: when it begins): it heeds requests to end it that were made since."""

    def wait(self, timeout: float) -> list[Event]:
        """Events that have come, waiting up to ``timeout`` seconds for the first."""

    def stop(self) -> list[Event]:
        """Ask every job to stop at a step boundary and save; end what does not in time. Returns the last events."""
