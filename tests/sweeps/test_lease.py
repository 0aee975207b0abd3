"""Leases: one holder at a time, stale ones are taken over, live ones never."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from sweeps import lease as module
from sweeps.lease import acquire, holder


def test_only_one_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "train.lease"
    first = acquire(path)
    assert first is not None
    assert acquire(path) is None
    assert str(os.getpid()) in (holder(path) or "")
    first.release()
    assert holder(path) is None
    second = acquire(path)
    assert second is not None
    second.release()
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def _race(path: str, start: Barrier, results: object, over: Event) -> None:
    start.wait()
    got = acquire(Path(path))
    results.put(got is not None)  # type: ignore[attr-defined]
    over.wait()  # nobody lets go before all have tried
    if got:
        got.release()


def test_of_many_racers_exactly_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, results, over = context.Barrier(6), context.Queue(), context.Event()
    racers = [context.Process(target=_race, args=(str(tmp_path / "l"), start, results, over)) for _ in range(6)]
    for racer in racers:
        racer.start()
    won = [results.get(timeout=300) for _ in racers]
    over.set()
    for racer in racers:
        racer.join()
    assert sum(won) == 1


def test_a_dead_owner_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "l"
    code = (
        "import os, sys; from pathlib import Path; from sweeps.lease import acquire; "
        "acquire(Path(sys.argv[1])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.exists(), "the dead process left its lease"
    assert holder(path) is None
    taken = acquire(path)
    assert taken is not None
    taken.release()


def test_who_holds_it_is_said_with_what_it_does_and_since_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/study", "run", "my study"])
    monkeypatch.setenv("SLURM_JOB_ID", "12_3")
    with acquire(tmp_path / "l") or pytest.fail("nobody else is here"):
        said = holder(tmp_path / "l") or ""
    host = re.escape(socket.gethostname())
    doing = r"\(study run 'my study', SLURM job 12_3, since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\)"
    assert re.fullmatch(rf"process {os.getpid()} on {host} {doing}", said), said


GONE = 2**22 + 1  # no process has such a number


@pytest.mark.parametrize(
    ("changed", "taken"),
    [
        ({}, True),
        ({"here": "this boot pid:[1]"}, False),  # a container of the same host name and machine
        ({"here": None}, False),  # written where the system does not say, on a machine that is called the same
        ({"host": "renamed"}, True),  # the same machine all the same
    ],
)
def test_a_number_of_another_pid_namespace_says_nothing(
    changed: dict[str, object], taken: bool, tmp_path: Path
) -> None:
    """Where it cannot be told whether the process is there, its heartbeat alone counts."""
    path = tmp_path / "l"
    path.write_text(json.dumps({**module._me(), "pid": GONE, **changed}))
    lease = acquire(path)
    assert (lease is not None) == taken
    if lease is None:
        old = time.time() - module.EXPIRY_S - 1
        os.utime(path, (old, old))
        lease = acquire(path)
    assert lease is not None
    lease.release()


def test_where_the_system_does_not_tell_namespaces_the_host_name_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_here", lambda: None)
    path = tmp_path / "l"
    path.write_text(json.dumps({**module._me(), "pid": GONE, "host": "elsewhere"}))
    assert acquire(path) is None
    path.write_text(json.dumps({**module._me(), "pid": GONE}))
    with acquire(path) or pytest.fail("the process is gone"):
        pass


def test_a_clock_that_was_set_takes_no_lease_from_whoever_beats(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_text(json.dumps({**module._me(), "born": module._me()["born"] - 3600}))
    assert acquire(path) is None
    old = time.time() - 3 * module.BEAT_S
    os.utime(path, (old, old))
    with acquire(path) or pytest.fail("another process with the number of one that is gone"):
        pass


@pytest.mark.parametrize("same_pid", [True, False])
def test_another_hosts_lease_is_believed_until_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_pid: bool
) -> None:
    path = tmp_path / "l"
    record = {"owner": "x", "host": "elsewhere", "pid": os.getpid() if same_pid else 1, "born": 0.0}
    path.write_text(json.dumps(record))
    assert acquire(path) is None
    old = time.time() - module.EXPIRY_S - 1
    os.utime(path, (old, old))
    taken = acquire(path)
    assert taken is not None
    taken.release()


def test_the_heartbeat_renews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    path = tmp_path / "l"
    held = acquire(path)
    assert held is not None
    old = time.time() - 1000
    os.utime(path, (old, old))
    deadline = time.time() + 10
    while path.stat().st_mtime < time.time() - 500 and time.time() < deadline:
        time.sleep(0.02)
    assert path.stat().st_mtime > time.time() - 500
    held.release()


def test_releasing_a_lost_lease_leaves_the_new_holder_alone(tmp_path: Path) -> None:
    path = tmp_path / "l"
    first = acquire(path)
    assert first is not None
    path.write_text(json.dumps({"owner": "other", "host": "elsewhere", "pid": 1, "born": 0.0}))
    first.release()
    assert json.loads(path.read_text())["owner"] == "other"
