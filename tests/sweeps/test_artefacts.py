"""What evaluations keep besides their value: written first, found again, and harmless if the rest was lost."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results.ingest import ingest
from results.layout import Home
from results.queries import artefacts, evaluated_keys
from results.rebuild import rebuild
from results.store import open_store
from studies.loader import load_source, resolve
from sweeps import attempt as attempts
from sweeps.attempt import Attempt, recorded_evaluations
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.session import open_session
from sweeps.worker import run_job
from tests.homes import TINY

IMAGES = ["measure.0.metric=images", "measure.0.samples=16", "primary=images"]


class Killed(BaseException):
    """As if the process had ended here: nothing catches it."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def jobs() -> tuple[Job, Job]:
    """Train the control, and measure its pictures at five epochs."""
    found = open_session([resolve(load_source(str(TINY)), "cpu", IMAGES)]).jobs(Inventory())
    train = next(job for job in found if job.kind == "train" and job.steps == 80)
    return train, next(job for job in found if job.kind == "evaluate" and job.trajectory == train.trajectory)


def kept(home: Home, job: Job, number: int) -> dict[str, bytes]:
    """The artefacts of an attempt, by name."""
    return {path.name: path.read_bytes() for path in home.trajectory(job.trajectory).attempt(number).glob("*.npy")}


def lines(home: Home, job: Job, number: int) -> list[dict[str, Any]]:
    path = home.trajectory(job.trajectory).attempt(number) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_evaluation_has_its_pictures(home: Home, jobs: tuple[Job, Job]) -> None:
    train, evaluate = jobs
    assert run_job(home, train)[0] == "done" and run_job(home, evaluate)[0] == "done"
    recorded = {line["evaluation"]: line["value"] for line in lines(home, evaluate, 2)}
    assert len(recorded) == 5 and recorded.keys() == {wanted.evaluation for wanted in evaluate.evaluations}
    assert kept(home, evaluate, 2).keys() == {f"images-{key}.npy" for key in recorded}
    engine = open_store(home.store_url)
    ingest(engine, home)
    places = artefacts(engine, home, [*recorded, "unknown"])
    assert places.keys() == recorded.keys()
    for key, path in places.items():
        pictures = np.load(path, allow_pickle=False)
        assert pictures.shape == (16, 8, 8, 1) and pictures.dtype == np.uint8
        assert float(pictures.std()) == recorded[key]
    assert rebuild(home.store_url, home).evaluations == 5
    assert artefacts(open_store(home.store_url), home, list(recorded)) == places


def test_measured_again_they_are_bitwise_the_same(home: Home, jobs: tuple[Job, Job]) -> None:
    """As the message about a damaged file has it: the attempt is moved away and the study run again."""
    train, evaluate = jobs
    run_job(home, train)
    run_job(home, evaluate)
    first = kept(home, evaluate, 2)
    home.trajectory(evaluate.trajectory).attempt(2).rename(home.root / "away")
    rebuild(home.store_url, home)
    assert evaluated_keys(open_store(home.store_url)) == set()
    assert run_job(home, evaluate)[0] == "done"
    assert kept(home, evaluate, 2) == first and len(set(first.values())) > 1


def test_killed_between_the_pictures_and_the_line(
    home: Home, jobs: tuple[Job, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, evaluate = jobs
    run_job(home, train)
    whole = Attempt._line

    def killed(self: Attempt, record: Mapping[str, Any]) -> None:
        if len(list(self.folder.glob("*.npy"))) == 3:
            raise Killed
        whole(self, record)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Attempt, "_line", killed)
        run_job(home, evaluate)
    assert len(kept(home, evaluate, 2)) == 3 and len(lines(home, evaluate, 2)) == 2
    assert len(recorded_evaluations(home.trajectory(evaluate.trajectory))) == 2
    assert run_job(home, evaluate)[0] == "done"
    assert len(kept(home, evaluate, 3)) == 3, "the one that was lost is measured again, the recorded two are not"
    orphan = kept(home, evaluate, 2).items() & kept(home, evaluate, 3).items()
    assert len(orphan) == 1, "and equals what the attempt that was killed had kept"
    engine = open_store(home.store_url)
    ingest(engine, home)
    places = artefacts(engine, home, [wanted.evaluation for wanted in evaluate.evaluations])
    assert sorted(path.parent.name for path in places.values()) == ["0002"] * 2 + ["0003"] * 3
    assert all(path.is_file() for path in places.values())


def test_no_room_for_the_pictures(home: Home, jobs: tuple[Job, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    train, evaluate = jobs
    run_job(home, train)
    whole = attempts.write_atomically

    def full(path: Path, content: str | bytes) -> None:
        if path.suffix == ".npy":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(attempts, "write_atomically", full)
        status, reason, _ = run_job(home, evaluate)
    assert status == "failed" and reason is not None and "disk is full" in reason
    assert lines(home, evaluate, 2) == [] and kept(home, evaluate, 2) == {}
    assert run_job(home, evaluate)[0] == "done" and len(kept(home, evaluate, 3)) == 5
