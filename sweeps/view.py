"""How the work of what is selected stands in a home, looked up again and again with as little reading as may be."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from results.ingest import ingest
from results.layout import Home
from results.stored import AttemptRecord, attempt_records, evaluated_keys_of
from sweeps.advance import Advance
from sweeps.lease import holder
from sweeps.plan import Inventory, take_inventory
from sweeps.queued import queued_jobs
from sweeps.selection import Selected
from sweeps.standing import Held, Work, works


def held_in(home: Home) -> Held:
    """Who works on an unfinished attempt, as its lease says. Leases are few: only those of the newest are asked."""

    def held(attempt: AttemptRecord) -> str | None:
        folder = home.trajectory(attempt.trajectory)
        found = holder(folder.lease(attempt.kind or "train"))
        if found is None and (folder.attempt(attempt.attempt) / "DONE.json").exists():
            return "a process that has just ended"  # between our reading of the attempt and of its lease
        return found

    return held


class View:
    """What is done stays done while one looks, so every look after the first reads only about what is not."""

    def __init__(self, engine: Engine, home: Home, selected: Sequence[Selected]) -> None:
        self.engine, self.home, self.selected = engine, home, selected
        self.open = {stage.trajectory.key for one in selected for arm in one.arms for stage in arm.stages}
        self.have = Inventory()

    def look(self) -> list[list[Work]]:
        """The work of each selected study. The store must be up to date (`refresh`)."""
        now = take_inventory(self.home, self.open, ())
        self.have.full |= now.full
        self.have.snapshots |= now.snapshots
        self.have.evaluated |= evaluated_keys_of(self.engine, self.open)
        attempts = attempt_records(self.engine, self.open)
        queued, held = queued_jobs(self.home), held_in(self.home)
        found = [works(one.stored.session, one.arms, self.have, attempts, held, queued) for one in self.selected]
        self.open = {work.trajectory for some in found for work in some if work.standing != "done"}
        return found

    def refresh(self) -> list[list[Work]]:
        """Take into the store what is new about what is not done, then look."""
        ingest(self.engine, self.home, only=self.open)
        return self.look()


def reached(home: Home, work: Work) -> int | None:
    """The last step that the attempt at a segment has logged, or the number of evaluations that it has measured; None
    where it has written nothing."""
    if work.attempt is None:
        return None
    return Advance(home.trajectory(work.trajectory).attempt(work.attempt.attempt), work.kind).look()
