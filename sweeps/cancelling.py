"""Asking for work to end, in files: whoever works on a trajectory, on whatever machine, looks for the request.

A request is an empty file beside the lease. It concerns what was asked for before it was made, whether it is begun or
still on its way to a worker; so whoever is asked to do the work afterwards does it.
"""

from __future__ import annotations

import os
import tempfile
import time

from results.layout import Home
from sweeps.jobs import Job

CANCELLED = "cancelled on request"
LOOK_S = 1.0


def moment(home: Home) -> float:
    """Now, in seconds since the epoch, by the clock that dates requests: the file system's, which may be another
    machine's."""
    home.root.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=home.root, prefix=".now-") as file:
        return os.fstat(file.fileno()).st_mtime


def request(home: Home, trajectory: str, kind: str) -> None:
    """Ask for all work of a kind on a trajectory to end."""
    path = home.trajectory(trajectory).cancelled(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def requested(home: Home, job: Job, since: float) -> bool:
    """Whether a job was asked to end since a `moment`."""
    try:
        return home.trajectory(job.trajectory).cancelled(job.kind).stat().st_mtime >= since
    except FileNotFoundError:
        return False


def ever_requested(home: Home, trajectory: str, kind: str) -> bool:
    """Whether work of a kind on a trajectory was asked to end at any time."""
    return home.trajectory(trajectory).cancelled(kind).exists()


class Request:
    """Whether a job that was asked for at a moment (as in `requested`) was asked to end; looked up once in a while."""

    def __init__(self, home: Home, job: Job, asked: float) -> None:
        self.home, self.job, self.since = home, job, asked
        self.made, self._next = False, 0.0

    def __call__(self) -> bool:
        if not self.made and time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK_S
            self.made = requested(self.home, self.job, self.since)
        return self.made
