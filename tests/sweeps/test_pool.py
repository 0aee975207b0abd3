"""The pool of processes, with real ones."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.backend import Event
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.pool import Pool, _death
from sweeps.session import open_session
from tests.homes import PATIENCE_S, TINY, wait_for

pytestmark = pytest.mark.slow  # processes of their own


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def job() -> Job:
    """80 steps."""
    jobs = open_session([resolve(load_source(str(TINY)), "cpu")]).jobs(Inventory())
    return next(job for job in jobs if job.kind == "train" and job.steps == 80)


def endless(job: Job) -> Job:
    return job.model_copy(update={"stop_step": 10**8, "full_steps": (10**8,), "checkpoint_every_steps": None})


def until(pool: Pool, *kinds: str, seconds: float = PATIENCE_S) -> Event:
    """The first event of one of some kinds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in pool.wait(0.2):
            if event.kind in kinds:
                return event
    raise AssertionError(f"none of {kinds} came")


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children() -> list[psutil.Process]:
    """The workers that live."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_worker_does_one_job_after_another_and_survives_a_failure(home: Home, job: Job) -> None:
    with Pool(home, 1) as pool:
        pool.submit(job.model_copy(update={"divergence": 1e-6}))
        assert pool.idle() == 0
        started = until(pool, "started")
        (process,) = children()
        failed = until(pool, "done", "failed")
        assert failed.kind == "failed"
        assert "diverges" in (failed.reason or "")
        assert "diverges" in Path(failed.log or "").read_text()
        assert failed.log == started.log
        pool.submit(job)
        assert until(pool, "done", "failed", "lost").kind == "done"
        assert children() == [process]
    assert children() == []


def test_a_stopped_worker_is_replaced_and_a_killed_one_is_noticed(home: Home, job: Job) -> None:
    with Pool(home, 1) as pool:
        pool.submit(endless(job))
        until(pool, "started")
        (first,) = children()
        first.send_signal(signal.SIGTERM)
        assert until(pool, "preempted", "lost").kind == "preempted"
        pool.submit(endless(job))
        event = until(pool, "started", "lost")
        assert event.kind == "started", "not given to the one that is leaving"
        (second,) = [p for p in children() if p != first]
        second.kill()
        lost = until(pool, "lost")
        assert lost.reason == "its process was killed by SIGKILL"
        assert lost.log == event.log
        assert pool.idle() == 1
        assert pool.running() == []


def test_leaving_the_pool_ends_even_a_worker_that_does_not_listen(home: Home, job: Job) -> None:
    with Pool(home, 1) as pool:
        pool.submit(endless(job))
        until(pool, "started")
        (process,) = children()
        process.suspend()
    assert not alive(process)


def test_workers_started_early_get_the_jobs_and_are_gone_at_once_without_any(home: Home, job: Job) -> None:
    with Pool(home, 3) as pool:
        pool.start(2)
        early = children()
        assert len(early) == 2
        pool.submit(job)
        assert children() == early
        assert until(pool, "done", "failed", "lost").kind == "done"
    assert children() == []
    with Pool(home, 1) as pool:
        pool.start(1)
    assert children() == []


def test_a_worker_whose_parent_dies_as_it_starts_ends_itself(home: Home, job: Job, tmp_path: Path) -> None:
    """The job is in the pipe already, but nobody is there to hear of it."""
    code = (
        "import os, sys, pathlib\n"
        "from sweeps.pool import Pool; from sweeps.jobs import Job; from results.layout import Home\n"
        "pool = Pool(Home(pathlib.Path(sys.argv[1])), 1)\n"
        "pool.submit(Job.model_validate_json(sys.argv[2]))\n"
        "print(pool._workers[0].process.pid, flush=True)\n"
        "os._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home.root), endless(job).model_dump_json()],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    pid = int(done.stdout)
    assert wait_for(lambda: not psutil.pid_exists(pid), 10)
    assert not list(home.trajectories.glob("*/checkpoints/*"))


def test_deaths_in_words() -> None:
    assert _death(-9) == "its process was killed by SIGKILL"
    assert _death(1) == _death(1) == "its process ended with status 1"
    assert "ended" in _death(None)


def test_a_worker_stopped_while_it_starts_hands_its_job_back(home: Home, job: Job) -> None:
    with Pool(home, 1) as pool:
        pool.submit(job)
        (process,) = children()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        event = until(pool, "started", "preempted", "lost")
        assert (event.kind, event.job) == ("preempted", job)
        assert wait_for(lambda: not alive(process), 10)


def test_a_worker_that_left_as_its_job_came_has_lost_nothing(tmp_path: Path, job: Job) -> None:
    """Told to stop while idle; the parent gave it a job before it saw that."""
    with Pool(Home(tmp_path), 1) as pool:
        pool.submit(job)
        assert until(pool, "done").kind == "done"
        (worker,) = pool._workers
        worker.process.terminate()
        worker.process.join(60)
        worker.job, worker.log = job, None
        event = worker.read()
    assert event is not None
    assert event.kind == "preempted"
