"""Appending to a file of JSON lines that several processes share."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable
from pathlib import Path


def append_lines(path: Path, choose: Callable[[bytes], str]) -> None:
    """Append what ``choose`` makes of the file's content (the file is made if it is not there). Nobody else appends
    meanwhile; a last line that was cut off is removed first, since a line counts once its newline is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        with contextlib.suppress(OSError):  # no locks on this file system: a line might then stand twice
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        lines = choose(content[:whole])
        file.truncate(whole)
        file.write(lines.encode())
