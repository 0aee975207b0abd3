"""Leases: one attempt at a time works on a trajectory. Files only, with a heartbeat that expires.

A lease is a file created exclusively; its modification time is the heartbeat. One is stale when its owner's process is
gone (same boot of the same machine, same PID namespace) or when it has not beaten for `EXPIRY_S`. A false take-over
wastes time but corrupts nothing, since every attempt writes in its own folder and publication cannot replace.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

BEAT_S = 5.0
EXPIRY_S = 60.0
WORDS = 200  # characters of a command


def _here() -> str | None:
    """Where numbers of processes mean what they mean here: this machine since it was booted and, as containers of one
    host name may have one each, this PID namespace. None where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _command() -> str:
    """What this process was started to do; a worker of the pool has the words of its command."""
    name = Path(sys.argv[0]).name
    words = "a worker of Ray" if name == "default_worker.py" else shlex.join([name, *sys.argv[1:]])
    slurm_job = os.environ.get("SLURM_JOB_ID")
    return words[:WORDS] + (f", SLURM job {slurm_job}" if slurm_job else "")


def _me() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "owner": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": process.pid,
        "born": process.create_time(),
        "here": _here(),
        "command": _command(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _alive(record: dict[str, Any], age_s: float) -> bool:
    """Whether the owner's process still runs; one of which the number means nothing here is believed to."""
    here = _here()
    if record.get("here") != here or (here is None and record.get("host") != socket.gethostname()):
        return True
    try:
        process = psutil.Process(int(record["pid"]))
        # The time of birth moves with the machine's clock, so that of one whose lease beats may be wrong.
        same = abs(process.create_time() - float(record["born"])) < 1.0 or age_s < 2 * BEAT_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, ValueError):
        return False


def _read(path: Path) -> tuple[dict[str, Any], float] | None:
    """(record, seconds since the last beat), or None if there is no lease."""
    try:
        age = time.time() - path.stat().st_mtime
        record = json.loads(path.read_text() or "{}")
    except FileNotFoundError:
        return None
    except ValueError:
        record = {}
    return record if isinstance(record, dict) else {}, age


def holder(path: Path) -> str | None:
    """Who holds the lease; None if nobody does (or the holder is gone)."""
    found = _read(path)
    if found is None or is_stale(*found):
        return None
    record = found[0]
    doing = f" ({record['command']}, since {record['since']})" if record.keys() >= {"command", "since"} else ""
    return f"process {record.get('pid', '?')} on {record.get('host', '?')}{doing}"


def is_stale(record: dict[str, Any], age_s: float) -> bool:
    """Whether a lease may be taken over. A record still being written (empty) gets the benefit of one beat."""
    if not record:
        return age_s > BEAT_S
    return age_s > EXPIRY_S or not _alive(record, age_s)


class Lease:
    """A held lease, renewed by a thread until released. Use as a context manager."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, record
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name=f"lease {path.name}")
        self._thread.start()

    def _mine(self) -> bool:
        found = _read(self.path)
        return found is not None and found[0].get("owner") == self.record["owner"]

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                if self._mine():
                    os.utime(self.path)
            except OSError:
                continue  # a file system that hiccups: the next beat tries again, expiry allows a dozen

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._mine():
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _create(path: Path, record: dict[str, Any]) -> bool:
    """Create the lease whole or not at all: written aside, then linked to its name."""
    aside = path.with_name(f".{path.name}.{record['owner']}")
    try:
        aside.write_text(json.dumps(record))
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def _break(path: Path, stale: dict[str, Any]) -> None:
    """Take a stale lease away. If another did so first and holds a new one, that one is put back."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    found = _read(aside)
    if found is not None and found[0].get("owner") != stale.get("owner"):
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def acquire(path: Path) -> Lease | None:
    """Take the lease, breaking a stale one; None if somebody holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = _me()
    for _ in range(3):
        if _create(path, record):
            return Lease(path, record)
        found = _read(path)
        if found is not None:
            if not is_stale(*found):
                return None
            _break(path, found[0])
    return None


@contextlib.contextmanager
def holding(*paths: Path) -> Iterator[bool]:
    """Inside, all of these leases are held (True), or none of them, since somebody else holds one (False)."""
    with contextlib.ExitStack() as held:
        for path in paths:
            lease = acquire(path)
            if lease is None:
                held.close()
                yield False
                return
            held.enter_context(lease)
        yield True
