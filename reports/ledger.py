"""The verdicts shown so far: JSON lines, append-only (see docs/architecture.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.errors import ReportError
from reports.verdicts import Verdict, same_claim, substance


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """All verdicts shown so far; a last line that was cut off is left out."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").split("\n")[:-1]
    verdicts = []
    for number, line in enumerate(whole, 1):
        try:
            verdicts += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise ReportError(f"{path}, line {number}: not JSON ({error}); repair or move the file") from None
    return verdicts


def append_verdicts(path: Path, previous: Sequence[dict[str, Any]], verdicts: Sequence[Verdict]) -> None:
    """Append each verdict that differs in substance from the last recorded one on the same claim."""
    new = []
    for verdict in verdicts:
        line = json.loads(json.dumps(verdict.to_json()))
        last = next((p for p in reversed(previous) if same_claim(p, verdict)), None)
        if last is None or substance(last) != substance(line):
            new.append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    if not new:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)  # a line counts once its newline is there
        file.write("".join(new).encode())
