"""What a Ray worker does: one job, in a process that Ray started and uses again for other jobs."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from results.layout import Home
from sweeps.jobs import Job, Status
from sweeps.logs import log_to, output_restored


def do_job(home: str, job: str, folder: str, asked: float | None) -> tuple[Status, str | None, str | None]:
    """Do a job given as JSON, ``asked`` for at that moment. Returns: (status, reason, the attempt's log).

    Args:
        folder: where the command was started; relative paths in a study count from there, if this node has it.

    `ray.cancel` interrupts the main thread of a worker, as Ctrl-C would; here that asks for a stop at a step boundary.
    """
    stop = threading.Event()
    there = contextlib.chdir(folder) if Path(folder).is_dir() else contextlib.nullcontext()
    with _interrupts_set(stop), output_restored(), there:
        from sweeps.worker import in_words, run_job

        try:
            status, reason, log = run_job(
                Home(Path(home)),
                Job.model_validate_json(job),
                should_stop=stop.is_set,
                on_attempt=lambda attempt: log_to(attempt.log_path),
                asked=asked,
            )
        except Exception as error:  # e.g. a full disk before the attempt could record anything
            return "failed", in_words(error), None
    return status, reason, str(log) if log else None


@contextlib.contextmanager
def _interrupts_set(stop: threading.Event) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
