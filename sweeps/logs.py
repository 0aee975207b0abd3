"""Where the output of a worker process goes: into the log of the attempt it works on, C libraries included."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OUTPUTS = (1, 2)


def log_to(path: Path) -> None:
    """Append everything that this process prints from now on to a file."""
    _flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for output in _OUTPUTS:
        os.dup2(descriptor, output)
    os.close(descriptor)


@contextmanager
def output_restored() -> Iterator[None]:
    """Afterwards output goes where it went before, whatever `log_to` did inside: for a process that is not ours."""
    before = [os.dup(output) for output in _OUTPUTS]
    try:
        yield
    finally:
        _flush()
        for output, descriptor in zip(_OUTPUTS, before, strict=True):
            os.dup2(descriptor, output)
            os.close(descriptor)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
