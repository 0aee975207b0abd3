"""study cancel; what becomes of work that runs is held in tests/sweeps/test_conformance.py."""

from __future__ import annotations

from pathlib import Path

from tests.homes import TINY, dump, study, succeeds


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
    assert "of what runs or waits in a queue: 0; not done, and begun by no command that runs now: 0" in succeeds(
        "cancel", "tiny", home=copy
    )
    empty = study("cancel", "tiny", home=tmp_path / "none")
    assert empty.returncode == 2
