"""The inline engine: one job after another, in the process of the command.

For debugging: what a component prints appears on the terminal as well as in the attempt's log, a traceback is shown in
full where it happens, and ``breakpoint()`` stops there. It starts no process, so it suits tests, too.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from results.layout import Home
from sweeps.attempt import Attempt
from sweeps.backend import Event, Paced, Watcher
from sweeps.jobs import Job
from sweeps.scheduler import Scheduler
from sweeps.waiting import rest


def inline(home: Home, jobs: Sequence[Job], watcher: Watcher, asked: float | None = None) -> Scheduler:
    """What runs jobs in this process. Ctrl-C reaches the job that runs: it saves at its next step."""
    workers = InlineWorkers(home, watcher)
    scheduler = Scheduler(home, workers, jobs, watcher, asked=asked)
    workers.should_stop = lambda: scheduler.outcome.interrupted
    return scheduler


class InlineWorkers:
    """One worker, which is this process: a job that was given is done in `wait`."""

    def __init__(self, home: Home, watcher: Watcher) -> None:
        self.home, self.watcher = home, watcher
        self.should_stop = lambda: False
        self._given: list[tuple[Job, float | None]] = []

    def idle(self) -> int:
        return 1 - len(self._given)

    def running(self) -> list[Job]:
        return [job for job, _ in self._given]

    def submit(self, job: Job, asked: float | None = None) -> None:
        self._given.append((job, asked))

    def wait(self, timeout: float) -> list[Event]:
        if not self._given:
            rest(timeout, self.should_stop)
            return []
        event = self._do(*self._given[0])
        self._given.clear()
        return [event]

    def stop(self) -> list[Event]:
        return []  # what runs has seen `should_stop`

    def _do(self, job: Job, asked: float | None) -> Event:
        from sweeps.worker import in_words, run_job

        terminal = sys.stdout

        def tell(kind: str, **fields: object) -> None:
            with contextlib.redirect_stdout(terminal):  # the log is the job's alone
                self.watcher.event(Event(kind, job, **fields))  # type: ignore[arg-type]
                self.watcher.tick([job])

        progress = Paced(lambda step: tell("progress", step=step))
        with contextlib.ExitStack() as outputs:

            def begun(attempt: Attempt) -> None:
                outputs.enter_context(copied_to(attempt.log_path))
                tell("started", log=str(attempt.log_path))

            try:
                status, reason, log = run_job(self.home, job, progress, self.should_stop, begun, asked=asked)
            except Exception as error:  # e.g. a full disk before the attempt could record anything
                status, reason, log = "failed", in_words(error), None
        return Event(status, job, step=progress.step, reason=reason, log=str(log) if log else None)


class _Both(io.TextIOBase):
    """What is written goes to a log, too; else it is the terminal. That nobody reads the terminal is no failure of the
    job that writes."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal, self.log = terminal, log

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self.terminal.write(text)
        return self.log.write(text)

    def flush(self) -> None:
        self.log.flush()
        with contextlib.suppress(OSError):
            self.terminal.flush()

    def isatty(self) -> bool:
        return self.terminal.isatty()

    def fileno(self) -> int:
        return self.terminal.fileno()


@contextlib.contextmanager
def copied_to(path: Path) -> Iterator[None]:
    """What Python writes on both outputs inside is appended to a file, too."""
    with (
        path.open("a", encoding="utf-8", errors="replace", buffering=1) as log,
        contextlib.redirect_stdout(_Both(sys.stdout, log)),
        contextlib.redirect_stderr(_Both(sys.stderr, log)),
    ):
        yield
