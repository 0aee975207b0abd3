"""What is missing, from what is there: pure functions, checked against simulating the jobs."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from studies.loader import load_source, resolve
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.session import Session, open_session

SESSION = open_session([resolve(load_source("obs_v_then_u"), "smoke")])
WANTED = {key for node in SESSION.tree for at in node.points.values() for key in at}


def finish(have: Inventory, job: Job) -> None:
    """What a worker leaves behind when it has done a job; refuses one whose inputs are missing."""
    if job.kind == "train":
        if job.parent and job.start_step == job.parent.step:
            assert job.parent.step in have.full.get(job.parent.trajectory, set()), "parent not there"
        elif job.start_step:
            assert job.start_step in have.full[job.trajectory], "start not there"
        have.full.setdefault(job.trajectory, set()).update(job.full_steps)
        have.snapshots.setdefault(job.trajectory, set()).update(job.snapshot_steps)
    else:
        for wanted in job.evaluations:
            assert wanted.step in have.weights(job.trajectory), "weights not there"
            have.evaluated.add(wanted.evaluation)


def complete(session: Session, have: Inventory) -> bool:
    full = all(node.full_steps <= have.full.get(node.key, set()) for node in session.tree)
    return full and have.evaluated >= WANTED


def test_doing_every_job_in_order_completes_the_tree() -> None:
    have = Inventory()
    for job in SESSION.jobs(have):
        finish(have, job)
    assert complete(SESSION, have)
    assert SESSION.jobs(have) == []


def test_nothing_is_trained_twice() -> None:
    steps: set[tuple[str, int]] = set()
    for job in SESSION.jobs(Inventory()):
        if job.kind == "train":
            mine = {(job.trajectory, i) for i in range(job.start_step, job.stop_step)}
            assert not mine & steps
            steps |= mine
    spe = SESSION.studies[0].steps_per_epoch
    epochs = SESSION.epochs()
    assert len(steps) == spe * (epochs.planned + epochs.control)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_whatever_is_lost_the_rest_of_the_jobs_complete_the_tree(seed: int, share: float) -> None:
    """Start from a finished home, lose a random part of it, and finish again."""
    have = Inventory()
    for job in SESSION.jobs(have):
        finish(have, job)
    rng = random.Random(seed)
    for table in (have.full, have.snapshots):
        for key in table:
            table[key] = {s for s in table[key] if rng.random() < share}
    have.evaluated = {k for k in have.evaluated if rng.random() < share}
    for job in SESSION.jobs(have):
        finish(have, job)
    assert complete(SESSION, have)


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
    for job in SESSION.jobs(Inventory()):
        again = Job.model_validate_json(job.model_dump_json())
        assert again == job
        again.check_key()
