"""What is asked of a backend under test, and looking into the homes that it works on.

A new backend becomes one more `Subject` in `tests/sweeps/test_conformance.py`, and has to pass what is there.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from meanflow_core.checkpoint import load_checkpoint
from results.layout import Home
from sweeps.backend import Backend, Event, Watcher
from sweeps.jobs import Job
from sweeps.lease import holder
from tests.homes import attempts, dump, tensors, unfinished

Open = Callable[[Home, Sequence[Job], Watcher], AbstractContextManager[Backend]]


@dataclass(frozen=True)
class Subject:
    """A backend under test: how it is opened, what `study run` takes to use it, and how soon after the death of the
    command nothing of it may run any more."""

    name: str
    open: Open
    args: tuple[str, ...]
    gone_within_s: float = 10.0
    outlives: bool = False
    """Whether its jobs go on when the command ends."""


@dataclass
class Recorder:
    """A watcher that remembers."""

    events: list[Event] = field(default_factory=list)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def waiting(self, job: Job, why: str) -> None: ...

    def tick(self, running: Sequence[Job]) -> None: ...

    def count(self, kind: str) -> Counter[str]:
        """How often there was an event of a kind, by the job's name."""
        return Counter(event.job.name for event in self.events if event.kind == kind)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def ends(home: Path) -> list[dict[str, Any]]:
    """Every ``DONE.json``."""
    return [read(folder / "DONE.json") for folder in attempts(home) if (folder / "DONE.json").exists()]


def evaluated(home: Path) -> Counter[str]:
    """How often each evaluation was recorded."""
    lines = (line for folder in attempts(home) for line in (folder / "metrics.jsonl").read_text().splitlines())
    records = (json.loads(line) for line in lines if line.startswith('{"type": "evaluation"'))
    return Counter(record["evaluation"] for record in records)


def worker_of(attempt: Path) -> int | None:
    """The process that works on an attempt, by its lease; None where it has ended."""
    kind = "train" if read(attempt / "segment.json")["kind"] == "train" else "evaluate"
    path = Home(attempt.parents[3]).trajectory(attempt.parents[1].name).lease(kind)
    try:
        return int(read(path)["pid"]) if holder(path) else None
    except (OSError, ValueError):
        return None


def working(home: Path) -> list[int]:
    """The processes that work on this home, by their leases."""
    leases = (path for path in home.glob("trajectories/*/*.lease") if holder(path))
    return [int(read(path)["pid"]) for path in leases]


def kill_worker(attempt: Path) -> int | None:
    """Kill -9 the process that works on an attempt. Returns: its id, or None where there is none."""
    try:
        pid = worker_of(attempt)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    return pid


def assert_equal_to(reference: Path, home: Path) -> None:
    """Same tensors wherever both have them, nothing of the reference missing, nothing published half."""
    expected, found = tensors(reference), tensors(home)
    left_over = "rolling checkpoints of killed attempts may be left; all else is the reference's"
    assert expected.items() <= found.items(), left_over
    for folder in home.glob("trajectories/*/checkpoints/*"):
        load_checkpoint(folder)
    assert dump(home) == dump(reference)


def begun(home: Path, stop_step: int) -> set[Path]:
    """The attempts to train up to a step that have not ended."""
    found = set()
    for folder in unfinished(home):
        try:
            job = read(folder / "segment.json")
        except (OSError, ValueError):
            continue
        if (job["kind"], job["stop_step"]) == ("train", stop_step):
            found.add(folder)
    return found
