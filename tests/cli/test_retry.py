"""study retry, on homes in which work did not end well."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from results.layout import Home
from tests.homes import MICRO, TINY, Command, attempts, dump, study, succeeds, tensors, unfinished, wait_for


@pytest.mark.kill
def test_what_was_cancelled_or_lost_is_done_and_earlier_attempts_are_kept(micro_long: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = Command("run", MICRO, "--scale", "long", home=home)
    assert wait_for(lambda: any((f / "metrics.jsonl").exists() for f in unfinished(home)))
    succeeds("cancel", "micro", home=home)
    assert command.wait()[0] == 1
    before = attempts(home)
    command = Command("run", MICRO, "--scale", "long", home=home)
    assert wait_for(lambda: any((f / "metrics.jsonl").exists() for f in unfinished(home) - before))
    os.killpg(command.process.pid, signal.SIGKILL)
    command.process.wait()
    assert wait_for(lambda: not command.alive(), 20)
    lost = unfinished(home)
    assert lost
    said = succeeds("retry", "micro", home=home)
    assert "again: " in said
    assert "lost" in said
    assert before <= attempts(home)
    assert unfinished(home) == lost, "what was lost stays as it was"
    left = json.loads(succeeds("status", "--json", "--status", "failed,lost,preempted", home=home))
    assert not left["failed"]
    assert "nothing is to be tried again" in succeeds("retry", "micro", home=home)
    succeeds("run", MICRO, "--scale", "long", home=home)  # arms of which nothing was ever begun
    assert dump(home) == dump(micro_long)
    assert tensors(micro_long).items() <= tensors(home).items()


def test_what_was_cancelled_before_it_was_begun_is_done(copy: Path, tiny: Path) -> None:
    trajectories = {
        path.parent.name: json.loads(path.read_text()) for path in copy.glob("trajectories/*/trajectory.json")
    }
    parents = {one["parent"]["trajectory"] for one in trajectories.values() if one["parent"]}
    leaf = Home(copy).trajectory(next(key for key in trajectories if key not in parents))
    shutil.rmtree(leaf.root)
    succeeds("db", "rebuild", home=copy)
    assert "2 were never begun: study run" in succeeds("retry", "tiny", home=copy)
    leaf.root.mkdir()
    leaf.cancelled("train").touch()
    said = succeeds("retry", "tiny", home=copy)
    assert re.search(r"again: train \w+ \d+→\d+ \(seed 0\): cancelled\nand 1 more", said), said
    assert dump(copy) == dump(tiny)


def test_what_would_end_the_same_is_not_tried_without_force(tmp_path: Path) -> None:
    home = tmp_path / "home"
    bad = study("run", TINY, "-o", "divergence=1e-9", "--as", "bad", home=home)
    assert bad.returncode == 1
    before = attempts(home)
    left = study("retry", "tiny", home=home)
    assert left.returncode == 1
    assert "left: train" in left.stdout
    assert "user error: Diverged" in left.stdout
    assert "mend it, then --force" in left.stdout
    assert attempts(home) == before
    forced = study("retry", "tiny", "--force", home=home)
    assert forced.returncode == 1
    assert "FAILED train" in forced.stdout
    assert len(attempts(home)) > len(before)


def test_what_was_tried_often_enough_is_given_up(copy: Path) -> None:
    """Attempts that are gone without a word, four times."""
    ended = next(copy.glob("trajectories/*/attempts/0001/segment.json"))
    kind = json.loads(ended.read_text())["kind"]
    assert kind == "train"
    trajectory = ended.parents[2]
    for folder in ("checkpoints", "snapshots"):
        shutil.rmtree(trajectory / folder, ignore_errors=True)
    for number in range(2, 6):
        lost = trajectory / "attempts" / f"{90 + number:04d}"
        lost.mkdir()
        (lost / "segment.json").write_text(ended.read_text())
    said = study("retry", "*", home=copy)
    assert "lost (tried 4 times: --limit, or --force)" in said.stdout, said.stdout + said.stderr
    assert said.returncode == 1
    assert "again: " in succeeds("retry", "*", "--limit", "9", home=copy)


def test_wrong_input_is_refused(copy: Path, tmp_path: Path) -> None:
    for args, words in (
        (("retry", "nosuch"), "nosuch"),
        (("retry", "tiny", "--kind", "both"), "--kind both"),
        (("retry", "tiny", "--detach"), "--detach goes with --backend slurm"),
    ):
        refused = study(*args, home=copy)
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr
    assert study("retry", "tiny", home=tmp_path / "none").returncode == 2
