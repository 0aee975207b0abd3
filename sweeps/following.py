"""News of a job that is done elsewhere, read from the files of its attempt: no channel but the shared file system."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from results.layout import Home
from sweeps.backend import Event
from sweeps.jobs import Job

LOOK_EVERY_S = 1.0


class Following:
    """Finds the attempt that a job given now begins, and tells how it gets on.

    The lease allows one attempt of a kind on a trajectory at a time, so the first new one of the job's kind is it;
    where another command was faster it is that one's, until the job comes back as busy.
    """

    def __init__(self, home: Home, job: Job) -> None:
        self.job = job
        self.attempt: Path | None = None
        self._attempts = home.trajectory(job.trajectory).attempts
        self._seen = set(self._folders())
        self._read = 0  # bytes of its metrics
        self._reached = 0
        self._looked = 0.0

    @property
    def log(self) -> str | None:
        return str(self.attempt / "log.txt") if self.attempt else None

    def news(self) -> list[Event]:
        """``started`` and ``progress`` since the last look; looks at most every `LOOK_EVERY_S`."""
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return []
        self._looked = time.monotonic()
        return self.look()

    def look(self) -> list[Event]:
        """The same, at once."""
        if self.attempt is None:
            self.attempt = self._find()
            return [Event("started", self.job, log=self.log)] if self.attempt else []
        before = self._reached
        self._read_on(self.attempt / "metrics.jsonl")
        return [Event("progress", self.job, step=self._reached)] if self._reached > before else []

    def _folders(self) -> list[Path]:
        return sorted(p for p in self._attempts.glob("[0-9]*") if p.name.isdigit())

    def _find(self) -> Path | None:
        for folder in self._folders():
            if folder in self._seen:
                continue
            try:
                kind = json.loads((folder / "segment.json").read_text())["kind"]
            except (OSError, ValueError, KeyError):
                continue  # it is just being made
            if kind == self.job.kind:
                return folder
            self._seen.add(folder)
        return None

    def _read_on(self, path: Path) -> None:
        """The step reached in training, which is known wherever it is logged; the number of evaluations done."""
        try:
            with path.open("rb") as file:
                file.seek(self._read)
                lines = file.read().splitlines(keepends=True)
        except OSError:  # not there yet; or a file system that hiccups: the next look tries again
            return
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._read += len(line)
            with contextlib.suppress(ValueError, KeyError):  # damaged lines count for nothing, here as in the store
                record = json.loads(line)
                if self.job.kind == "train":
                    self._reached = max(self._reached, record["step"])
                else:
                    self._reached += record["type"] == "evaluation"
