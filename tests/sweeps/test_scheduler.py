"""The scheduler's decisions, on a pool that only pretends."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.layout import Home
from studies.loader import load_source, resolve
from sweeps import scheduler as module
from sweeps.backend import Event
from sweeps.cancelling import CANCELLED, moment, request
from sweeps.jobs import Job
from sweeps.lease import acquire
from sweeps.losses import MAX_LOST
from sweeps.needs import inputs_ready, makes, missing_input, outputs_there
from sweeps.plan import Inventory
from sweeps.scheduler import Scheduler
from sweeps.session import open_session
from tests.homes import TINY

Fate = Callable[[Job, int], str]


class PretendPool:
    """Jobs end at the next look, as ``fate(job, how often it was given)`` says; done ones leave their files."""

    def __init__(self, home: Home, size: int, fate: Fate) -> None:
        self.home, self.size, self.fate = home, size, fate
        self.given: list[Job] = []
        self._running: list[Job] = []

    def idle(self) -> int:
        return self.size - len(self._running)

    def running(self) -> list[Job]:
        return list(self._running)

    def submit(self, job: Job, asked: float | None = None) -> None:
        assert inputs_ready(self.home, job)
        assert (job.kind, job.trajectory) not in {(j.kind, j.trajectory) for j in self._running}
        self.given.append(job)
        self._running.append(job)

    def wait(self, timeout: float) -> list[Event]:
        jobs, self._running = self._running, []
        return [Event(self._end(job), job, reason="as told") for job in jobs]  # type: ignore[arg-type]

    def stop(self) -> list[Event]:
        jobs, self._running = self._running, []
        return [Event("preempted", job) for job in jobs]

    def _end(self, job: Job) -> str:
        how = self.fate(job, self.given.count(job))
        if how == "done":
            make(self.home, job)
        return how


def make(home: Home, job: Job) -> None:
    """What a job leaves."""
    folder = home.trajectory(job.trajectory)
    for step in job.full_steps:
        folder.checkpoint(step).mkdir(parents=True, exist_ok=True)
    for step in job.snapshot_steps:
        folder.snapshot(step).mkdir(parents=True, exist_ok=True)
    if job.evaluations:
        attempt = folder.attempt(1 + len(list(folder.attempts.glob("*"))))
        attempt.mkdir(parents=True)
        lines = [json.dumps({"type": "evaluation", "evaluation": w.evaluation}) + "\n" for w in job.evaluations]
        (attempt / "metrics.jsonl").write_text("".join(lines))


class Quiet:
    def __init__(self) -> None:
        self.waited: list[str] = []
        self.why: list[str] = []

    def event(self, event: Event) -> None: ...

    def waiting(self, job: Job, why: str) -> None:
        self.waited.append(job.name)
        self.why.append(why)

    def tick(self, running: Sequence[Job]) -> None: ...


@pytest.fixture
def jobs() -> list[Job]:
    study = resolve(load_source(str(TINY)), "cpu", seeds=[0, 1])
    return open_session([study]).jobs(Inventory())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def schedule(home: Home, jobs: list[Job], fate: Fate, size: int = 3, **options: Any) -> tuple[Scheduler, PretendPool]:
    pool = PretendPool(home, size, fate)
    return Scheduler(home, pool, jobs, Quiet(), **options), pool  # type: ignore[arg-type]


def test_requests_to_end_count_from_when_work_was_asked_for(home: Home, jobs: list[Job]) -> None:
    """By the clock that dates them, the file system's. A later round of the same command does not begin it either."""
    job = jobs[0]
    request(home, job.trajectory, job.kind)
    made = home.trajectory(job.trajectory).cancelled(job.kind)
    os.utime(made, ns=(0, made.stat().st_mtime_ns - 10**6))  # a millisecond before
    asked = moment(home)
    assert schedule(home, [job], lambda job, n: "done")[0].run().complete, "one that is left over concerns nobody"
    assert list(home.root.iterdir()) == [home.trajectories]
    request(home, job.trajectory, job.kind)
    for _round in range(2):
        scheduler, pool = schedule(home, [job], lambda job, n: "done", asked=asked)
        assert [failure.reason for failure in scheduler.run().failures] == [CANCELLED]
        assert pool.given == []


