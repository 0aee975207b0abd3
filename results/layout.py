"""Where things lie in a home (see docs/architecture.md). Paths only; nothing is read or written here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import URL

FORMAT = 1


def default_home() -> Path:
    """``$STUDY_HOME``, else ``./study_home``."""
    return Path(os.environ.get("STUDY_HOME") or "study_home")


@dataclass(frozen=True)
class TrajectoryDir:
    """The folder of one trajectory."""

    root: Path

    @property
    def description(self) -> Path:
        return self.root / "trajectory.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    @property
    def released(self) -> Path:
        """Empty files named by the steps whose full state was let go on purpose."""
        return self.root / "released"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"{step:09d}"

    def snapshot(self, step: int) -> Path:
        return self.snapshots / f"{step:09d}"

    def release(self, step: int) -> Path:
        return self.released / f"{step:09d}"

    def attempt(self, number: int) -> Path:
        return self.attempts / f"{number:04d}"

    def artefact(self, attempt: int, metric: str, evaluation: str) -> Path:
        """What an attempt keeps of an evaluation besides its number."""
        return self.attempt(attempt) / f"{metric}-{evaluation}.npy"

    def lease(self, kind: str) -> Path:
        return self.root / f"{kind}.lease"

    def cancelled(self, kind: str) -> Path:
        """The request to end work of a kind."""
        return self.root / f"{kind}.cancelled"

    @property
    def leases(self) -> tuple[Path, Path]:
        """Who holds both is alone with the trajectory."""
        return self.lease("train"), self.lease("evaluate")


@dataclass(frozen=True)
class Home:
    """The folder that holds a user's runs, trajectories and store."""

    root: Path

    @property
    def store_url(self) -> URL:
        """Where the home's store is (`results.owner.store_url`). Raises: StoreError."""
        from results.owner import store_url

        return store_url(self)

    @property
    def ident(self) -> Path:
        """The home's id, by which a store knows whose it is."""
        return self.root / "home.json"

    @property
    def store(self) -> Path:
        """The SQLite file, unless the store lies elsewhere."""
        return self.root / "store.sqlite"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def trajectories(self) -> Path:
        return self.root / "trajectories"

    @property
    def submissions(self) -> Path:
        """What was given to a batch system."""
        return self.root / "submissions"

    @property
    def calibration(self) -> Path:
        return self.root / "calibration.json"

    @property
    def verified(self) -> Path:
        """What `study verify` found of trainers of the user's own: a file a dynamics."""
        return self.root / "verified"

    @property
    def floors(self) -> Path:
        """What samples of the data's own law would score: a file a protocol (`meanflow_core.evaluation.floor`)."""
        return self.root / "floors"

    def floor(self, protocol: str) -> Path:
        return self.floors / f"{protocol}.json"

    @property
    def gc_lease(self) -> Path:
        return self.root / "gc.lease"

    @property
    def verdicts(self) -> Path:
        return self.root / "verdicts.jsonl"

    def run(self, name: str) -> Path:
        return self.runs / name

    def trajectory(self, key: str) -> TrajectoryDir:
        return TrajectoryDir(self.trajectories / key)
