"""News of a job that is done elsewhere, read from the files of its attempt: no channel but the shared file system."""

from __future__ import annotations

import time

from results.layout import Home
from sweeps.advance import Advance, newest_attempt
from sweeps.attempt import attempt_numbers
from sweeps.backend import Event
from sweeps.jobs import Job

LOOK_EVERY_S = 1.0


class Following:
    """Finds the attempt that a job given now begins, and tells how it gets on.

    The lease allows one attempt of a kind on a trajectory at a time, so a new one of the job's kind is it; where
    another command was faster it is that one's, until the job comes back as busy.
    """

    def __init__(self, home: Home, job: Job) -> None:
        self.job = job
        self.log: str | None = None
        self._folder = home.trajectory(job.trajectory)
        self._before = max(attempt_numbers(self._folder), default=0)
        self._advance: Advance | None = None
        self._told: int | None = None
        self._looked = 0.0

    def news(self) -> list[Event]:
        """``started`` and ``progress`` since the last look; looks at most every `LOOK_EVERY_S`."""
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return []
        self._looked = time.monotonic()
        return self.look()

    def look(self) -> list[Event]:
        """The same, at once."""
        if self._advance is None:
            attempt = newest_attempt(self._folder, self.job, after=self._before)
            if attempt is None:
                return []
            self._advance, self.log = Advance(attempt, self.job.kind), str(attempt / "log.txt")
            return [Event("started", self.job, log=self.log)]
        reached = self._advance.look()
        if reached is None or reached == self._told:
            return []
        self._told = reached
        return [Event("progress", self.job, step=reached)]
