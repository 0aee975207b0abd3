"""Killed at random moments and run again, a study ends with the same tensors and the same results, bit for bit.

Twenty times, here; once for each engine in tests/sweeps/test_conformance.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.homes import MICRO, TINY, Command, attempts, dump, succeeds, unfinished, wait_for

from .conformance import assert_equal_to

pytestmark = pytest.mark.kill

ARGS = ("run", TINY, "--scale", "long")
KILLS_OF_EACH_KIND = 10


def kill_random_worker(command: Command, rng: random.Random) -> bool:
    workers = command.workers()
    if not workers:
        return False
    try:
        rng.choice(workers).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def kill_until_done(home: Path, todo: list[str], rng: random.Random) -> None:
    """Run the study in a home until it is complete, taking kills off ``todo`` as long as there is something to kill."""
    command = Command(*ARGS, home=home)
    known: set[Path] = set()
    while True:
        if rng.random() < 0.8:  # else at once, while processes start
            wait_for(lambda: command.over() or bool(unfinished(home) - known), 120)  # noqa: B023
        time.sleep(rng.uniform(0.0, 0.6))
        if command.over():  # complete, or given up on a job whose worker was killed three times
            command.assert_gone()
            if command.wait()[0] == 0:
                return
            command = Command(*ARGS, home=home)
            time.sleep(rng.uniform(0.0, 5.0))
        elif todo and todo[-1] == "worker":
            if kill_random_worker(command, rng):
                todo.pop()
        elif todo:
            command.process.kill()
            command.assert_gone()
            todo.pop()
            command = Command(*ARGS, home=home)
        else:
            assert wait_for(command.over)
        known = unfinished(home)


@pytest.mark.stress
def test_kill_9_of_workers_and_of_the_command_changes_nothing(long: Path, tmp_path: Path) -> None:
    """Ten kills of each kind; on a fast machine they may take more than one home."""
    rng = random.Random(20261120)
    todo = ["worker"] * KILLS_OF_EACH_KIND + ["command"] * KILLS_OF_EACH_KIND
    rng.shuffle(todo)
    lost = 0
    for number in range(5):
        home = tmp_path / f"home{number}"
        kill_until_done(home, todo, rng)
        assert_equal_to(long, home)
        lost += len(unfinished(home))
        print(f"{len(todo)} kills left; {len(attempts(home))} attempts in home {number}, {lost} lost so far")
        if not todo:
            break
    assert not todo
    assert lost >= KILLS_OF_EACH_KIND // 2, "many kills hit an attempt"
    succeeds("db", "rebuild", home=home)
    assert dump(home) == dump(long)


def test_ctrl_c_while_workers_start_surprises_nobody(tmp_path: Path) -> None:
    command = Command("run", MICRO, "--workers", "2", home=tmp_path)
    assert wait_for(lambda: len(command.workers()) == 2)
    os.killpg(command.process.pid, signal.SIGINT)
    status, output = command.wait()
    assert (status, "Run the same command again" in output) == (130, True), output
    command.assert_gone()


def start_and_wait_for_attempt(home: Path) -> Command:
    """A new command that works on an attempt."""
    before = unfinished(home)
    command = Command("run", MICRO, "--scale", "long", home=home)
    assert wait_for(lambda: bool(unfinished(home) - before))
    time.sleep(0.3)
    return command


def test_a_hangup_of_the_command_or_sigterm_to_a_worker_saves_and_continues(micro_long: Path, tmp_path: Path) -> None:
    """As when a terminal is closed, which signals the whole group, and from a batch system; Ctrl-C is held in
    tests/sweeps/test_conformance.py."""
    home = tmp_path / "home"
    command = start_and_wait_for_attempt(home)
    os.killpg(command.process.pid, signal.SIGHUP)
    status, output = command.wait()
    assert (status, "SIGHUP: stopping as soon as " in output) == (130, True), output
    command.assert_gone()
    assert not unfinished(home), "every attempt ended by itself"
    ends = [json.loads((attempt / "DONE.json").read_text()) for attempt in attempts(home)]
    stopped = [end for end in ends if end["status"] == "preempted"]
    assert stopped and all("stopped on request" in end["reason"] for end in stopped)
    command = start_and_wait_for_attempt(home)
    command.workers()[0].send_signal(signal.SIGTERM)
    status, output = command.wait()
    assert status == 0, output
    assert "lost" not in output
    assert_equal_to(micro_long, home)
