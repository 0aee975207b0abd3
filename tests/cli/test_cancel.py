"""study cancel, on commands that run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.homes import TINY, Command, dump, study, succeeds, unfinished, wait_for

pytestmark = pytest.mark.slow

LONG = ("run", TINY, "-o", "stages.1.epochs=20000", "--as", "endless")  # u_finetune of thousands of epochs


def endless_begun(home: Path) -> bool:
    """Whether an attempt at thousands of epochs has logged something."""
    logs = [folder / "metrics.jsonl" for folder in unfinished(home) if (folder / "metrics.jsonl").exists()]
    stops = [
        json.loads(path.with_name("segment.json").read_text())["stop_step"] for path in logs if path.stat().st_size
    ]
    return any(stop > 10_000 for stop in stops)


def test_what_runs_is_saved_and_what_waits_is_not_begun(tmp_path: Path) -> None:
    command = Command(*LONG, home=tmp_path)
    assert wait_for(lambda: endless_begun(tmp_path))
    said = succeeds("cancel", "tiny", home=tmp_path)
    assert "asked to end" in said
    status, output = command.wait()
    assert status == 1, output
    assert "cancelled on request" in output
    command.assert_gone()
    ends = [json.loads(path.read_text()) for path in tmp_path.glob("trajectories/*/attempts/*/DONE.json")]
    cancelled = [end for end in ends if end["reason"] == "cancelled on request"]
    assert cancelled
    for end in cancelled:
        if end["kind"] == "train" and end["steps"]:
            assert list(tmp_path.glob(f"trajectories/*/checkpoints/{end['stop_step']:09d}")), "saved where it stopped"
    standing = json.loads(succeeds("status", "--json", home=tmp_path))
    assert not standing["running"]


def test_work_asked_for_after_a_cancellation_is_done(copy: Path, tiny: Path) -> None:
    succeeds("cancel", "*", home=copy)
    args = ("run", TINY, "-o", "steps_per_epoch=11", "--as", "other")
    assert "done." in succeeds(*args, home=copy)
    assert dump(copy) != dump(tiny)


def test_nothing_named_is_nothing_cancelled(copy: Path, tmp_path: Path) -> None:
    refused = study("cancel", home=copy)
    assert (refused.returncode, "'*' for everything" in refused.stderr) == (2, True)
    unknown = study("cancel", "nosuch", home=copy)
    assert (unknown.returncode, "nosuch" in unknown.stderr) == (2, True)
    assert "asked to end: 0 that run or wait in a queue; 0 more" in succeeds("cancel", "tiny", home=copy)
    empty = study("cancel", "tiny", home=tmp_path / "none")
    assert empty.returncode == 2
