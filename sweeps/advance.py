"""How far an attempt has come, from the lines that it writes as it goes: no channel but the file system."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from results.layout import TrajectoryDir
from sweeps.attempt import attempt_numbers
from sweeps.jobs import Job
from sweeps.selection import Kind


def new_lines(path: Path, offset: int) -> tuple[bytes, int]:
    """The whole lines of a growing file from an offset on, and the offset after them. A file that is not there yet, or
    a file system that hiccups, has none: the next look tries again."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            head, newline, _ = file.read().rpartition(b"\n")
    except OSError:
        return b"", offset
    return head + newline, offset + len(head) + len(newline)


class Advance:
    """How far one attempt at work of a kind has come. Each line is read once, however often one looks."""

    def __init__(self, attempt: Path, kind: Kind) -> None:
        self.kind = kind
        self._metrics = attempt / "metrics.jsonl"
        self._offset = 0
        self._reached: int | None = None

    def look(self) -> int | None:
        """The last step that an attempt at training has logged, or how many evaluations it has recorded; None where it
        has recorded nothing. Damaged lines count for nothing, here as in the store."""
        lines, self._offset = new_lines(self._metrics, self._offset)
        for line in lines.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._take(json.loads(line))
        return self._reached

    def _take(self, record: dict[str, Any]) -> None:
        if self.kind == "train" and record["type"] == "metrics":
            self._reached = max(self._reached or 0, record["step"])
        elif self.kind == "evaluate" and record["type"] == "evaluation":
            self._reached = (self._reached or 0) + 1


def newest_attempt(folder: TrajectoryDir, job: Job, after: int = 0) -> Path | None:
    """The newest attempt at work of a job's kind on its trajectory, of those with a higher number than ``after``."""
    for number in sorted(attempt_numbers(folder), reverse=True):
        if number > after and _kind(folder.attempt(number)) == job.kind:
            return folder.attempt(number)
    return None


def _kind(attempt: Path) -> str | None:
    try:
        kind: str = json.loads((attempt / "segment.json").read_bytes())["kind"]
    except (OSError, ValueError, KeyError):
        return None  # it is just being made
    return kind
