"""What becomes of all ranks when one fails: the others hear of it, whatever they are doing, and end too.

Every rank has a thread that listens to the first rank; the first has one for each of the others. They listen on the
default process group, over gloo, on which nothing else is said. A rank that fails says why. One that dies closes its
connections, which is heard at once. Training may then hang in a collective, in NCCL for ever, so a listener ends its
process itself; on the first rank it records the reason before.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

WORD = 4096  # bytes of a message
GATHER_S = 0.5  # ranks that fail together are heard within this, and the earliest is the reason
PATIENCE_S = 10.0  # for the reason of what looks like the consequence of another rank's failure
FAREWELL_S = 60.0
FOR_EVER = timedelta(days=3650)


class RanksBroken(RuntimeError):
    """Something that all ranks do together failed: most likely since one of them has failed or died."""


@dataclass(frozen=True)
class Failure:
    """Why a rank failed, and when, in seconds since the epoch; ``lost`` if it died without a word."""

    rank: int
    at: float
    reason: str
    lost: bool = False


def first_of(failures: list[Failure]) -> Failure:
    """The earliest; told by the first rank itself where that failed for the same reason, e.g. a diverging loss."""
    earliest = min(failures, key=lambda one: one.at)
    return next((one for one in failures if one.rank == 0 and one.reason == earliest.reason), earliest)


class Watch:
    """Listens to other ranks, from its making on. Two threads may find that all is over, a listener and the one that
    trains: whoever takes the ``_turn``, which is never given back, sees to the end."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.failed: Failure | None = None
        self._settled = False
        self._known: list[Failure] = []
        self._turn = threading.Lock()
        self._records: list[Callable[[Failure], None]] = []
        self._others = list(range(1, size)) if rank == 0 else [0]
        self._listeners = [threading.Thread(target=self._listen, args=(one,), daemon=True) for one in self._others]
        for listener in self._listeners:
            listener.start()

    def on_failure(self, record: Callable[[Failure], None]) -> None:
        """Call this, after what was asked for later, before another rank's failure ends this process."""
        self._records.append(record)

    def settle(self) -> None:
        """The work has ended. From now on no failure of another rank ends this process."""
        if not self._settled:
            self._turn.acquire()
            self._settled = True

    def fail(self, reason: str, consequence: bool = False) -> Failure:
        """This rank has failed; say so to the others. A ``consequence`` gives way to whatever is heard.

        Returns: the first failure of all ranks, for the first rank to record. On others, does not return if they hear
        that it has.
        """
        if self.failed is None:
            self.failed = self._settle_as(reason, consequence)
        return self.failed

    def _settle_as(self, reason: str, consequence: bool) -> Failure:
        if consequence:
            time.sleep(PATIENCE_S)  # meanwhile a listener ends this process
        own = Failure(self.rank, time.time(), reason)
        if self._settled:
            self._say(own)
            return own
        if self.rank != 0:
            self._say(own)
            time.sleep(PATIENCE_S)  # as above, once the first rank has recorded it
        first = self._take_turn(own)
        while first is None:  # a listener is about to end this process
            time.sleep(PATIENCE_S)
        self._settled = True
        return first

    def part(self) -> None:
        """Leave together, all being well."""
        self._say(None)
        for listener in self._listeners:
            listener.join(FAREWELL_S)

    def _listen(self, other: int) -> None:
        failure = self._hear(other)
        if failure is None or self._take_turn(failure) is None:
            return
        first = first_of(self._known)
        for record in reversed(self._records):
            try:
                record(first)
            except Exception:  # e.g. a full disk; the process ends all the same
                traceback.print_exc()
        sys.stderr.write(f"rank {self.rank} ends, since rank {first.rank} failed: {first.reason}\n")
        end()

    def _take_turn(self, failure: Failure) -> Failure | None:
        """Returns: the first failure of all ranks, or None if another thread sees to the end."""
        self._known.append(failure)
        time.sleep(GATHER_S)
        if not self._turn.acquire(blocking=False):
            return None
        first = first_of(self._known)
        if self.rank == 0:
            self._say(first)
        return first

    def _hear(self, other: int) -> Failure | None:
        """What another rank has to say; None for a farewell."""
        word = torch.zeros(WORD, dtype=torch.uint8)
        try:
            work = dist.irecv(word, other)
            assert work is not None
            work.wait(FOR_EVER)
        except RuntimeError:
            said = f"rank {other} ended without a word: it was killed, or its machine died"
            return Failure(other, time.time(), said, lost=True)
        text = bytes(word.tolist()).rstrip(b"\0").decode(errors="replace")
        return Failure(**json.loads(text)) if text else None

    def _say(self, failure: Failure | None) -> None:
        text = json.dumps(asdict(failure)) if failure else ""
        if failure and len(text) > WORD:
            text = json.dumps(asdict(failure) | {"reason": failure.reason[: WORD // 16] + " ..."})
        word = torch.tensor(list(text.encode().ljust(WORD, b"\0")), dtype=torch.uint8)
        for other in self._others:
            with contextlib.suppress(RuntimeError):  # it is gone already
                dist.send(word, other)


def end() -> NoReturn:
    """End this process as failed, at once: destroying process groups could wait for ranks that are gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(1)
