"""What every backend must do, held against the real thing: the local pool, Ray and SLURM."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.backend import Backend, Watcher
from sweeps.jobs import Job
from sweeps.losses import MAX_LOST
from sweeps.needs import outputs_there
from sweeps.plan import Inventory
from sweeps.pool import Pool
from sweeps.scheduler import Scheduler
from sweeps.session import open_session
from sweeps.slurm.backend import SlurmBackend
from sweeps.slurm.profile import Cluster, TimeLimit
from tests.homes import TINY, Command, succeeds, tensors, unfinished, wait_for

from .conformance import Recorder, Subject, assert_equal_to, begun, ends, evaluated, kill_worker, working

pytestmark = pytest.mark.slow  # every test starts commands that train

LONG = (TINY, "--scale", "long", "--workers", "2")


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
# SLURM's jobs outlive the command; what becomes of them then is held in tests/sweeps/test_slurm.py.
ends_with_the_command = pytest.mark.parametrize("subject", ["local", RAY], indirect=True)


@pytest.fixture(params=["local", RAY, SLURM])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    if request.param == "local":
        return Subject("local", open_pool, ())
    if request.param == "slurm":
        request.getfixturevalue("slurm")
        profile = tmp_path / "cluster.yaml"
        profile.write_text("poll_s: 0.5\ntime: {min_min: 1, max_min: 10}\n")
        return Subject("slurm", open_slurm, ("--backend", "slurm", "--cluster", str(profile)), outlives=True)
    address = request.getfixturevalue("ray_address")
    return Subject("ray", open_ray, ("--backend", "ray", "--address", address))


@pytest.fixture
def jobs() -> list[Job]:
    return open_session([resolve(load_source(str(TINY)), "cpu")]).jobs(Inventory())


def test_everything_is_done_once_and_the_result_is_that_of_the_local_run(
    subject: Subject, jobs: list[Job], tiny: Path, tmp_path: Path
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
    assert tensors(home.root) == tensors(tiny)


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


@ends_with_the_command
def test_a_job_whose_worker_dies_is_tried_again_within_bounds(subject: Subject, tmp_path: Path) -> None:
    """The control takes seconds, all else is short. It saves nothing on the way: a job that gets on is tried again."""
    longer = ("-o", "controls.joint.stages.0.epochs=100", "-o", "checkpoint_every_epochs=1000", "--as", "long_joint")
    command, killed = Command("run", TINY, *longer, "--workers", "2", *subject.args, home=tmp_path), set()
    while not command.over():
        for attempt in begun(tmp_path, stop_step=1000) - killed:
            if kill_worker(attempt):
                killed.add(attempt)
        time.sleep(0.02)
    status, output = command.wait()
    assert (status, len(killed)) == (1, MAX_LOST), output
    assert "killed" in output and f", {MAX_LOST} times" in output
    assert "1 jobs are blocked" in output
    rows = succeeds("results", "--study", TINY, "--as", "long_joint", home=tmp_path).splitlines()[1:]
    assert {row.split(",")[5] for row in rows} == {"v0", "v2", "v4"}, "all else is complete"


@pytest.mark.parametrize("subject", [RAY], indirect=True)  # of the local pool: tests/sweeps/test_kill.py
def test_stopped_and_killed_it_goes_on_where_it_was(subject: Subject, long: Path, tmp_path: Path) -> None:
    """Ctrl-C to the command, as a terminal sends it; kill -9 of the command; and undisturbed to the end."""
    home = tmp_path / "home"
    command = start_and_wait_for_attempts(subject, home)
    os.killpg(command.process.pid, signal.SIGINT)
    status, output = command.wait()
    assert status == 130 and "Run the same command again" in output, output
    command.assert_gone()
    assert unfinished(home) == set(), "every attempt ended by itself"
    stopped = [end for end in ends(home) if end["status"] == "preempted"]
    assert stopped and all("stopped on request" in end["reason"] for end in stopped)

    command = start_and_wait_for_attempts(subject, home)
    command.process.kill()
    command.process.wait()
    assert wait_for(lambda: not working(home), subject.gone_within_s), "nothing works on when the command is gone"
    command.assert_gone(subject.gone_within_s)
    left = unfinished(home)
    assert left

    command = Command("run", *LONG, *subject.args, home=home)
    status, output = command.wait()
    assert status == 0, output
    assert unfinished(home) == left, "the attempts of the killed command stay as they were"
    assert_equal_to(long, home)


def start_and_wait_for_attempts(subject: Subject, home: Path) -> Command:
    """A new command that works on two attempts."""
    before = unfinished(home)
    command = Command("run", *LONG, *subject.args, home=home)
    assert wait_for(lambda: len(unfinished(home) - before) >= 2, 120)
    time.sleep(0.3)
    return command


def test_two_commands_at_once_share_the_work(subject: Subject, tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    both = [Command("run", TINY, *subject.workers(1), *subject.args, home=home) for _ in range(2)]
    for command in both:
        status, output = command.wait()
        assert status == 0, output
        command.assert_gone()
    assert_equal_to(tiny, home)
    assert sum(end["steps"] for end in ends(home)) == 300, "no step is trained twice"
    assert set(evaluated(home).values()) == {1}, "nothing is measured twice"
