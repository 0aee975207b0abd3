"""The verdicts shown so far: JSON lines, append-only (see docs/architecture.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.errors import ReportError
from reports.verdicts import Verdict, same_claim, substance
from results.appending import append_lines


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """All verdicts shown so far; a last line that was cut off is left out."""
    return _parse(path.read_bytes(), path) if path.exists() else []


def _parse(content: bytes, path: Path) -> list[dict[str, Any]]:
    verdicts: list[dict[str, Any]] = []
    for number, line in enumerate(content.decode().split("\n")[:-1], 1):
        try:
            verdicts += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise ReportError(f"{path}, line {number}: not JSON ({error}); repair or move the file") from None
    return verdicts


def record_verdicts(path: Path, verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Append each verdict that differs in substance from the last recorded one on the same claim; returns what had
    been recorded before. Several processes may do so at once."""
    previous = read_verdicts(path)
    if not new_lines(previous, verdicts):
        return previous
    previous = []

    def new(content: bytes) -> str:
        previous.extend(_parse(content, path))  # again: another may have appended meanwhile
        return "".join(new_lines(previous, verdicts))

    append_lines(path, new)
    return previous


def new_lines(previous: Sequence[dict[str, Any]], verdicts: Sequence[Verdict]) -> list[str]:
    """The lines that have to be appended for these verdicts."""
    lines = []
    for verdict in verdicts:
        line = json.loads(json.dumps(verdict.to_json()))
        last = next((p for p in reversed(previous) if same_claim(p, verdict)), None)
        if last is None or substance(last) != substance(line):
            lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    return lines
