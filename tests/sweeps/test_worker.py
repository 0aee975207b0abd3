"""The worker: resuming, saving, failing and stopping, bit for bit."""

from __future__ import annotations

import errno
import json
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from meanflow_core.checkpoint import load_checkpoint
from results.layout import Home
from studies.errors import StudyError
from studies.loader import load_source, resolve
from sweeps import evaluating, rolling, training
from sweeps.attempt import Attempt, recorded_evaluations
from sweeps.cancelling import CANCELLED, request
from sweeps.jobs import Job
from sweeps.lease import acquire
from sweeps.plan import Inventory, checkpoint_steps, job_settings
from sweeps.rolling import Pace
from sweeps.session import open_session
from sweeps.worker import in_words, run_job
from tests.homes import TINY, tensors


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    return open_session([resolve(load_source(str(TINY)), "cpu")]).jobs(Inventory())


@pytest.fixture(scope="module")
def train(jobs: list[Job]) -> Job:
    """The control: 80 steps in one segment, a rolling checkpoint every 10, snapshots every 20."""
    return next(job for job in jobs if job.kind == "train" and job.stop_step - job.start_step == 80)


@pytest.fixture(scope="module")
def evaluate(jobs: list[Job], train: Job) -> Job:
    return next(job for job in jobs if job.kind == "evaluate" and job.trajectory == train.trajectory)