def test_everything_is_done_once_and_after_its_inputs(home: Home, jobs: list[Job]) -> None:
    scheduler, pool = schedule(home, jobs, lambda job, n: "done")
    outcome = scheduler.run()
    assert outcome.complete
    assert (outcome.done, len(pool.given)) == (len(jobs), len(jobs))
    assert all(outputs_there(home, job) for job in jobs)


class Rescanning(Scheduler):
    """Oracle: looks at all jobs, in order, each time that anything may have changed."""

    def _give(self) -> None:
        self.waiting.wake_some()
        super()._give()


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0.0, 0.5))
def test_jobs_are_given_as_if_all_were_looked_at_all_the_time(seed: int, size: int, trouble: float) -> None:
    study = resolve(load_source(str(TINY)), "cpu", seeds=[0, 1])
    jobs = open_session([study]).jobs(Inventory())
    given = []
    for kind in (Scheduler, Rescanning):
        rng = random.Random(seed)

        def fate(job: Job, n: int, rng: random.Random = rng) -> str:
            return rng.choice(["failed", "lost", "preempted"]) if rng.random() < trouble else "done"

        with tempfile.TemporaryDirectory() as folder:
            pool = PretendPool(Home(Path(folder)), size, fate)
            outcome = kind(pool.home, pool, jobs, Quiet()).run()  # type: ignore[arg-type]
            given.append((pool.given, outcome.done, [f.job for f in outcome.failures], outcome.blocked))
    assert given[0] == given[1]


