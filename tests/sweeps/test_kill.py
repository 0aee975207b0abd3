"""Killed at random moments and run again, a study ends with the same tensors and the same results, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.homes import TINY, Command, attempts, dump, succeeds, unfinished, wait_for

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


def start_and_wait_for_attempts(home: Path, count: int) -> tuple[Command, set[Path]]:
    """A new command that works on so many attempts, and the unfinished attempts of before."""
    before = unfinished(home)
    command = Command(*ARGS, home=home)
    assert wait_for(lambda: len(unfinished(home) - before) >= count)
    time.sleep(0.3)
    return command, before


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
    command = Command("run", TINY, home=tmp_path)
    assert wait_for(lambda: len(command.workers()) == 2)
    os.killpg(command.process.pid, signal.SIGINT)
    status, output = command.wait()
    assert (status, "Run the same command again" in output) == (130, True), output
    command.assert_gone()


def test_stopping_saves_and_continues(long: Path, tmp_path: Path) -> None:
    """Ctrl-C; SIGTERM to the command, as from a batch system; SIGTERM to a worker."""
    home = tmp_path / "home"
    for to_group, number in ((True, signal.SIGINT), (False, signal.SIGTERM)):
        command, before = start_and_wait_for_attempts(home, 2)
        (os.killpg if to_group else os.kill)(command.process.pid, number)
        status, output = command.wait()
        assert status == 130, output
        command.assert_gone()
        assert unfinished(home) == before, "every attempt ended by itself"
    ends = [json.loads((attempt / "DONE.json").read_text()) for attempt in attempts(home)]
    stopped = [end for end in ends if end["status"] == "preempted" and end["kind"] == "train"]
    assert stopped
    assert all("stopped on request" in end["reason"] for end in stopped)
    command, _ = start_and_wait_for_attempts(home, 1)
    command.workers()[0].send_signal(signal.SIGTERM)
    status, output = command.wait()
    assert status == 0, output
    assert "lost" not in output
    assert_equal_to(long, home)
