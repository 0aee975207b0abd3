"""The real scheduler on a simulated cluster."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.simulate import DAY, HOUR, Nobody, Work, simulate, whole_paper
from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.needs import inputs, makes
from sweeps.plan import Inventory
from sweeps.scheduler import Scheduler
from sweeps.session import open_session
from sweeps.simulation import Cluster, Stint, Troubles, ideal
from tests.homes import TINY

BAD = Troubles(failure_s=5 * DAY, repair_s=2 * HOUR, preemption_s=3 * DAY, away_s=HOUR, startup_s=300.0)


@pytest.fixture(scope="module")
def paper() -> Work:
    return whole_paper([0], 2e14)


def assert_sound(trace: list[Stint], work: Work) -> None:
    """Whatever happened to nodes: inputs come first, nothing is done by two at once, every step is kept once."""
    there = {made: stint.end for stint in trace if stint.how == "done" for made in makes(stint.job)}
    one_at_a_time: dict[object, list[Stint]] = defaultdict(list)
    kept: dict[str, int] = defaultdict(int)
    for stint in trace:
        assert all(there[at] <= stint.start for at, _ in inputs(stint.job))
        one_at_a_time[stint.job.kind, stint.job.trajectory].append(stint)
        one_at_a_time[stint.node].append(stint)
        kept[stint.job.name] += stint.kept if stint.job.kind == "train" else 0
    for stints in one_at_a_time.values():
        ordered = sorted(stints, key=lambda stint: (stint.start, stint.end))
        assert all(a.end <= b.start for a, b in pairwise(ordered))
    assert sorted(s.job.name for s in trace if s.how == "done") == sorted(job.name for job in work.jobs)
    assert all(kept[job.name] == job.steps for job in work.jobs if job.kind == "train")


@pytest.mark.stress
@pytest.mark.parametrize("nodes", [3, 64])
def test_the_whole_paper_finishes_no_sooner_than_it_can(paper: Work, nodes: int) -> None:
    cluster, outcome = simulate(paper, nodes, Troubles())
    assert outcome.complete and outcome.done == len(paper.jobs)
    assert_sound(cluster.trace, paper)
    assert all(stint.how == "done" for stint in cluster.trace)
    least = ideal(paper.jobs, paper.seconds, nodes)
    assert least * (1 - 1e-9) <= cluster.now < 1.2 * least


@pytest.mark.stress
def test_the_whole_paper_finishes_on_nodes_that_fail(paper: Work) -> None:
    cluster, outcome = simulate(paper, 64, BAD)
    assert outcome.complete and outcome.done == len(paper.jobs)
    assert_sound(cluster.trace, paper)
    assert {stint.how for stint in cluster.trace} == {"done", "lost", "preempted"}
    assert cluster.now > ideal(paper.jobs, paper.seconds, 64)
    for stint in cluster.trace:  # no more is lost than what was done since the last checkpoint
        job, each = stint.job, paper.seconds(stint.job) / max(1, stint.job.steps)
        if job.kind == "train" and job.steps:
            lost_s = stint.end - stint.start - BAD.startup_s - stint.kept * each
            assert job.checkpoint_every_steps
            assert lost_s < each * (job.checkpoint_every_steps if stint.how == "lost" else 1) + 1e-3
    again, _ = simulate(paper, 64, BAD)
    assert [vars(stint) for stint in again.trace] == [vars(stint) for stint in cluster.trace]


def test_independent_jobs_fill_the_nodes() -> None:
    """Their makespan is the ideal but for the last jobs, which cannot all end at once."""
    study = resolve(load_source(str(TINY)), "cpu", ["panels={left: {title: x, arms: {v_epochs: [0], u_epochs: 4}}}",
                    "controls={}", "claims=[]"], range(200))  # fmt: skip
    jobs = [job for job in open_session([study]).jobs(Inventory()) if job.kind == "train"]
    assert len(jobs) == 200 and not any(list(inputs(job)) for job in jobs)
    work = Work(jobs, {job.name: 100.0 + job.seed % 7 for job in jobs})
    cluster, outcome = simulate(work, 8, Troubles())
    assert outcome.complete
    assert_sound(cluster.trace, work)
    least = ideal(jobs, work.seconds, 8)
    assert least == sum(work.of.values()) / 8
    assert least <= cluster.now < 1.04 * least


@pytest.mark.stress
def test_a_stopped_cluster_goes_on_where_it_was(paper: Work, tmp_path: Path) -> None:
    class Stops(Nobody):
        def tick(self, running: object) -> None:
            if cluster.now > 30 * HOUR:
                scheduler.stop()

    cluster = Cluster(Home(tmp_path), 64, paper.seconds, BAD)
    scheduler = Scheduler(cluster.home, cluster, paper.jobs, Stops(), cluster.clock)
    outcome = scheduler.run()
    assert outcome.interrupted and 0 < outcome.done < len(paper.jobs)
    done = {stint.job.name for stint in cluster.trace if stint.how == "done"}
    left = [job for job in paper.jobs if job.name not in done]
    assert Scheduler(cluster.home, cluster, left, Nobody(), cluster.clock).run().complete
    assert_sound(cluster.trace, paper)
