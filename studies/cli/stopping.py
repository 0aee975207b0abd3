"""Ctrl-C, SIGTERM and SIGHUP: said to be heard at once, and what comes twice within a second is one.

A signal ends a command in one of three ways, as far as it has come: `leave` while commands are imported, `interrupt`
from then on, and `stopping` while jobs run.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.backend import Backend

TOGETHER_S = 1.0
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


class Requests:
    """Tells requests to stop from their echoes: a terminal signals a whole group of processes, and whoever started us
    (uv, a shell's trap, a supervisor) passes on what it got itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, float("-inf")

    def new(self) -> bool:
        """Whether what came now is a request of its own."""
        before, now = self._last, self._clock()
        if now - before < TOGETHER_S:
            return False
        self._last = now
        return True


_requests = Requests()


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_status(asked: KeyboardInterrupt) -> int:
    """What a shell says of a command that a signal has ended: 130 of Ctrl-C, 143 of SIGTERM."""
    return 128 + (asked.number if isinstance(asked, Interrupted) else signal.SIGINT)


def interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interruption that led to an error, which may be another's: of typer, or of a class that was being made."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def in_words(asked: KeyboardInterrupt) -> str:
    number = exit_status(asked) - 128
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def interrupt(number: int, frame: object) -> None:
    """Ctrl-C as Python handles it, and SIGTERM likewise, but for echoes, which would interrupt what is cleared up after
    the first."""
    if _requests.new():
        raise Interrupted(number)


def leave(number: int, frame: object) -> None:
    """End at once: there is nothing to clear up, and what is imported just now may turn an exception into another, or
    swallow it."""
    asked = Interrupted(number)
    with suppress(OSError):
        os.write(2, f"{in_words(asked)}\n".encode())
    os._exit(exit_status(asked))


def heed(handler: Callable[[int, object], None]) -> None:
    """Have `leave` or `interrupt` handle Ctrl-C and SIGTERM, unless they are ignored or have another handler."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler, leave}:
            signal.signal(number, handler)


@contextmanager
def stopping(backend: Backend, say: Callable[[str], None]) -> Iterator[None]:
    """Inside, the first Ctrl-C, SIGTERM or SIGHUP stops the backend, which is said with what is waited for; a later one
    interrupts at once. SIGHUP is left alone where it is ignored (nohup)."""
    terminals = [output for output in (1, 2) if os.isatty(output)]
    news: SimpleQueue[str | None] = SimpleQueue()  # a signal handler may put; printing there could meet itself
    stopped = False

    def hear(number: int, _frame: object) -> None:
        nonlocal stopped
        if number == signal.SIGHUP:
            _let_go(terminals)
        if not _requests.new():
            return
        if stopped:
            raise Interrupted(number)
        stopped = True
        backend.stop()
        news.put(f"{NAMES[signal.Signals(number)]}: {backend.waits_for()}; once more ends at once")

    def tell() -> None:
        while (text := news.get()) is not None:
            with suppress(OSError):  # the terminal is gone
                say(text)

    teller = threading.Thread(target=tell, daemon=True, name="signals heard")
    teller.start()
    before = {number: signal.getsignal(number) for number in NAMES}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler is not signal.SIG_IGN:
            signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        news.put(None)
        teller.join()


def _let_go(terminals: list[int]) -> None:
    """Print nowhere from now on: a terminal that is closed takes nothing, and each attempt would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in terminals:
        os.dup2(nowhere, output)
    os.close(nowhere)
