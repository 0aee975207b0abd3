"""``study gc``, ``study bundle`` and ``study db import`` through the real command line."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studies.cli import keeping, planning, reporting
from studies.errors import StudyError
from tests.cli.test_input import refused
from tests.homes import TINY, dump, succeeds, tensors

Printed = Callable[..., dict[str, Any]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Calls a command in this process, which is faster; returns the JSON it prints."""

    def call(command: Callable[..., None], **options: Any) -> dict[str, Any]:
        capsys.readouterr()
        command(**options, json=True)
        record: dict[str, Any] = json.loads(capsys.readouterr().out)
        return record

    return call


@pytest.fixture
def missing(printed: Printed) -> Callable[..., tuple[int, int]]:
    """(segments, evaluations) that `study plan` says are missing."""

    def call(home: Path, **options: Any) -> tuple[int, int]:
        plan = printed(planning.plan, studies=[str(TINY)], home=home, **options)["missing"]
        return plan["segments"], plan["evaluations"]

    return call


OTHER = {"override": ["measure.0.samples=90"], "variant": "other"}


def test_gc_of_ends_and_snapshots(copy: Path, tiny: Path, printed: Printed, missing: Any) -> None:
    """Dry run first; then only what was chosen; then the rest. What is done remains done."""
    before = tensors(copy)
    dry = printed(keeping.gc, ends=True, snapshots=True, home=copy)
    text = succeeds("gc", "--ends", "--snapshots", "--list", home=copy)
    assert dry["deleted"] is False
    assert tensors(copy) == before
    assert "nothing was touched" in text and "a new metric would need new training" in text
    assert {item["kind"] for item in dry["items"]} == {"snapshot", "end"}
    assert all(item["path"] in text and item["bytes"] for item in dry["items"])
    chosen = printed(keeping.gc, what=["tiny/right/joint"], seeds="0", ends=True, delete=True, home=copy)
    assert (chosen["deleted"], len({item["trajectory"] for item in chosen["items"]})) == (True, 1)
    rest = printed(keeping.gc, ends=True, snapshots=True, delete=True, home=copy)
    assert sum(item["bytes"] for item in chosen["items"] + rest["items"]) == dry["bytes"]
    assert tensors(copy) == {}
    assert missing(copy) == (0, 0)
    assert "everything is there already" in succeeds("run", TINY, home=copy)
    assert dump(copy) == dump(tiny)
    assert printed(keeping.gc, ends=True, snapshots=True, home=copy)["items"] == []


def test_a_bundle_taken_elsewhere_gives_the_same(copy: Path, tmp_path: Path, printed: Printed, missing: Any) -> None:
    claims = printed(reporting.claims, study=str(TINY), home=copy)
    bundle, home = tmp_path / "b.tar.gz", tmp_path / "elsewhere"
    made = printed(keeping.bundle, out=bundle, weights="ema", home=copy)
    assert made["studies"] == [{"study": "tiny", "scale": "cpu", "variant": None, "runs": 1}]
    with tarfile.open(bundle) as archive:
        assert len(archive.getnames()) == made["files"] + 1
    done = printed(keeping.import_bundle, file=bundle, home=home)
    assert (done["runs"], done["trajectories"], done["snapshots"], done["verdicts"]) == (1, 5, 18, 1)
    assert succeeds("results", "--study", TINY, home=home) == succeeds("results", "--study", TINY, home=copy)
    assert dump(home) == dump(copy)
    again = printed(reporting.claims, study=str(TINY), home=home)
    for verdict in (*claims["claims"], *again["claims"]):
        assert verdict.pop("time")
    assert again == claims
    assert (home / "verdicts.jsonl").read_bytes() == (copy / "verdicts.jsonl").read_bytes(), "no verdict is new"
    for place in (copy, home):
        printed(reporting.report, study=str(TINY), out=tmp_path / f"report_{place.name}", home=place)
    reports = [sorted((tmp_path / f"report_{place.name}").iterdir()) for place in (copy, home)]
    assert [path.name for path in reports[0]] == [path.name for path in reports[1]]
    for one, other in zip(*reports, strict=True):
        assert one.suffix == ".pdf" or one.read_bytes() == other.read_bytes(), one.name
    assert missing(home) == (0, 0)
    assert missing(home, **OTHER) == (0, 18), "the weights came along"
    assert "took 0 runs, 0 trajectories" in succeeds("db", "import", bundle, home=home)


def test_without_weights_a_new_metric_trains_anew(copy: Path, tmp_path: Path, missing: Any) -> None:
    bundle, home = tmp_path / "b.tar.gz", tmp_path / "elsewhere"
    assert "study db import b.tar.gz" in succeeds("bundle", bundle, "tiny", "--scale", "cpu", home=copy)
    assert "took 1 run, 5 trajectories" in succeeds("db", "import", bundle, home=home)
    assert tensors(home) == {}
    assert missing(home) == (0, 0)
    assert missing(home, seeds="0,1") == (8, 18), "all of the new seed, nothing of the old"
    assert missing(home, **OTHER) == (8, 18)


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        (keeping.gc, {"superseded": True}, "add --unwanted"),
        (keeping.gc, {"home": Path("none")}, "nothing is stored in none"),
        (keeping.gc, {"what": ["nix"]}, "called 'nix'.*tiny at cpu"),
        (keeping.bundle, {"out": Path("tiny")}, "tiny: the first argument is the file to write"),
        (keeping.bundle, {"out": Path("no/b.tar.gz")}, "there is no folder no"),
        (keeping.bundle, {"out": Path("b.tgz"), "home": Path("none")}, "nothing is stored in none"),
        (keeping.bundle, {"out": Path("b.tgz"), "what": ["tiny/left"]}, "whole studies.*tiny at cpu"),
        (keeping.bundle, {"out": Path("b.tgz"), "weights": "online"}, "there is only 'ema'"),
        (keeping.bundle, {"out": Path("there.tar.gz")}, r"there\.tar\.gz exists"),
    ],
)
def test_bad_input(
    command: Callable[..., None], options: dict[str, Any], says: str, tiny: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("there.tar.gz").touch()
    with pytest.raises(StudyError, match=says):
        command(**{"home": tiny, **options})
    assert [path.name for path in tmp_path.iterdir()] == ["there.tar.gz"]


def test_gc_where_no_run_is_recorded(copy: Path) -> None:
    shutil.rmtree(copy / "runs")
    with pytest.raises(StudyError, match=r"no run is recorded in .*all weights would be unwanted"):
        keeping.gc(unwanted=True, delete=True, home=copy)
    assert tensors(copy)


def test_bad_input_on_the_command_line(tmp_path: Path) -> None:
    assert refused("gc", "--superseded", cwd=tmp_path, says=("add --unwanted",))
    assert refused("db", "import", "gone.tar.gz", cwd=tmp_path, says=("there is no file gone.tar.gz",))
    assert refused("db", "import", TINY, "--home", "new", cwd=tmp_path, says=("tiny.yaml is refused", "no tar.gz file"))