def test_looks_are_proportional_to_jobs(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many branch on one trajectory, and although workers are idle at times."""
    looks: Counter[int] = Counter()

    def counted(*args: Any) -> Any:
        looks[n] += 1
        return missing_input(*args)

    monkeypatch.setattr(module, "missing_input", counted)
    for n in (20, 40):
        arms = f"panels={{left: {{title: x, arms: {{v_epochs: {list(range(1, n + 1))}, u_epochs: 2}}}}}}"
        study = resolve(load_source(str(TINY)), "cpu", [arms, "controls={}", "claims=[]"])
        jobs = open_session([study]).jobs(Inventory())
        scheduler, _ = schedule(Home(home.root / str(n)), jobs, lambda job, n: "done", size=1)
        assert scheduler.run().complete
        assert looks[n] <= 3 * len(jobs)


def test_what_another_command_publishes_is_noticed_while_a_worker_is_idle(home: Home, jobs: list[Job]) -> None:
    """Its maker failed here, and another job runs on."""
    root = next(
        job
        for job in jobs
        if job.kind == "train" and any(j.parent and j.parent.trajectory == job.trajectory for j in jobs)
    )
    child = next(job for job in jobs if job.parent and missing_input(home, job) in set(makes(root)))
    other = next(job for job in jobs if job.seed != root.seed)
    scheduler, pool = schedule(
        home,
        [root, other, child],
        lambda job, n: "failed" if job == root else "preempted" if child not in pool.given else "done",
    )
    ticks = count()

    def tick(running: Sequence[Job]) -> None:
        if next(ticks) == 3:
            make(home, root)

    scheduler.watcher.tick = tick  # type: ignore[method-assign]
    outcome = scheduler.run()
    assert [failure.job for failure in outcome.failures] == [root]
    assert child in pool.given and not outcome.blocked


def test_losses_count_only_without_progress(home: Home, jobs: list[Job]) -> None:
    long = next(job for job in jobs if job.kind == "train" and job.steps >= 40)

    def fate(job: Job, n: int) -> str:
        if job != long or n > 3 * MAX_LOST:
            return "done"
        home.trajectory(job.trajectory).checkpoint(job.start_step + n).mkdir(parents=True)
        return "lost"

    scheduler, pool = schedule(home, jobs, fate)
    assert scheduler.run().complete
    assert pool.given.count(long) == 3 * MAX_LOST + 1


def test_a_failure_blocks_only_what_needs_it(home: Home, jobs: list[Job]) -> None:
    root = next(job for job in jobs if job.kind == "train" and job.dynamics.fm_ratio == 1.0)
    scheduler, pool = schedule(home, jobs, lambda job, n: "failed" if job == root else "done")
    outcome = scheduler.run()
    assert [failure.job for failure in outcome.failures] == [root]
    assert outcome.blocked
    needs = {root.trajectory} | {
        job.trajectory for job in jobs if job.parent and job.parent.trajectory == root.trajectory
    }
    assert {job.trajectory for job in outcome.blocked} <= needs
    assert all(job.seed == root.seed for job in outcome.blocked)
    assert outcome.done + len(outcome.blocked) + 1 == len(jobs)
    assert Counter(job.name for job in pool.given).most_common(1)[0][1] == 1, "a failure is not repeated"


def test_a_job_that_is_lost_is_given_a_bounded_number_of_times(home: Home, jobs: list[Job]) -> None:
    unlucky, doomed = jobs[0], jobs[1]

    def fate(job: Job, n: int) -> str:
        return "lost" if job == doomed or (job == unlucky and n < MAX_LOST) else "done"

    scheduler, pool = schedule(home, jobs, fate)
    outcome = scheduler.run()
    assert pool.given.count(unlucky) == pool.given.count(doomed) == MAX_LOST
    (failure,) = outcome.failures
    assert failure.job == doomed
    assert f"{MAX_LOST} times" in failure.reason


def test_preempted_and_busy_jobs_are_given_again(home: Home, jobs: list[Job]) -> None:
    fate: Fate = lambda job, n: {1: "preempted", 2: "busy"}.get(n, "done")  # noqa: E731
    scheduler, pool = schedule(home, jobs, fate, clock=count().__next__)
    assert scheduler.run().complete
    assert all(pool.given.count(job) == 3 for job in jobs)


def test_what_another_command_has_made_is_not_made_again(home: Home, jobs: list[Job]) -> None:
    for job in jobs:
        if job.seed == 0:
            make(home, job)
    scheduler, pool = schedule(home, jobs, lambda job, n: "done")
    assert scheduler.run().complete
    assert {job.seed for job in pool.given} == {1}


def test_a_trajectory_that_another_command_works_on_is_left_to_it(home: Home, jobs: list[Job]) -> None:
    theirs = jobs[0]
    lease = acquire(home.trajectory(theirs.trajectory).lease("train"))
    assert lease is not None
    looks = []

    def fate(job: Job, n: int) -> str:
        looks.append(job)
        if len(looks) == 6:  # the other command finishes it
            make(home, theirs)
            lease.release()
        return "done"

    scheduler, pool = schedule(home, jobs, fate, size=1)
    assert scheduler.run().complete
    assert theirs not in pool.given
    assert scheduler.watcher.waited == [theirs.name], "said once"  # type: ignore[attr-defined]
    (why,) = scheduler.watcher.why  # type: ignore[attr-defined]
    assert why.startswith(f"is being done by process {os.getpid()} on ") and ", since 20" in why


def test_stop_saves_what_runs_and_blames_nobody(home: Home, jobs: list[Job]) -> None:
    def fate(job: Job, n: int) -> str:
        scheduler.stop()
        return "done"

    scheduler, _ = schedule(home, jobs, fate, size=1)
    outcome = scheduler.run()
    assert (outcome.interrupted, outcome.done) == (True, 1)
    assert outcome.failures == outcome.blocked == []
    assert not outcome.complete


def test_inputs_and_outputs_are_looked_for_in_the_right_places(home: Home, jobs: list[Job]) -> None:
    child = next(job for job in jobs if job.parent and job.start_step == job.parent.step)
    assert not inputs_ready(home, child)
    assert child.parent
    home.trajectory(child.parent.trajectory).checkpoint(child.parent.step).mkdir(parents=True)
    assert inputs_ready(home, child)
    measured = next(job for job in jobs if job.kind == "evaluate")
    for wanted in measured.evaluations:
        assert not inputs_ready(home, measured)
        home.trajectory(measured.trajectory).snapshot(wanted.step).mkdir(parents=True)
    assert inputs_ready(home, measured)
    assert not outputs_there(home, measured)
    make(home, measured)
    assert outputs_there(home, measured)
    (path,) = home.trajectory(measured.trajectory).attempts.glob("*/metrics.jsonl")
    path.write_bytes(path.read_bytes()[:-1])
    assert not outputs_there(home, measured), "a line that is cut off does not count"
