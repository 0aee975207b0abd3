"""What every engine must do, held against the real thing: inline, the local pool, Ray and SLURM.

What comes of the others, whatever is killed, is what inline leaves when nothing disturbs it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.backend import Backend, Watcher
from sweeps.inline import inline
from sweeps.jobs import Job
from sweeps.losses import MAX_LOST
from sweeps.needs import outputs_there
from sweeps.plan import Inventory
from sweeps.pool import Pool
from sweeps.scheduler import Scheduler
from sweeps.session import open_session
from sweeps.slurm.backend import SlurmBackend
from sweeps.slurm.profile import Cluster, TimeLimit
from tests.homes import MICRO, Command, dump, succeeds, tensors, unfinished, wait_for

from .conformance import Recorder, Subject, assert_equal_to, begun, ends, evaluated, kill_worker, working

pytestmark = pytest.mark.slow  # most tests start commands that train

LONG = (MICRO, "--scale", "long")


@contextmanager
def open_inline(home: Home, jobs: Sequence[Job], watcher: Watcher) -> Iterator[Backend]:
    yield inline(home, jobs, watcher)


@contextmanager
def open_pool(home: Home, jobs: Sequence[Job], watcher: Watcher) -> Iterator[Backend]:
    with Pool(home, 2) as pool:
        yield Scheduler(home, pool, jobs, watcher)


@contextmanager
def open_ray(home: Home, jobs: Sequence[Job], watcher: Watcher) -> Iterator[Backend]:
    from sweeps.ray_workers import RayWorkers

    with RayWorkers(home, 2) as workers:
        yield Scheduler(home, workers, jobs, watcher)


@contextmanager
def open_slurm(home: Home, jobs: Sequence[Job], watcher: Watcher) -> Iterator[Backend]:
    yield SlurmBackend(home, jobs, watcher, Cluster(poll_s=0.5, time=TimeLimit(min_min=1, max_min=10)))


RAY, SLURM = pytest.param("ray", marks=pytest.mark.ray), pytest.param("slurm", marks=pytest.mark.slurm)
STRESS_RAY = pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.stress])
STRESS_SLURM = pytest.param("slurm", marks=[pytest.mark.slurm, pytest.mark.stress])
by_processes = pytest.mark.parametrize("subject", ["local", RAY, SLURM], indirect=True)


@pytest.fixture(params=["inline", "local", RAY, SLURM])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    if request.param == "inline":
        return Subject("inline", open_inline, ("--backend", "inline"))
    if request.param == "local":
        return Subject("local", open_pool, ("--workers", "2"))
    if request.param == "slurm":
        request.getfixturevalue("slurm")
        profile = tmp_path / "cluster.yaml"
        profile.write_text("poll_s: 0.5\ntime: {min_min: 1, max_min: 10}\n")
        return Subject("slurm", open_slurm, ("--backend", "slurm", "--cluster", str(profile)), outlives=True)
    address = request.getfixturevalue("ray_address")
    return Subject("ray", open_ray, ("--backend", "ray", "--address", address, "--workers", "2"))


@pytest.fixture
def jobs() -> list[Job]:
    return open_session([resolve(load_source(str(MICRO)), "cpu")]).jobs(Inventory())


def test_everything_is_done_once_and_the_result_is_inlines(
    subject: Subject, jobs: list[Job], micro: Path, tmp_path: Path
) -> None:
    """Inputs come first: a job whose input is missing would fail."""
    home, watcher = Home(tmp_path / "home"), Recorder()
    with subject.open(home, jobs, watcher) as backend:
        outcome = backend.run()
    assert outcome.complete and outcome.done == len(jobs)
    assert all(outputs_there(home, job) for job in jobs)
    assert [end["status"] for end in ends(home.root)] == ["done"] * len(jobs)
    assert set(evaluated(home.root).values()) == {1}
    names = {job.name for job in jobs}
    assert watcher.count("done") == dict.fromkeys(names, 1)
    assert set(watcher.count("started")) == names
    assert all(Path(event.log or "").is_file() for event in watcher.events if event.kind == "started")
    assert tensors(home.root) == tensors(micro)


def test_a_failure_is_reported_with_its_log_and_blocks_only_what_needs_it(
    subject: Subject, jobs: list[Job], tmp_path: Path
) -> None:
    root = next(job for job in jobs if job.kind == "train" and job.dynamics.fm_ratio == 1.0)
    bad = root.model_copy(update={"divergence": 1e-6})
    with subject.open(Home(tmp_path), [bad if job == root else job for job in jobs], Recorder()) as backend:
        outcome = backend.run()
    (failure,) = outcome.failures
    assert failure.job == bad
    assert "Diverged" in failure.reason and "Diverged" in failure.tail()
    needs = {bad.trajectory} | {
        job.trajectory for job in jobs if job.parent and job.parent.trajectory == bad.trajectory
    }
    assert outcome.blocked and {job.trajectory for job in outcome.blocked} <= needs
    assert outcome.done + len(outcome.blocked) + 1 == len(jobs)
    assert sum(end["status"] == "failed" for end in ends(tmp_path)) == 1, "a failure is not repeated"


@by_processes
def test_a_worker_and_the_command_killed_at_random_moments_change_nothing(
    subject: Subject, micro_long: Path, tmp_path: Path
) -> None:
    """kill -9 of a worker that is at work, then of the command; run again, it ends as inline does, bit for bit."""
    home, rng = tmp_path / "home", random.Random()
    rng.seed(seed := rng.randrange(10**6))
    print(f"seed {seed}")
    command = Command("run", *LONG, *subject.args, home=home)
    assert wait_for(lambda: command.over() or bool(working(home))) and not command.over(), command.wait()[1]
    time.sleep(rng.uniform(0, 1))
    killed = [attempt for attempt in unfinished(home) if kill_worker(attempt)]
    assert wait_for(lambda: command.over() or bool(unfinished(home) - set(killed)))
    time.sleep(rng.uniform(0, 1))
    command.process.kill()
    command.process.wait()
    if not subject.outlives:
        assert wait_for(lambda: not working(home), subject.gone_within_s), "nothing works on when the command is gone"
        command.assert_gone(subject.gone_within_s)
    again = Command("run", *LONG, *subject.args, home=home)
    status, output = again.wait()
    assert status == 0, output
    assert killed or not unfinished(home)
    assert set(killed) <= unfinished(home), "the attempts of what was killed stay as they were"
    assert_equal_to(micro_long, home)


@by_processes
def test_what_is_cancelled_is_saved_and_what_waits_for_it_is_not_begun(subject: Subject, tmp_path: Path) -> None:
    endless = ("-o", "stages.1.epochs=20000", "--as", "endless")
    command = Command("run", MICRO, *endless, *subject.args, home=tmp_path)
    endless_begun = lambda: any(_logged(folder) for folder in begun(tmp_path, stop_step=200_000))  # noqa: E731
    assert wait_for(lambda: command.over() or endless_begun()) and not command.over(), command.wait()[1]
    assert "asked to end" in succeeds("cancel", "micro", home=tmp_path)
    status, output = command.wait()
    assert (status, "cancelled on request" in output) == (1, True), output
    command.assert_gone()
    assert not working(tmp_path)
    cancelled = [end for end in ends(tmp_path) if end["reason"] == "cancelled on request"]
    assert any(end["kind"] == "train" and end["steps"] for end in cancelled)
    for end in cancelled:
        if end["kind"] == "train" and end["steps"]:
            assert list(tmp_path.glob(f"trajectories/*/checkpoints/{end['stop_step']:09d}")), "saved where it stopped"
    assert not json.loads(succeeds("status", "--json", home=tmp_path))["running"]


def _logged(attempt: Path) -> bool:
    metrics = attempt / "metrics.jsonl"
    return metrics.exists() and metrics.stat().st_size > 0


@pytest.mark.parametrize("subject", ["local", RAY], indirect=True)  # SLURM's jobs outlive the command
def test_ctrl_c_saves_and_running_again_goes_on(subject: Subject, micro_long: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = Command("run", *LONG, *subject.args, home=home)
    assert wait_for(lambda: command.over() or bool(working(home))) and not command.over(), command.wait()[1]
    time.sleep(0.3)
    os.killpg(command.process.pid, signal.SIGINT)
    time.sleep(0.1)
    command.process.send_signal(signal.SIGINT)  # whoever started it passes on what it got itself: one request
    status, output = command.wait()
    assert status == 130 and "Run the same command again" in output, output
    assert "Ctrl-C: stopping as soon as " in output and " next step; once more ends at once" in output
    command.assert_gone()
    assert unfinished(home) == set(), "every attempt ended by itself"
    stopped = [end for end in ends(home) if end["status"] == "preempted"]
    assert stopped and all("stopped on request" in end["reason"] for end in stopped)
    succeeds("run", *LONG, home=home)
    assert_equal_to(micro_long, home)


@pytest.mark.parametrize("subject", ["local", STRESS_RAY], indirect=True)
def test_a_job_whose_worker_dies_is_tried_again_within_bounds(subject: Subject, tmp_path: Path) -> None:
    """The u of arm v0 takes seconds, all else is short. It saves nothing on the way: a job that gets on is tried
    again."""
    longer = ("-o", "panels.left.arms={v_epochs: [0, 2], u_epochs: [100, 2]}", "-o", "checkpoint_every_epochs=1000")
    command = Command("run", MICRO, *longer, "--as", "long_u", *subject.args, home=tmp_path)
    killed: set[Path] = set()
    while not command.over():
        for attempt in begun(tmp_path, stop_step=1000) - killed:
            if kill_worker(attempt):
                killed.add(attempt)
        time.sleep(0.02)
    status, output = command.wait()
    assert (status, len(killed)) == (1, MAX_LOST), output
    assert "killed" in output and f", {MAX_LOST} times" in output
    assert "failed or is missing: 1 job" in output
    rows = succeeds("results", "--study", MICRO, "--as", "long_u", home=tmp_path).splitlines()[1:]
    assert {row.split(",")[5] for row in rows} == {"v2"}, "all else is complete"


@pytest.mark.parametrize("subject", ["local", STRESS_RAY, STRESS_SLURM], indirect=True)
def test_two_commands_at_once_share_the_work(subject: Subject, micro: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    both = [Command("run", MICRO, *subject.args, home=home) for _ in range(2)]
    for command in both:
        status, output = command.wait()
        assert status == 0, output
        command.assert_gone()
    assert_equal_to(micro, home)
    assert dump(home) == dump(micro)
    assert sum(end["steps"] for end in ends(home)) == 60, "no step is trained twice"
    assert set(evaluated(home).values()) == {1}, "nothing is measured twice"
