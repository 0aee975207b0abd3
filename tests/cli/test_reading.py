"""Commands that only read: on a home that is read-only, and that they leave as it is where it is not."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from results.layout import Home
from studies.cli.backends import BackendChoice
from studies.cli.options import BackendName
from studies.errors import StudyError
from tests.homes import TINY, environment, study

pytestmark = pytest.mark.slow

ARM = "tiny/left/v0"
READING = [
    ["status", "--arms"],
    ["watch", "--every", "0.2"],
    ["logs", ARM],
    ["why", TINY],
    ["plan", TINY],
    ["results", "--study", "tiny"],
    ["compare", ARM, "tiny/left/v4", "--out", "{out}"],
    ["sample", ARM, "--nfe", "1", "--side", "2", "--out", "{out}"],
    ["export", "tensorboard", "--to", "{out}/board"],
    ["plan", TINY, "--power"],
    ["gc"],
    ["bundle", "{out}/bundle.tar.gz"],
    ["db", "dump"],
]
JUDGING = [["claims", TINY], ["claims", TINY, "--json"], ["report", TINY, "--out", "{out}"], ["implications"]]


def contents(home: Path) -> dict[str, str]:
    """sha256 of every file but the store, by its path in the home."""
    files = (path for path in home.rglob("*") if path.is_file() and not path.name.startswith("store.sqlite"))
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(command: list[str | Path], home: Path, out: Path) -> str:
    words = [str(word).format(out=out) for word in command]
    done = study(*words, home=home, cwd=out, env=environment(XDG_CACHE_HOME=str(out / "cache")))
    assert done.returncode == (2 if words[0] == "implications" else 0), (words, done)  # it wants the built-in studies
    return done.stdout + done.stderr


def test_a_home_is_left_as_it_is(copy: Path, tmp_path: Path) -> None:
    before = contents(copy)
    for command in READING:
        run(command, copy, tmp_path)
    assert contents(copy) == before


def test_a_read_only_home(tiny: Path, tmp_path: Path, tmpfs: Callable[[str], Path]) -> None:
    folder = tmpfs("size=256m")
    home = Path(shutil.copytree(tiny, folder / "home"))
    (home / "home.json").unlink()  # as one of before there were ids
    (home / "store.sqlite").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    before = contents(home)
    for command in READING:
        run(command, home, tmp_path)
    said = [run(command, home, tmp_path) for command in JUDGING]
    assert "not recorded" in said[0]
    assert contents(home) == before


@pytest.mark.parametrize("command", [["status", "--home="], ["report", TINY, "--out="]])
def test_an_empty_path_is_not_the_working_folder(command: list[str | Path]) -> None:
    done = study(*command)
    assert done.returncode == 2 and "it is empty" in done.stderr


def test_slurm_takes_no_home_whose_logs_would_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.cli.backends.shutil.which", lambda name: f"/usr/bin/{name}")
    choice = BackendChoice(BackendName.SLURM, None, None, "single_node")
    with pytest.raises(StudyError, match="SLURM replaces '%'"):
        choice.check(Home(tmp_path / "50 %j"))
    choice.check(Home(tmp_path))
