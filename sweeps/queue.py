"""Jobs that wait, in order. One that cannot start sleeps on what it waits for, so that a look at the queue costs what
has changed, not what is waiting."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from heapq import heapify, heappop, heappush
from itertools import islice

from sweeps.jobs import Job


class Queue:
    """Every job in it has a place, and is *due* (to be looked at), *asleep* on a reason, or *delayed* until a time.

    Whoever takes one with `next` must say what becomes of it: `remove`, `sleep` or `delay`.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = dict(enumerate(jobs))
        self._due = list(self._jobs)
        heapify(self._due)
        self._delayed: list[tuple[float, int]] = []
        self._reasons: dict[int, Hashable] = {}  # of those asleep, the longest asleep first
        self._sleepers: dict[Hashable, dict[int, None]] = {}
        self._front = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def jobs(self) -> list[Job]:
        """All that wait, in order."""
        return [self._jobs[place] for place in sorted(self._jobs)]

    def put_first(self, job: Job, not_before: float | None = None) -> None:
        """Add a job before all others, due now or at a time."""
        self._front -= 1
        self._jobs[self._front] = job
        if not_before is None:
            heappush(self._due, self._front)
        else:
            self.delay(self._front, not_before)

    def next(self, now: float) -> tuple[int, Job] | None:
        """Place and job of the first that is due."""
        while self._delayed and self._delayed[0][0] <= now:
            heappush(self._due, heappop(self._delayed)[1])
        if not self._due:
            return None
        place = heappop(self._due)
        return place, self._jobs[place]

    def remove(self, place: int) -> None:
        del self._jobs[place]

    def delay(self, place: int, until: float) -> None:
        heappush(self._delayed, (until, place))

    def sleep(self, place: int, reason: Hashable) -> None:
        self._reasons[place] = reason
        self._sleepers.setdefault(reason, {})[place] = None

    def wake(self, reason: Hashable) -> None:
        """What waits for this is due."""
        for place in list(self._sleepers.get(reason, ())):
            self._wake(place)

    def wake_first(self, reason: Hashable) -> None:
        """The first of those that wait for this is due."""
        if sleepers := self._sleepers.get(reason):
            self._wake(min(sleepers))

    def wake_some(self, number: int | None = None) -> None:
        """So many of those that have slept longest are due (or all), whatever they wait for."""
        for place in list(islice(self._reasons, number)):
            self._wake(place)

    def _wake(self, place: int) -> None:
        reason = self._reasons.pop(place)
        sleepers = self._sleepers[reason]
        del sleepers[place]
        if not sleepers:
            del self._sleepers[reason]
        heappush(self._due, place)
