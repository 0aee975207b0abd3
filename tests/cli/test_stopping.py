"""Signals that ask for a stop: heard at once, echoes ignored, nohup respected."""

from __future__ import annotations

import os
import pty
import signal
from collections.abc import Iterator

import pytest

from studies.cli import stopping
from studies.cli.stopping import Requests, heed_interrupts
from sweeps.backend import Outcome
from tests.fresh import fresh_process


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


def test_elsewhere_ctrl_c_interrupts_once_a_second(now: Now) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    heed_interrupts()
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    send(signal.SIGINT)  # while the first is cleared up after
    now.s += 1
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heed_interrupts()
    send(signal.SIGINT)
