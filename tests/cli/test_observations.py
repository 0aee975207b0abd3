"""Several studies in one command: one tree, executed as planned, reported study by study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.homes import study, succeeds

pytestmark = pytest.mark.slow

STUDIES = ("obs_gap_restriction", "obs_task_affinity")
QUICK = (
    "dynamics.network.width=16",
    "dynamics.network.depth=1",
    "dynamics.batch_size=16",
    "steps_per_epoch=1",
    "log_every_steps=20",
)
OPTIONS = ("--scale", "smoke", *(part for o in QUICK for part in ("-o", o)), "--as", "quick")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("observations")
    succeeds("run", *STUDIES, *OPTIONS, home=place)
    return place


def test_what_is_planned_is_what_is_trained(home: Path) -> None:
    plan = json.loads(succeeds("plan", *STUDIES, *OPTIONS, "--json", home=home))
    assert plan["missing"]["segments"] == plan["missing"]["evaluations"] == 0
    trained = 0
    for folder in home.glob("trajectories/*/attempts/*"):
        done = json.loads((folder / "DONE.json").read_text())
        trained += done["steps"]
    assert trained == plan["planned_epochs"] + plan["probe_epochs"] + plan["control_epochs"]
    assert "everything is there already" in succeeds("run", *STUDIES, *OPTIONS, home=home)


def test_the_log_holds_how_many_gaps_were_out_of_range(home: Path) -> None:
    shares: dict[float, list[float]] = {}
    for path in home.glob("trajectories/*/attempts/*/metrics.jsonl"):
        segment = json.loads((path.parent / "segment.json").read_text())
        for transform in segment["dynamics"]["transforms"]:
            for line in map(json.loads, path.read_text().splitlines()):
                if line["type"] == "metrics" and "gap_out_of_range" in line["values"]:
                    shares.setdefault(transform["lo"], []).append(line["values"]["gap_out_of_range"])
    means = [sum(shares[lo]) / len(shares[lo]) for lo in (0.1, 0.3, 0.5, 0.7)]
    assert means == sorted(means) and means[3] > 0.4


@pytest.mark.parametrize("name", STUDIES)
def test_each_is_reported(home: Path, tmp_path: Path, name: str) -> None:
    args = ("report", name, "--as", "quick", "--out", tmp_path)
    report = json.loads(succeeds(*args, "--json", home=home))
    assert report["missing"] == []
    stems = {Path(file).stem for file in report["files"]}
    assert any(stem.endswith("_layers") for stem in stems) == (name == "obs_task_affinity")
    for file in map(Path, report["files"]):
        assert file.stat().st_size > (500 if file.suffix in {".png", ".csv"} else 0), file
    claims = json.loads(succeeds("claims", name, "--as", "quick", "--json", home=home))
    assert claims["claims"] and all(v["verdict"] == "undecided" for v in claims["claims"]), "one seed never decides"


def test_an_observer_survives_being_asked_for_what_it_cannot_do(tmp_path: Path) -> None:
    """The exact fields of digits are not known: said before anything is trained."""
    done = study(
        "run", "obs_task_affinity", *OPTIONS, "-o", "measure.0.metric.quantity=exact", "-o", "figure=null",
        "-o", "claims=[]", "-o", "primary=task_affinity[0.3,0.5]", home=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "the exact fields of the data 'digits' are not known" in done.stderr
    assert not (tmp_path / "trajectories").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_before_anything_is_trained(tmp_path: Path) -> None:
    done = study("run", "obs_gap_restriction", "--scale", "gpu", home=tmp_path)
    assert done.returncode == 2
    assert "no CUDA GPU here" in done.stderr
    assert not (tmp_path / "trajectories").exists()
