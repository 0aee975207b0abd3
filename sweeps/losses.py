"""How often a job has got lost: a long one may meet any number of failing nodes, if it gets further in between."""

from __future__ import annotations

from collections.abc import Callable

from results.layout import Home, TrajectoryDir
from sweeps.attempt import recorded_evaluations
from sweeps.jobs import Job
from sweeps.needs import progress

MAX_LOST = 3


class Losses:
    """Counts losses of jobs since each last got further (a checkpoint, or an evaluation)."""

    def __init__(self, home: Home, recorded: Callable[[TrajectoryDir], set[str]] = recorded_evaluations) -> None:
        self.home, self.recorded = home, recorded
        self._seen: dict[str, tuple[int, int]] = {}  # by job, how often, and how far it was

    def count(self, job: Job) -> int:
        """One more. Returns: how many there are now."""
        losses, before = self._seen.get(job.name, (0, None))
        reached = progress(self.home, job, self.recorded)
        self._seen[job.name] = (1 if before is None or reached > before else losses + 1, reached)
        return self._seen[job.name][0]
