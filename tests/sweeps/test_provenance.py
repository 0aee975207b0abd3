"""What a run was made of, collected from a real checkout with changes in it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.homes import TINY, environment

pytestmark = pytest.mark.slow  # processes of their own

ROOT = Path(__file__).resolve().parents[2]
COLLECT = (
    "import json, sys, base64; from sweeps.provenance import collect; p = collect();"
    "print(json.dumps([p.record, {k: base64.b64encode(v).decode() for k, v in p.files.items()}]))"
)


def git(folder: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *args],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of our source, committed, with one file modified and some untracked. Times are kept, so that what
    was compiled before counts."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for package in ("meanflow_core", "results", "studies", "sweeps", "reports"):
        subprocess.run(["cp", "-rp", str(ROOT / package), str(folder)], check=True)
    (folder / ".gitignore").write_text("__pycache__/\n/ignored.py\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")
    with (folder / "studies" / "errors.py").open("a") as f:
        f.write("\n# a change: é\n")
    (folder / "mine.py").write_text("MINE = 1\n")
    (folder / "studies" / "größe.yaml").write_text("study: mine\n")
    (folder / "weights.bin").write_bytes(b"0" * 100)
    (folder / "ignored.py").write_text("")
    (folder / "link.py").symlink_to("nowhere.py")
    return folder


def run_in(checkout: Path, code: str, *args: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=checkout.parent, check=False,
        env=environment(PYTHONPATH=str(checkout), PYTHONDONTWRITEBYTECODE="1", **env),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_restores(record: dict[str, Any], files: Mapping[str, bytes], checkout: Path, again: Path) -> None:
    """A clone of the checkout's commit with these files added is the checkout."""
    assert record["commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert record["dirty"] is True
    assert set(record["untracked_left_out"]) == {"weights.bin", "link.py"}
    git(checkout.parent, "clone", "-q", str(checkout), str(again))
    patch = checkout.parent / "source.patch"
    patch.write_bytes(files["source.patch"])
    git(again, "apply", str(patch))
    assert (again / "studies" / "errors.py").read_text() == (checkout / "studies" / "errors.py").read_text()
    with tarfile.open(fileobj=io.BytesIO(files["untracked.tar.gz"])) as tar:
        assert set(tar.getnames()) == {"mine.py", "studies/größe.yaml"}
        member = tar.extractfile("mine.py")
        assert isinstance(member, io.BufferedReader)
        assert member.read() == b"MINE = 1\n"


def test_a_run_keeps_what_restores_its_source(checkout: Path, tmp_path: Path) -> None:
    main = "import sys; from studies.cli import main; sys.argv[0] = 'study'; main()"
    home = tmp_path / "home"
    settings = ("stages.0.epochs=0", "stages.1.epochs=1", "steps_per_epoch=1", "controls={}")
    one_step = (*(part for setting in settings for part in ("-o", setting)), "--backend", "inline", "--as", "one_step")
    out = run_in(checkout, main, "run", str(TINY), *one_step, "--home", str(home))
    assert "to do: 1 segment and" in out
    (run,) = (home / "runs").iterdir()
    record = json.loads((run / "run.json").read_text())
    assert record["command"][:2] == ["study", "run"]
    assert record["config"]["panels"].keys() == {"left", "right"}
    assert record["variant"] == "one_step"
    provenance = record["provenance"]
    assert provenance["packages"]["torch"]
    assert provenance["machine"].keys() >= {"host", "system", "architecture", "cpu", "cores", "memory_gib", "python"}
    files = {name: (run / name).read_bytes() for name in ("source.patch", "untracked.tar.gz")}
    assert_restores(provenance, files, checkout, tmp_path / "again")


@pytest.mark.parametrize("settings", ["awkward settings", "another repository's environment"])
def test_the_snapshot_restores_the_source_whatever_git_is_told(settings: str, checkout: Path, tmp_path: Path) -> None:
    env = {}
    if settings == "awkward settings":
        for key, value in {"color.ui": "always", "diff.noprefix": "true", "diff.external": "false"}.items():
            git(checkout, "config", key, value)
    else:
        env = {"GIT_DIR": str(tmp_path / "elsewhere")}
    record, files = json.loads(run_in(checkout, COLLECT, **env))
    assert_restores(record, {name: b64decode(given) for name, given in files.items()}, checkout, tmp_path / "again")


def test_a_clean_checkout_needs_no_files(checkout: Path) -> None:
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "more")
    record, files = json.loads(run_in(checkout, COLLECT))
    assert (record["dirty"], files) == (False, {})


def test_a_checkout_of_another_user_is_still_ours(checkout: Path) -> None:
    if subprocess.run(["chown", "-R", "12345", str(checkout)], capture_output=True, check=False).returncode:
        pytest.skip("only root may give files to another user")
    record, _ = json.loads(run_in(checkout, COLLECT, HOME=str(checkout.parent)))
    assert record["commit"]


def test_outside_a_checkout_the_version_stands_for_the_commit(checkout: Path) -> None:
    (checkout / ".git").rename(checkout.parent / "gone")
    record, files = json.loads(run_in(checkout, COLLECT))
    assert (record["commit"], files) == (None, {})


def test_source_inside_somebody_elses_checkout_is_not_taken_for_it(checkout: Path) -> None:
    (checkout / ".git").rename(checkout.parent / ".git")
    record, _ = json.loads(run_in(checkout, COLLECT))
    assert record["commit"] is None
