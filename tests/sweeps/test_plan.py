"""What is missing, from what is there: pure functions, checked against simulating the jobs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.loader import load_source, resolve
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.session import Session, open_session

SESSION = open_session([resolve(load_source("obs_v_then_u"), "smoke")])
OBSERVATIONS = ("obs_v_then_u", "obs_v_corruption", "obs_gap_restriction", "obs_task_affinity")
ALL = open_session([resolve(load_source(name), "smoke") for name in OBSERVATIONS])
SESSIONS = pytest.mark.parametrize("session", [SESSION, ALL], ids=["figure 2", "figures 2 to 5"])


def finish(have: Inventory, job: Job) -> None:
    """What a worker leaves behind when it has done a job; refuses one whose inputs are missing."""
    if job.kind == "train":
        if job.parent and job.start_step == job.parent.step:
            assert job.parent.step in have.full.get(job.parent.trajectory, set()), "parent not there"
        elif job.start_step:
            assert job.start_step in have.full[job.trajectory], "start not there"
        have.full.setdefault(job.trajectory, set()).update(job.full_steps)
        have.snapshots.setdefault(job.trajectory, set()).update(job.snapshot_steps)
    for wanted in job.evaluations:
        if job.kind == "train":
            assert wanted.protocol.observed
            at_rest = wanted.step == job.start_step == job.stop_step
            assert job.start_step < wanted.step <= job.stop_step or at_rest, "not passed"
        else:
            assert not wanted.protocol.observed
            assert wanted.step in have.weights(job.trajectory), "weights not there"
        have.evaluated.add(wanted.evaluation)


def complete(session: Session, have: Inventory) -> bool:
    full = all(node.full_steps <= have.full.get(node.key, set()) for node in session.tree)
    return full and have.evaluated >= {key for node in session.tree for at in node.points.values() for key in at}


@SESSIONS
def test_doing_every_job_in_order_completes_the_tree(session: Session) -> None:
    have = Inventory()
    for job in session.jobs(have):
        finish(have, job)
    assert complete(session, have)
    assert session.jobs(have) == []


@pytest.mark.parametrize("scale", ["smoke", "cpu", "paper"])
@pytest.mark.parametrize(
    ("first", "then"),
    [("model_sizes", "convergence"), ("convergence", "samples_over_training"), ("components", "multistep_v")],
)
def test_a_study_of_the_same_arms_trains_nothing_again(first: str, then: str, scale: str) -> None:
    """One seed, as every scale has it; the paper's epochs, since nothing is executed."""
    before, after = (open_session([resolve(load_source(name), scale, seeds=[0])]) for name in (first, then))
    have = Inventory()
    for job in before.jobs(have):
        finish(have, job)
    left = after.jobs(have)
    assert sum(job.steps for job in left if job.kind == "train") == 0
    for job in left:
        finish(have, job)
    assert complete(after, have)


@SESSIONS
def test_nothing_is_trained_twice(session: Session) -> None:
    steps: set[tuple[str, int]] = set()
    for job in session.jobs(Inventory()):
        if job.kind == "train":
            mine = {(job.trajectory, i) for i in range(job.start_step, job.stop_step)}
            assert not mine & steps
            steps |= mine
    spe = session.studies[0].steps_per_epoch
    epochs = session.epochs()
    assert len(steps) == spe * (epochs.planned + epochs.probe + epochs.control)


def test_what_is_observed_keeps_no_weights() -> None:
    for node in ALL.tree:
        for step, at in node.points.items():
            if all(protocol.observed for protocol in at.values()):
                assert step not in node.snapshot_steps()
    assert any(job.evaluations for job in ALL.jobs(Inventory()) if job.kind == "train")


def test_a_trajectory_that_was_trained_unobserved_is_passed_again() -> None:
    """The joint control of Figure 2 is what Figure 5 probes from a random start."""
    have = Inventory()
    for job in SESSION.jobs(have):
        finish(have, job)
    probed = open_session([resolve(load_source("obs_task_affinity"), "smoke")])
    joint = next(node for node in probed.tree if node.points and node.start_step == 0)
    assert 160 in have.full[joint.key]
    again = [job for job in probed.jobs(have) if job.trajectory == joint.key]
    assert [(job.kind, job.start_step, job.stop_step) for job in again] == [("train", 0, 80)]
    assert {w.step for w in again[0].evaluations} == {40, 80}
    for job in probed.jobs(have):
        finish(have, job)
    assert probed.jobs(have) == []


@SESSIONS
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_whatever_is_lost_the_rest_of_the_jobs_complete_the_tree(session: Session, seed: int, share: float) -> None:
    """Start from a finished home, lose a random part of it, and finish again."""
    have = Inventory()
    for job in session.jobs(have):
        finish(have, job)
    rng = random.Random(seed)
    for table in (have.full, have.snapshots):
        for key in table:
            table[key] = {s for s in table[key] if rng.random() < share}
    have.evaluated = {k for k in have.evaluated if rng.random() < share}
    for job in session.jobs(have):
        finish(have, job)
    assert complete(session, have)


def test_a_branch_point_inside_a_finished_segment_is_reached_from_the_nearest_checkpoint() -> None:
    have = Inventory()
    for job in SESSION.jobs(have):
        finish(have, job)
    v = next(node for node in SESSION.tree if node.trajectory.dynamics.fm_ratio == 1.0)
    have.full[v.key].discard(20)
    again = SESSION.jobs(have)
    assert [(j.kind, j.start_step, j.stop_step) for j in again] == [("train", 10, 20)]


def test_seeds_are_done_one_after_another() -> None:
    many = open_session([resolve(load_source("obs_v_then_u"), "smoke", (), [2, 0, 1])])
    order = [job.seed for job in many.jobs(Inventory())]
    assert order == sorted(order)


def test_jobs_survive_their_json() -> None:
    for job in ALL.jobs(Inventory()):
        again = Job.model_validate_json(job.model_dump_json())
        assert again == job
        again.check_key()
