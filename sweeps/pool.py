"""The local backend: a pool of spawned processes, each doing one job at a time.

Parent and workers exchange JSON over pipes. A worker that dies is noticed by its sentinel and replaced; a worker whose
parent dies ends itself. This module imports no torch: only the workers do.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from results.layout import Home
from sweeps.backend import Event, Paced
from sweeps.jobs import EXIT_PREEMPTED, Job
from sweeps.logs import log_to

STOP_GRACE_S = 60.0
SPARE_S = 15.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_grace_s(jobs: Iterable[Job]) -> float:
    """How long jobs may take to stop; a trainer of the user's own has its own time, and then we need some."""
    return max([STOP_GRACE_S, *(job.dynamics.trainer.grace_s + SPARE_S for job in jobs if job.dynamics.trainer)])


class _Worker:
    def __init__(self, home: Home) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(theirs, str(home.root), os.getpid()), daemon=False
        )
        with _signals_held():
            self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.log: str | None = None
        self.fresh = True  # no job was ever given to it
        self.leaving = False

    @property
    def free(self) -> bool:
        return self.job is None and not self.leaving and self.process.is_alive()

    def give(self, job: Job, asked: float | None) -> None:
        self.job, self.log, self.fresh = job, None, False
        self.connection.send_bytes(json.dumps([job.model_dump(mode="json"), asked]).encode())

    def read(self) -> Event | None:
        """The next event of this worker; ``lost`` if it died with a job, None if it died idle."""
        job = self.job
        try:
            message = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join(timeout=5)
            self.job = None
            if job is None:
                return None
            if self.log is None and self.process.exitcode == 0:  # told to stop while idle, it left as the job came
                return Event("preempted", job, reason="stopped on request before it began")
            return Event("lost", job, reason=_death(self.process.exitcode), log=self.log)
        assert job is not None
        event = Event(job=job, **message)
        if event.kind == "started":
            self.log = event.log
        elif event.kind != "progress":
            self.job = None
            self.leaving = _ends_worker(event.kind, job)
        return event


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """`STOP_SIGNALS` come afterwards. A process started inside inherits them held back, and takes them when it is
    ready for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ends_worker(kind: str, job: Job) -> bool:
    """Whether a worker is not used again: after a stop, or a failure on a GPU, whose context may be broken."""
    return kind == "preempted" or (kind == "failed" and job.device != "cpu")


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with status {code}"


class Pool:
    """Up to ``workers`` processes. Use as a context manager: leaving it stops them."""

    def __init__(self, home: Home, workers: int) -> None:
        os.environ["PYTHONSAFEPATH"] = "1"  # a random.py where the user happens to be is not for our processes
        resource_tracker.ensure_running()  # started by the first process otherwise, and it lets go of signals held
        self.home, self.size = home, workers
        self._workers: list[_Worker] = []

    def idle(self) -> int:
        """How many more jobs can be given now."""
        return self.size - sum(worker.job is not None for worker in self._workers)

    def running(self) -> list[Job]:
        return [worker.job for worker in self._workers if worker.job is not None]

    def start(self, workers: int) -> None:
        """Have so many workers: each imports what jobs need, which takes seconds, before it is given the first."""
        while len(self._workers) < workers:
            self._workers.append(_Worker(self.home))

    def submit(self, job: Job, asked: float | None = None) -> None:
        """Give a job to an idle worker, starting one if need be."""
        worker = next((w for w in self._workers if w.free), None)
        if worker is None:
            worker = _Worker(self.home)
            self._workers.append(worker)
        try:
            worker.give(job, asked)
        except OSError:  # it died idle a moment ago
            self._workers.remove(worker)
            worker.job = None
            self.submit(job, asked)

    def wait(self, timeout: float) -> list[Event]:
        """Events that have come, waiting up to ``timeout`` seconds for the first."""
        ready = wait([w.connection for w in self._workers], timeout)
        events = []
        for worker in list(self._workers):
            if worker.connection in ready:
                event = worker.read()
                if event is not None:
                    events.append(event)
                if not worker.process.is_alive() and worker.job is None:
                    self._workers.remove(worker)
                    worker.connection.close()
        return events

    def stop(self) -> list[Event]:
        """Ask every worker to stop at a step boundary and save; kill what does not in time. Returns the last events."""
        grace_s = stop_grace_s(self.running())
        for worker in self._workers:
            if worker.process.is_alive() and worker.process.pid:
                os.kill(worker.process.pid, signal.SIGTERM)
        events, deadline = [], time.monotonic() + grace_s
        while self.running() and time.monotonic() < deadline:
            events += self.wait(0.2)
        self.close()
        return events

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()  # which ends the idle
            if worker.job is not None or worker.fresh:  # a fresh one may still be importing, and has nothing to save
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end_with_parent(parent: int, interval_s: float = 0.5) -> None:
    """End this process as soon as its parent is gone. Polling works everywhere, whoever kills the parent and when."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval_s)
        os._exit(EXIT_PREEMPTED)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()


def _serve(connection: Connection, home: str, parent: int) -> None:
    """Body of a worker process."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    end_with_parent(parent)
    log_to(Path(os.devnull))
    _work(connection, Home(Path(home)), stop)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is published: the interpreter would take seconds to free torch, module by module


def _work(connection: Connection, home: Home, stop: threading.Event) -> None:
    """Do one job after another until the pipe closes, or one does not end well, or there is to be a stop."""
    from sweeps.worker import in_words, run_job

    def tell(kind: str, **fields: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            connection.send_bytes(json.dumps({"kind": kind, **fields}).encode())

    while True:
        if not connection.poll(0.2):
            if stop.is_set():
                return
            continue
        try:
            given, asked = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        job = Job.model_validate(given)
        if stop.is_set():
            tell("preempted", reason="stopped on request before it began")
            return
        progress = Paced(lambda step: tell("progress", step=step))

        def begun(attempt: Any) -> None:
            log_to(attempt.log_path)
            tell("started", log=str(attempt.log_path))

        try:
            status, reason, log = run_job(home, job, progress, stop.is_set, begun, asked=asked)
        except Exception as error:  # e.g. a full disk before the attempt could record anything
            status, reason, log = "failed", in_words(error), None
        tell(status, step=progress.step, reason=reason, log=str(log) if log else None)
        if _ends_worker(status, job):
            return
