"""The command line: ``study``. It alone sees every package, and nobody imports it.

Each command imports what it needs when it runs, so that ``study --help``, ``list`` and ``report`` start in a blink.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

__all__ = ["main"]

UNREAD = 141  # what a shell says of a command that was ended by SIGPIPE


def main() -> None:
    """Entry point. Expected errors become one message on stderr and exit status 2; bugs keep their traceback."""
    _open_streams()
    from studies.cli.stopping import heed, interrupt, leave

    heed(leave)
    from studies.cli.app import app  # here, since workers import this module too, as what their parent was started with

    heed(interrupt)
    atexit.register(gc.freeze)  # the interpreter would search all that was imported for garbage: up to a second
    os.environ["MPLBACKEND"] = "agg"  # figures become files; no other backend is needed, nor has to be there
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no arrows still gets the words
    status = _status(app)
    for stream in (sys.stdout, sys.stderr):
        if lost := _flush(stream):
            status = UNREAD if isinstance(lost, BrokenPipeError) else 2
            _complain(f"the output is not complete: {lost.strerror}")
    sys.exit(status)


def _status(app: Callable[[], object]) -> int:
    """Run a command. Returns: its exit status."""
    from studies.cli import failures, stopping

    try:
        app()
    except BaseException as error:
        if asked := stopping.interruption(error):
            _complain(stopping.in_words(asked))
            return stopping.exit_status(asked)
        if isinstance(error, SystemExit):
            if isinstance(error.__context__, BrokenPipeError):  # typer and rich end it so
                return UNREAD
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        message = failures.in_words(error) if isinstance(error, Exception) else None
        if message is None:
            raise
        _complain(f"error: {message}")
        return 2
    return 0


def _open_streams() -> None:
    """Let standard streams that are closed lead nowhere; else the next file that is opened would take their place."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)
        sys.stdin, sys.stdout, sys.stderr = (
            stream or open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            for number, (stream, mode) in enumerate(((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w")))
        )


def _complain(words: str) -> None:
    with contextlib.suppress(OSError):  # there may be nowhere to say it
        sys.stderr.write(f"{words}\n")


def _flush(stream: TextIO) -> OSError | None:
    """Write what is left. Returns: why that cannot be; then the rest leads nowhere, or the interpreter would try again
    at its end."""
    try:
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return error
    return None
