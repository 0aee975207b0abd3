"""What an observer measures while training passes: recorded once, whatever happens, and training never notices."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from results.ingest import ingest
from results.layout import Home
from results.queries import evaluations, training_metrics
from results.store import open_store
from studies.loader import load_source, resolve
from sweeps.jobs import Job
from sweeps.scheduler import outputs_there
from sweeps.session import Session, open_session
from sweeps.worker import run_job
from tests.homes import tensors

GAPS = ("0.1,0.3", "0.7,0.9")
MEASURE = "measure=[" + ", ".join(
    f"{{metric: {{name: task_affinity, lo: {gap.split(',')[0]}, hi: {gap.split(',')[1]}}}, weights: online, "
    "samples: 40, every_epochs: 10, from_epoch: 10, stages: [joint]}"
    for gap in GAPS
) + "]"  # fmt: skip
BLIND = "measure=[{metric: {name: frechet, features: pixel}, samples: 100, stages: [joint]}]"
SMALL = (
    "dynamics.network.width=16",
    "dynamics.network.depth=1",
    "dynamics.batch_size=16",
    "steps_per_epoch=1",
    "figure=null",
    "claims=[]",
)


@cache
def session(*overrides: str) -> Session:
    primary = "primary=frechet_pixel" if BLIND in overrides else "primary=task_affinity[0.7,0.9]"
    return open_session([resolve(load_source("obs_task_affinity"), "smoke", (*SMALL, primary, *overrides))])


def train(home: Home, s: Session, stop_after: int | None = None) -> list[Job]:
    """Do the training jobs that are missing; each is asked to stop after so many steps."""
    jobs = [job for job in s.jobs(s.inventory(home, recorded(home))) if job.kind == "train"]
    for job in jobs:
        calls = iter(range(10**6))
        should_stop = (lambda: False) if stop_after is None else (lambda calls=calls: next(calls) >= stop_after)
        run_job(home, job, should_stop=should_stop)
    return jobs


def lines(home: Home, kind: str) -> list[dict[str, Any]]:
    files = sorted(home.root.glob("trajectories/*/attempts/*/metrics.jsonl"))
    return [r for f in files for r in map(json.loads, f.read_text().splitlines()) if r["type"] == kind]


def recorded(home: Home) -> set[str]:
    return {line["evaluation"] for line in lines(home, "evaluation")}


def values(home: Home) -> dict[str, float]:
    return {line["evaluation"]: line["value"] for line in lines(home, "evaluation")}


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("observed"))
    train(home, session(MEASURE))
    return home


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The same, trained with nothing that looks."""
    home = Home(tmp_path_factory.mktemp("blind"))
    train(home, session(BLIND))
    return home


@pytest.fixture
def blind_copy(blind: Home, tmp_path: Path) -> Home:
    return Home(Path(shutil.copytree(blind.root, tmp_path / "copy")))


def test_every_point_is_recorded_once_with_its_layers(observed: Home) -> None:
    found = lines(observed, "evaluation")
    assert len(found) == len(recorded(observed)) == 3 * 4 * len(GAPS)  # three starts, four probes
    assert {line["weights"] for line in found} == {"online"}
    assert all(-1 <= line["value"] <= 1 for line in found)
    s = session(MEASURE)
    assert recorded(observed) == {p.evaluation for arm in s.arms for p in arm.points}
    details = [line["values"] for line in lines(observed, "metrics") if any("layer/" in k for k in line["values"])]
    assert len(details) == 3 * 4
    layers = {name.split("/")[2] for line in details for name in line}
    assert layers >= {"input", "blocks.0", "output"}
    assert {name.split("/")[1] for line in details for name in line} == {line["protocol"] for line in found}


def test_training_is_not_changed_by_one_bit(observed: Home, blind: Home) -> None:
    assert tensors(blind.root) == tensors(observed.root)


@pytest.mark.parametrize("stop_after", [10, 13])  # where it is observed, and in between up to one before the end
def test_stopped_and_continued_it_records_the_same(observed: Home, tmp_path: Path, stop_after: int) -> None:
    home = Home(tmp_path)
    s = session(MEASURE)
    for _ in range(5):
        train(home, s, stop_after)
    while train(home, s):
        pass
    assert values(home) == values(observed)
    assert len(lines(home, "evaluation")) == len(values(home)), "nothing is measured twice"
    end = {k: v for k, v in tensors(observed.root).items() if k in tensors(home.root)}
    assert end and end.items() <= tensors(home.root).items()


def test_what_was_trained_unobserved_is_observed_afterwards(observed: Home, blind_copy: Home) -> None:
    home = blind_copy
    before = tensors(home.root)
    jobs = train(home, session(MEASURE))
    assert {job.trajectory for job in jobs} == {job.trajectory for job in jobs if job.evaluations}
    assert values(home) == values(observed)
    assert tensors(home.root) == before
    assert all(outputs_there(home, job) for job in jobs)
    assert train(home, session(MEASURE)) == []


def test_a_probe_at_a_checkpoint_costs_no_training(blind_copy: Home) -> None:
    home = blind_copy
    at_the_end = MEASURE.replace("every_epochs: 10, from_epoch: 10, ", "")
    jobs = train(home, session(at_the_end))
    assert len(recorded(home)) == 3 * len(GAPS)
    assert [job.steps for job in jobs] == [0, 0, 0], "the plan knows"
    steps = [
        json.loads((home.trajectory(job.trajectory).attempts / "0002" / "DONE.json").read_text())["steps"]
        for job in jobs
    ]
    assert steps == [0, 0, 0]


def test_the_store_has_them_like_any_evaluation(observed: Home) -> None:
    with_store = open_store(f"sqlite:///{observed.root / 'store.sqlite'}")
    ingest(with_store, observed)
    keys = [str(p.name) for p in observed.trajectories.iterdir()]
    layers = training_metrics(with_store, keys)
    assert layers["name"].str.startswith("layer/").any()
    assert evaluations(with_store, "obs_task_affinity", "smoke").empty, "no run was recorded"
