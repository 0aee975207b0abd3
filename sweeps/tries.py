"""The attempts that were made at the work of selected arms: which they are, how each stands, where its log is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results.layout import Home
from results.stored import AttemptRecord
from sweeps.causes import Cause, cause_of
from sweeps.selection import Filter, Selected, Standing
from sweeps.standing import Held, Place, Work, place_of


@dataclass(frozen=True)
class Try:
    """One attempt at some work; ``written`` is when its log last grew, in seconds since the epoch."""

    attempt: AttemptRecord
    work: Work
    standing: Standing
    holder: str | None
    log: Path
    written: float

    @property
    def cause(self) -> Cause | None:
        return None if self.standing == "running" else cause_of(self.attempt)

    @property
    def name(self) -> str:
        return f"{self.work.name}, attempt {self.attempt.attempt}"


def tries(
    home: Home,
    selected: Sequence[Selected],
    found: Sequence[Sequence[Work]],
    attempts: Sequence[AttemptRecord],
    held: Held,
    asked: Filter,
) -> list[Try]:
    """The attempts at selected work that a filter means: those that run last, then by when they last wrote.

    Args:
        attempts: those on the trajectories of the work, oldest first.
    """
    newest = {(one.kind, one.trajectory): one.attempt for one in attempts}
    made: dict[tuple[str, int], Try] = {}
    for one, works in zip(selected, found, strict=True):
        needed: dict[Place, Work] = {work.place: work for work in works}
        ends = {key: node.boundaries() for key, node in one.stored.session.tree.nodes.items()}
        for attempt in attempts:
            work = needed.get(place_of(ends, attempt)) if attempt.trajectory in ends else None
            if work is not None:
                asks = held if newest[attempt.kind, attempt.trajectory] == attempt.attempt else None
                made.setdefault((attempt.trajectory, attempt.attempt), _try(home, attempt, work, asks))
    kept = (one for one in made.values() if asked.wants(one.standing, one.work.kind))
    return sorted(kept, key=lambda one: (one.standing == "running", one.written, one.attempt.attempt))


def _try(home: Home, attempt: AttemptRecord, work: Work, held: Held | None) -> Try:
    holder = held(attempt) if held and attempt.status == "unfinished" else None
    folder = home.trajectory(attempt.trajectory).attempt(attempt.attempt)
    return Try(attempt, work, _standing(attempt, holder), holder, folder / "log.txt", _written(folder))


def _standing(attempt: AttemptRecord, holder: str | None) -> Standing:
    if attempt.status == "unfinished":
        return "running" if holder else "lost"
    return "done" if attempt.status == "done" else "preempted" if attempt.status == "preempted" else "failed"


def _written(folder: Path) -> float:
    return max((p.stat().st_mtime for p in (folder / "log.txt", folder / "segment.json") if p.exists()), default=0.0)