@pytest.fixture(scope="module")
def expected(train: Job, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("expected")
    assert run_job(Home(place), train)[0] == "done"
    return tensors(place)


def done(home: Home, job: Job, number: int) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((home.trajectory(job.trajectory).attempt(number) / "DONE.json").read_text())
    return record


def test_an_attempt_leaves_what_is_documented(home: Home, train: Job, expected: dict[str, str]) -> None:
    status, reason, log = run_job(home, train)
    assert (status, reason) == ("done", None)
    folder = home.trajectory(train.trajectory)
    assert checkpoint_steps(folder.checkpoints) == {80}, "rolling checkpoints are gone"
    assert sorted(int(p.name) for p in folder.snapshots.iterdir()) == [0, 20, 40, 60]
    attempt = folder.attempt(1)
    assert log == attempt / "log.txt"
    assert {p.name for p in attempt.iterdir()} == {"segment.json", "metrics.jsonl", "DONE.json"}
    assert not folder.lease("train").exists()
    record = done(home, train, 1)
    assert (record["start_step"], record["stop_step"], record["steps"]) == (0, 80, 80)
    segment = json.loads((attempt / "segment.json").read_text())
    assert segment.pop("attempt") == 1
    assert Job.model_validate(segment) == train
    assert tensors(home.root) == expected
    manifest = load_checkpoint(folder.checkpoint(80), ["ema"])
    assert manifest.meta["trajectory"] == train.trajectory


@pytest.mark.parametrize("stop_at", [0, 1, 10, 37, 79])
def test_stopping_anywhere_and_continuing_is_the_same(
    stop_at: int, home: Home, train: Job, expected: dict[str, str]
) -> None:
    seen = [0]
    status, reason, _ = run_job(home, train, seen.append, lambda: seen[-1] >= stop_at)
    assert (status, reason) == ("preempted", f"stopped on request at step {stop_at}")
    assert done(home, train, 1)["stop_step"] == stop_at
    assert run_job(home, train)[0] == "done"
    assert done(home, train, 2)["start_step"] == stop_at, "nothing is trained twice"
    assert expected.items() <= tensors(home.root).items()
    assert run_job(home, train)[0] == "done"
    assert done(home, train, 3)["steps"] == 0


def test_what_is_killed_goes_on_at_its_rolling_checkpoint(
    home: Home, train: Job, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the study naming any step."""
    job = train.model_copy(update={"checkpoint_every_steps": None, "rolling_s": 1e-9})
    monkeypatch.setattr(rolling, "SHARE", 1e9)

    def killed(step: int) -> None:
        if step == 37:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(home, job, killed)
    folder = home.trajectory(train.trajectory)
    assert checkpoint_steps(folder.checkpoints) == {36}, "one at a time"
    assert run_job(home, job.model_copy(update={"rolling_s": 0}))[0] == "done"
    assert done(home, train, 2)["start_step"] == 36
    assert expected.items() <= tensors(home.root).items()


def test_rolling_checkpoints_keep_to_their_share_of_the_time() -> None:
    now, took, saved = [0.0], 10.0, []
    pace = Pace(60, lambda: now[0])
    while now[0] < 10_000:
        now[0] += 1
        if pace.due():
            now[0] += took
            pace.saved(took, rolling=True)
            saved.append(now[0])
    assert saved[0] == 70 and all(later - before >= 60 for before, later in pairwise(saved))
    assert len(saved) * took <= 0.02 * now[0] + took
    quick = Pace(60, lambda: now[0])
    now[0] += 59
    assert not quick.due()
    quick.saved(took, rolling=False)  # what the study wants anyway is no reason to wait longer
    now[0] += 60
    assert not quick.due(), "10 s would be too much after two minutes"
    now[0] += 500
    assert quick.due()
    never = Pace(0, lambda: now[0])
    now[0] += 1e6
    assert not never.due()


def test_how_far_rolling_checkpoints_are_apart(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    study = resolve(load_source(str(TINY)), "cpu")
    monkeypatch.delenv(rolling.VARIABLE, raising=False)
    assert job_settings(study)["rolling_s"] == 60
    for given, seconds in (("0", 0), ("7.5", 7.5)):
        monkeypatch.setenv(rolling.VARIABLE, given)
        assert job_settings(study)["rolling_s"] == seconds
    for wrong in ("never", "-1", "nan", "inf"):
        monkeypatch.setenv(rolling.VARIABLE, wrong)
        with pytest.raises(StudyError, match=f"STUDY_ROLLING_S={wrong}: give seconds"):
            job_settings(study)


def test_an_attempt_that_broke_off_is_cleared_up(home: Home, train: Job, expected: dict[str, str]) -> None:
    lost = Attempt(home, train)
    for name in ("checkpoints-000000010", "discarded-000000010"):
        lost.staged(name).mkdir()
        (lost.staged(name) / "online.safetensors").write_bytes(b"half")
    assert run_job(home, train)[0] == "done"
    assert {p.name for p in lost.folder.iterdir()} == {"segment.json", "metrics.jsonl"}
    assert tensors(home.root) == expected


def test_whoever_publishes_first_is_right(home: Home, train: Job, expected: dict[str, str]) -> None:
    run_job(home, train)
    folder = home.trajectory(train.trajectory)
    inode = folder.checkpoint(80).stat().st_ino
    shutil.rmtree(folder.snapshot(40))
    assert run_job(home, train)[0] == "done"
    assert folder.checkpoint(80).stat().st_ino == inode
    assert tensors(home.root) == expected


def test_a_held_trajectory_is_busy(home: Home, train: Job) -> None:
    lease = acquire(home.trajectory(train.trajectory).lease("train"))
    assert lease is not None
    with lease:
        assert run_job(home, train) == ("busy", None, None)
    assert not home.trajectory(train.trajectory).attempts.exists()


def test_a_key_that_is_not_that_of_the_dynamics_is_refused(home: Home, train: Job) -> None:
    with pytest.raises(ValueError, match="does not belong to these dynamics"):
        run_job(home, train.model_copy(update={"seed": 5}))


def test_training_that_diverges_stops_and_publishes_nothing_bad(home: Home, train: Job) -> None:
    status, reason, _ = run_job(home, train.model_copy(update={"divergence": 1e-6}))
    assert status == "failed"
    assert reason
    assert "training diverges" in reason
    assert done(home, train, 1)["reason"] == reason
    assert checkpoint_steps(home.trajectory(train.trajectory).checkpoints) == set()


def test_a_full_disk_gives_back_what_was_written(home: Home, train: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.write_checkpoint

    def full(folder: Path, parts: Any, meta: Any) -> None:
        real(folder, parts, meta)
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(training, "write_checkpoint", full)
    status, reason, _ = run_job(home, train)
    assert (status, reason and "free some space" in reason) == ("failed", True)
    assert not list(home.root.glob("**/*.safetensors"))


def test_what_is_measured_is_never_measured_again(
    home: Home, train: Job, evaluate: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(home, train)
    folder = home.trajectory(train.trajectory)
    seen = [0]
    status, _, _ = run_job(home, evaluate, seen.append, lambda: seen[-1] >= 2)
    assert (status, len(recorded_evaluations(folder))) == ("preempted", 2)
    measured = []
    real = evaluating.evaluate
    monkeypatch.setattr(evaluating, "evaluate", lambda *args: measured.append(1) or real(*args))
    assert run_job(home, evaluate)[0] == "done"
    assert len(measured) == len(evaluate.evaluations) - 2
    assert run_job(home, evaluate)[0] == "done"
    assert len(measured) == len(evaluate.evaluations) - 2
    assert recorded_evaluations(folder) == {wanted.evaluation for wanted in evaluate.evaluations}


def test_a_missing_parent_is_named(home: Home, jobs: list[Job]) -> None:
    child = next(job for job in jobs if job.parent)
    assert child.parent
    status, reason, _ = run_job(home, child)
    assert status == "failed"
    assert reason
    assert str(home.trajectory(child.parent.trajectory).checkpoint(child.parent.step)) in reason


def test_errors_in_words() -> None:
    assert in_words(ValueError("first\nsecond")) == "ValueError: first"
    assert in_words(KeyError()) == "KeyError"
    assert "disk is full" in in_words(OSError(errno.ENOSPC, "No space left on device"))


def test_a_request_to_end_reaches_work_that_was_asked_for_before_it(home: Home, train: Job) -> None:
    """Handed out, but not begun: a worker that still imports, a job that waits in a queue. Asked for since, it is
    done."""
    asked = time.time()
    request(home, train.trajectory, "train")
    made = home.trajectory(train.trajectory).cancelled("train").stat().st_mtime
    assert run_job(home, train, asked=asked - 1)[:2] == ("failed", CANCELLED)
    assert done(home, train, 1)["steps"] == 0
    assert run_job(home, train, asked=made + 1)[0] == "done"
