"""The record of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from results.layout import Home
from studies.arms import expand
from studies.loader import load_source, resolve
from sweeps import runs
from sweeps.provenance import Provenance
from sweeps.runs import arm_record, config_hash, new_run_name, record_run
from tests.homes import TINY

NO_PROVENANCE = Provenance({"commit": None}, {"source.patch": b"diff"})


def test_names_are_sorted_by_time_and_differ() -> None:
    names = [new_run_name() for _ in range(200)]
    assert len(set(names)) == 200
    assert [n.split("-")[0] for n in names] == sorted(n.split("-")[0] for n in names)


def test_the_hash_covers_all_but_the_seeds() -> None:
    source = load_source(str(TINY))
    base = config_hash(resolve(source, "cpu"))
    assert config_hash(resolve(source, "cpu", seeds=[3, 4])) == base
    assert config_hash(resolve(source, "cpu", ["measure.0.samples=99"])) != base
    assert config_hash(resolve(source, "long")) != base


def test_a_record_is_whole(tmp_path: Path) -> None:
    study = resolve(load_source(str(TINY)), "cpu")
    arms = expand(study)
    folder = record_run(Home(tmp_path), study, arms, None, ["study", "run"], NO_PROVENANCE)
    assert {p.name for p in folder.iterdir()} == {"run.json", "arms.jsonl", "protocols.json", "source.patch"}
    record = json.loads((folder / "run.json").read_text())
    assert record["run"] == folder.name
    assert resolve(load_source(str(TINY)), "cpu").model_dump(mode="json") == record["config"]
    lines = [json.loads(line) for line in (folder / "arms.jsonl").read_text().splitlines()]
    assert lines == [json.loads(json.dumps(arm_record(arm))) for arm in arms]
    assert len(lines) == 7
    protocols = json.loads((folder / "protocols.json").read_text())
    assert {point["protocol"] for line in lines for point in line["points"]} == protocols.keys()


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = resolve(load_source(str(TINY)), "cpu")

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(runs, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        record_run(Home(tmp_path), study, expand(study), None, [], NO_PROVENANCE)
    assert list((tmp_path / "runs").iterdir()) == []
