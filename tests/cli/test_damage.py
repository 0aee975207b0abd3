"""A full disk, damaged and foreign files: said clearly, repaired as told, and the results are the same again."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.homes import TINY, dump, study, succeeds, tensors

pytestmark = pytest.mark.slow


def children(home: Path) -> list[tuple[Path, Path]]:
    """(checkpoint folder that a trajectory starts from, the trajectory's folder)."""
    found = []
    for description in sorted(home.glob("trajectories/*/trajectory.json")):
        if parent := json.loads(description.read_text())["parent"]:
            folder = home / "trajectories" / parent["trajectory"] / "checkpoints" / f"{parent['step']:09d}"
            found.append((folder, description.parent))
    assert len(found) == 2
    return found


def test_a_full_disk(tiny: Path, tmpfs: Callable[[str], Path]) -> None:
    disk = tmpfs("size=700k")
    done = study("run", TINY, home=disk / "home")
    assert done.returncode in {1, 2}
    assert "disk is full" in done.stdout + done.stderr
    assert "ree some space" in done.stdout + done.stderr
    for folder in disk.glob("home/trajectories/*/checkpoints/*"):
        assert (folder / "manifest.json").exists(), "nothing half is published"
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    succeeds("run", TINY, home=disk / "home")
    assert dump(disk / "home") == dump(tiny)
    assert tensors(tiny).items() <= tensors(disk / "home").items()


def test_damaged_and_foreign_checkpoints_are_named_and_can_be_moved_away(copy: Path, tiny: Path) -> None:
    (damaged, one), (foreign, other) = children(copy)
    shutil.rmtree(one)
    shutil.rmtree(other)
    succeeds("db", "rebuild", home=copy)
    shutil.rmtree(foreign)
    shutil.copytree(damaged, foreign)
    weights = damaged / "online.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    done = study("run", TINY, home=copy)
    assert done.returncode == 1
    assert f"{weights}: damaged" in done.stdout
    assert f"{foreign}/manifest.json: a foreign checkpoint" in done.stdout
    for folder in (damaged, foreign):
        assert f"Move the folder {folder} away and run again" in done.stdout
        shutil.move(folder, copy / "moved" / folder.name)
    assert '"failed": []' not in succeeds("status", "--json", home=copy)
    succeeds("run", TINY, home=copy)
    assert dump(copy) == dump(tiny)
    assert tensors(copy) == tensors(tiny)
    assert '"failed": []' in succeeds("status", "--json", home=copy), "a failure that was overcome is not shown"


def test_lines_cut_off_are_measured_again(copy: Path, tiny: Path) -> None:
    """A power cut may lose the end of a file: what was in it is made again, to the same values."""
    (_, trajectory), _ = children(copy)
    evaluated = next(p for p in sorted(trajectory.glob("attempts/*/metrics.jsonl")) if '"evaluation"' in p.read_text())
    evaluated.write_bytes(evaluated.read_bytes()[:-10])
    succeeds("db", "rebuild", home=copy)
    assert dump(copy) != dump(tiny)
    assert "to do: 0 segments and 1 evaluation;" in succeeds("run", TINY, home=copy)
    assert dump(copy) == dump(tiny)


def test_a_malformed_line_is_named_with_its_number(copy: Path) -> None:
    path = next(iter(sorted(copy.glob("trajectories/*/attempts/0001/metrics.jsonl"))))
    path.write_text("what?\n" + path.read_text())
    done = study("db", "rebuild", home=copy)
    assert done.returncode == 2
    assert f"{path}, line 1" in done.stderr
    assert "Repair or move it" in done.stderr
    path.rename(copy / "moved.jsonl")
    succeeds("db", "rebuild", home=copy)


def test_a_damaged_calibration(copy: Path) -> None:
    (copy / "calibration.json").write_text('{"format": 1, "flops_per_s": 3')
    done = study("plan", TINY, home=copy)
    assert done.returncode == 2
    assert str(copy / "calibration.json") in done.stderr
    assert "study doctor --calibrate" in done.stderr


@pytest.mark.parametrize("damage", ["text", "zeros inside", "a newer schema"])
def test_a_store_that_cannot_be_read_is_rebuilt(damage: str, copy: Path, tiny: Path) -> None:
    store = copy / "store.sqlite"
    for beside in copy.glob("store.sqlite-*"):
        beside.unlink()
    if damage == "text":
        store.write_text("this is no database, but quite a long text " * 100)
    elif damage == "zeros inside":
        data = bytearray(store.read_bytes())
        data[4096:-4096] = bytes(len(data) - 8192)
        store.write_bytes(data)
    else:
        with sqlite3.connect(store) as connection:
            connection.execute("UPDATE study_schema SET version_num = '9999'")
        connection.close()
    done = study("status", home=copy)
    assert done.returncode == 2
    assert str(store) in done.stderr
    assert "study db rebuild" in done.stderr or damage == "a newer schema"
    assert "study run" not in done.stderr
    succeeds("db", "rebuild", home=copy)
    assert dump(copy) == dump(tiny)
