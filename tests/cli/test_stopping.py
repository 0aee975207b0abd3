"""Signals that ask for a stop: heard at once, echoes ignored, nohup respected."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pty
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import ClassVar

import pytest

from results.layout import Home
from studies.cli import running, stopping
from studies.cli.backends import BackendChoice
from studies.cli.choose import choose
from studies.cli.stopping import Requests, exit_status, heed, in_words, interrupt, interruption, leave
from sweeps.backend import Outcome
from sweeps.jobs import Job
from tests.fresh import fresh_process
from tests.homes import MICRO, study


class Now:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


class Fake:
    """A backend that counts how often it is stopped."""

    def __init__(self) -> None:
        self.stopped = 0

    def run(self) -> Outcome:
        return Outcome()

    def stop(self) -> None:
        self.stopped += 1

    def waits_for(self) -> str:
        return "stopping as soon as 2 jobs save"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[Now]:
    """A clock; afterwards signals are handled as before."""
    clock = Now()
    monkeypatch.setattr(stopping, "_requests", Requests(clock))
    with fresh_process():
        yield clock


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_stops_and_says_so_and_a_later_one_interrupts(number: signal.Signals, now: Now) -> None:
    backend, said = Fake(), list[str]()
    with pytest.raises(KeyboardInterrupt), stopping.stopping(backend, said.append):
        send(number)
        now.s += 0.9
        send(number)  # e.g. passed on by whoever started us
        send(signal.SIGTERM)
        assert backend.stopped == 1
        now.s += 0.2
        send(number)
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert said == [f"{name}: stopping as soon as 2 jobs save; once more ends at once"]
    assert backend.stopped == 1


def test_what_ignores_hangups_goes_on(now: Now) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    backend, said = Fake(), list[str]()
    with stopping.stopping(backend, said.append):
        send(signal.SIGHUP)
    assert (backend.stopped, said) == (0, [])
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_after_a_hangup_nothing_is_written_to_the_terminal_that_is_gone(now: Now) -> None:
    ours, theirs = pty.openpty()
    kept = [os.dup(1), os.dup(2)]
    try:
        for output in (1, 2):
            os.dup2(theirs, output)
        os.close(theirs)
        with stopping.stopping(Fake(), lambda text: None):
            os.close(ours)
            with pytest.raises(OSError):
                os.write(1, b"lost")
            send(signal.SIGHUP)
            assert os.write(1, b"nowhere") == 7
    finally:
        for output, before in zip((1, 2), kept, strict=True):
            os.dup2(before, output)
            os.close(before)


ENDS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
numbers = pytest.mark.parametrize(("number", "status", "said"), ENDS)


@numbers
def test_elsewhere_a_signal_interrupts_once_a_second(number: signal.Signals, status: int, said: str, now: Now) -> None:
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    heed(leave)
    heed(interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        send(number)
    assert (exit_status(caught.value), in_words(caught.value)) == (status, said)
    send(number)  # while the first is cleared up after
    now.s += 1
    with pytest.raises(KeyboardInterrupt):
        send(number)
    signal.signal(number, signal.SIG_IGN)
    heed(interrupt)
    send(number)


@numbers
def test_while_commands_are_imported_a_signal_ends_at_once_with_a_line(
    number: signal.Signals, status: int, said: str
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        written: list[bytes] = []
        patch.setattr(os, "_exit", sys.exit)
        patch.setattr(os, "write", lambda output, text: written.append(text))
        leave(number, None)
    assert (end.value.code, written) == (status, [f"{said}\n".encode()])


@numbers
@pytest.mark.parametrize("hidden", [False, True])
def test_a_command_that_a_signal_ends_says_so_and_nothing_else(
    number: signal.Signals, status: int, said: str, hidden: bool, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        try:
            send(number)
        except KeyboardInterrupt as asked:
            if hidden:  # as Python 3.11 does while a class is made
                raise RuntimeError("Error calling __set_name__") from asked
            raise

    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("studies.cli.app.app", command)
    done = study("list")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"{said}\n")


def test_what_no_signal_led_to_is_no_interruption() -> None:
    assert interruption(RuntimeError()) is None and interruption(None) is None


class Deaf:
    """A worker process that does not end when it is asked to, nor says a word."""

    made: ClassVar[list[Deaf]] = []

    def __init__(self, home: Home) -> None:
        self.process, self.pid = self, 0
        self.connection, self.theirs = multiprocessing.Pipe()
        self.job: Job | None = None
        self.fresh, self.free, self.killed = False, True, False
        self.made.append(self)

    def give(self, job: Job, asked: float | None) -> None:
        self.job, self.free = job, False
        send(self.number)
        Timer(0.05, send, [self.number]).start()

    number: ClassVar[signal.Signals]

    def is_alive(self) -> bool:
        return not self.killed

    def kill(self) -> None:
        self.killed = True

    def join(self, timeout: float | None = None) -> None:
        assert self.killed, "nothing else ends it"


@numbers
def test_the_second_signal_ends_a_run_whose_job_is_slow_to_stop(
    number: signal.Signals,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(stopping, "_requests", Requests(itertools.count(step=2).__next__))
    monkeypatch.setattr("sweeps.pool._Worker", Deaf)
    monkeypatch.setattr(Deaf, "number", number, raising=False)
    for name in ("ready", "record"):
        monkeypatch.setattr(running, name, lambda *_: None)
    Deaf.made.clear()
    chosen, words = choose([str(MICRO)], None, "0", [], None)
    with fresh_process():
        ended = running.execute(chosen, words, [str(MICRO)], None, BackendChoice(workers=1), tmp_path)
    assert ended == status
    lines = capsys.readouterr().out.splitlines()
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert f"{name}: stopping as soon as a job saves at its next step; once more ends at once" in lines
    assert lines[-1] == "stopped at once; what was saved is kept. Run the same command again to continue"
    assert Deaf.made and all(worker.killed for worker in Deaf.made)
