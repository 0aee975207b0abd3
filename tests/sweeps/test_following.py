"""News read from the files of an attempt that somebody else makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.attempt import Attempt
from sweeps.following import Following
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.session import open_session
from tests.homes import TINY


@pytest.fixture
def jobs() -> tuple[Job, Job]:
    """To train a trajectory, and to evaluate it."""
    found = open_session([resolve(load_source(str(TINY)), "cpu")]).jobs(Inventory())
    evaluate = next(job for job in found if job.kind == "evaluate" and len(job.evaluations) > 1)
    return next(j for j in found if (j.kind, j.trajectory) == ("train", evaluate.trajectory)), evaluate


def test_training_is_followed_line_by_line(tmp_path: Path, jobs: tuple[Job, Job]) -> None:
    home, (train, evaluate) = Home(tmp_path), jobs
    Attempt(home, train)  # an earlier one
    following = Following(home, train)
    Attempt(home, evaluate)
    assert following.look() == [] and following.log is None
    own = Attempt(home, train)
    (started,) = following.look()
    assert (started.kind, started.job, started.log) == ("started", train, str(own.log_path))
    assert following.look() == []
    own.metrics(5, {"loss": 1.0})
    own.metrics(10, {"loss": 1.0})
    assert [(event.kind, event.step) for event in following.look()] == [("progress", 10)]
    path = own.folder / "metrics.jsonl"
    line = json.dumps({"type": "metrics", "step": 15, "values": {}}) + "\n"
    with path.open("a") as file:
        file.write(line[:9])
        file.flush()
        assert following.look() == [], "a line that is still being written"
        file.write(line[9:])
    assert [event.step for event in following.look()] == [15]


def test_evaluations_are_counted_and_looks_are_spared(tmp_path: Path, jobs: tuple[Job, Job]) -> None:
    home, (_, evaluate) = Home(tmp_path), jobs
    following = Following(home, evaluate)
    own = Attempt(home, evaluate)
    assert [event.kind for event in following.news()] == ["started"]
    for wanted in evaluate.evaluations:
        own.evaluated(wanted, 1.0, 0.1)
    assert following.news() == [], "so soon nobody looks"
    assert [event.step for event in following.look()] == [len(evaluate.evaluations)]


def test_an_attempt_that_is_just_being_made_is_waited_for(tmp_path: Path, jobs: tuple[Job, Job]) -> None:
    home, (train, _) = Home(tmp_path), jobs
    following = Following(home, train)
    folder = home.trajectory(train.trajectory).attempt(1)
    folder.mkdir(parents=True)
    assert following.look() == []
    (folder / "segment.json").write_text(train.model_dump_json())
    assert [event.kind for event in following.look()] == ["started"]
    assert following.look() == [], "its metrics are not there yet"
