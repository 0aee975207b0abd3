"""The command line: ``study``. It alone sees every package, and nobody imports it.

Each command imports what it needs when it runs, so that ``study --help``, ``list`` and ``report`` start in a blink.
"""

from __future__ import annotations

import atexit
import gc
import io
import sys

__all__ = ["main"]


def main() -> None:
    """Entry point. Expected errors become one message on stderr and exit status 2; bugs keep their traceback."""
    from studies.cli.app import app  # here, since workers import this module too, as what their parent was started with
    from studies.cli.failures import in_words

    atexit.register(gc.freeze)  # the interpreter would search all that was imported for garbage: up to a second
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no arrows still gets the words
    try:
        app()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        message = in_words(error)
        if message is None:
            raise
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)
