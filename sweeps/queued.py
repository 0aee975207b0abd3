"""Jobs that wait in a queue outside of this program, as the backends that put them there know."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from results.layout import Home


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits: the work is told by kind, trajectory and the step that it ends at; ``where`` in words."""

    kind: Literal["train", "evaluate"]
    trajectory: str
    stop_step: int
    where: str


Queue = Callable[[Home], Iterator[QueuedJob]]

# "module:function" of a `Queue` each. Imported when somebody looks, so a queue imports its cluster's library only where
# the home holds something that it submitted. The local pool has no queue that outlives its command.
QUEUES: list[str] = []


def queued_jobs(home: Home) -> list[QueuedJob]:
    """All jobs of a home that wait somewhere."""
    found: list[QueuedJob] = []
    for place in QUEUES:
        module, _, name = place.partition(":")
        queue: Queue = getattr(importlib.import_module(module), name)
        found.extend(queue(home))
    return found
