"""What gc may delete: pure functions, held to what every recorded run still needs, whatever is lost or left over."""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.loader import load_source, resolve
from studies.schema import ResolvedStudy
from sweeps.garbage import Choice, Weights, garbage
from sweeps.plan import Inventory
from sweeps.session import Session, open_session
from sweeps.tree import merge_trees
from sweeps.wanted import Wants
from tests.homes import TINY
from tests.sweeps.test_plan import complete, finish

EVERYTHING = Choice(unwanted=True, superseded=True, snapshots=True, ends=True)


def tiny(*overrides: str) -> ResolvedStudy:
    return resolve(load_source(str(TINY)), "cpu", overrides)


# Runs of different studies and of one study in different versions, which share trajectories.
RUNS = [
    open_session([one])
    for one in (
        resolve(load_source("obs_v_then_u"), "smoke"),
        resolve(load_source("obs_task_affinity"), "smoke"),
        tiny(),
        tiny("measure.0.every_epochs=1"),
        tiny("panels.left.arms.v_epochs=[1,3]", "panels.right.arms={v_epochs: [1, 5], u_epochs: [7, 3]}"),
        tiny("measure.0.every_epochs=3", "measure.0.samples=90"),
    )
]


def wants(current: Sequence[Session], past: Sequence[Session] = ()) -> Wants:
    tree = merge_trees(run.tree for run in current)
    return Wants(tree, merge_trees(run.tree for run in [*past, *current]), frozenset(), frozenset())


def finished(runs: Sequence[Session]) -> Inventory:
    have = Inventory()
    for run in runs:
        for job in run.jobs(have):
            finish(have, job)
    return have


def without(have: Inventory, deleted: Sequence[Weights]) -> Inventory:
    """What is left when it is deleted, each of which must have been there."""
    left = deepcopy(have)
    for one in deleted:
        table = left.full if one.part == "checkpoints" else left.snapshots
        table[one.trajectory].remove(one.step)
        if one.part == "checkpoints":
            left.released.setdefault(one.trajectory, set()).add(one.step)
    return left


def damage(have: Inventory, rng: random.Random, share: float) -> None:
    """Lose a random part, add rolling checkpoints that killed attempts would leave, and let some go on purpose."""
    for table in (have.full, have.snapshots):
        for key in table:
            table[key] = {step for step in table[key] if rng.random() < share}
    have.evaluated = {key for key in have.evaluated if rng.random() < share}
    for key, steps in have.full.items():
        steps |= {rng.randrange(1, 170) for _ in range(rng.randrange(3))}
        have.released[key] = {step for step in range(0, 170, 10) if rng.random() < 0.2}


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.3, 0.8, 0.95, 1.0]),
    counts=st.lists(st.booleans(), min_size=len(RUNS), max_size=len(RUNS)),
    choice=st.builds(Choice, st.booleans(), st.just(True), st.booleans(), st.booleans()),
)
def test_what_a_recorded_run_needs_for_its_missing_jobs_is_no_garbage(
    seed: int, share: float, counts: list[bool], choice: Choice
) -> None:
    """The missing jobs of every run that counts are the same before and after; done, they complete it; and a second gc
    finds nothing more."""
    rng = random.Random(seed)
    have = finished(RUNS)
    damage(have, rng, share)
    current = [run for run, counted in zip(RUNS, counts, strict=True) if counted]
    found = wants(current, RUNS if choice.unwanted else ())
    left = without(have, garbage(found, have, choice))
    assert garbage(found, left, choice) == []
    for run in current:
        jobs = run.jobs(left)
        assert jobs == run.jobs(have)
        after = deepcopy(left)
        for job in jobs:
            finish(after, job)
        assert run.jobs(after) == []
        assert {key for node in run.tree for at in node.points.values() for key in at} <= after.evaluated


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 0.9]))
def test_what_was_let_go_is_trained_again_where_a_new_run_needs_it(seed: int, share: float) -> None:
    rng = random.Random(seed)
    old, new = rng.sample(RUNS[2:], 2)
    have = finished([old])
    damage(have, rng, 1.0)
    have.evaluated = {key for key in have.evaluated if rng.random() >= share * 0.2}
    left = without(have, garbage(wants([old]), have, EVERYTHING))
    for run in (new, old):
        for job in run.jobs(left):
            finish(left, job)
        assert run.jobs(left) == []
        assert {key for node in run.tree for at in node.points.values() for key in at} <= left.evaluated


def test_each_kind() -> None:
    run = RUNS[2]
    have = finished([run])
    full, snapshots = deepcopy(have.full), deepcopy(have.snapshots)
    joint = next(node.key for node in run.tree if node.stop_step == 80 and not node.trajectory.parent
                 and node.trajectory.dynamics.fm_ratio == 0.75)  # fmt: skip
    have.full[joint].add(30)
    have.snapshots[joint].add(50)
    have.full["f" * 20], have.snapshots["f" * 20] = {10}, {5}
    found = wants([run])
    rolling = Weights(joint, "checkpoints", 30, "rolling")
    assert garbage(found, have, Choice()) == [rolling]
    unwanted = {("checkpoints", 10), ("snapshots", 5), ("snapshots", 50)}
    more = garbage(found, have, Choice(unwanted=True))
    assert {(one.part, one.step) for one in more if one.kind == "unwanted"} == unwanted
    assert rolling in more and len(more) == 4
    pairs = {(key, step) for key, steps in snapshots.items() for step in steps}
    assert {(w.trajectory, w.step) for w in garbage(found, have, Choice(snapshots=True)) if w != rolling} == pairs
    pairs = {(key, step) for key, steps in full.items() for step in steps}
    assert {(w.trajectory, w.step) for w in garbage(found, have, Choice(ends=True)) if w != rolling} == pairs


def test_one_missing_measurement_keeps_its_trajectory_and_where_it_begins() -> None:
    run = RUNS[2]
    have = finished([run])
    child = next(node for node in run.tree if node.trajectory.parent)
    lost = next(key for key in child.points[child.stop_step])
    have.evaluated.remove(lost)
    kept = {one.trajectory for one in garbage(wants([run]), have, EVERYTHING)}
    assert child.key not in kept
    have.full[child.key].clear()  # now it must be trained again, from its parent
    assert child.trajectory.parent is not None
    parent = child.trajectory.parent
    gone = {(one.trajectory, one.step) for one in garbage(wants([run]), have, EVERYTHING) if one.part == "checkpoints"}
    assert tuple(parent) not in gone
    assert any(key == parent.trajectory for key, _ in gone), "its other branch points may go"


def test_a_rolling_checkpoint_from_which_training_would_resume_stays() -> None:
    run = RUNS[2]
    have = Inventory()
    first = run.jobs(have)[0]
    have.full[first.trajectory] = {3, 7}
    assert [one.step for one in garbage(wants([run]), have, EVERYTHING)] == [3]
    assert any((job.trajectory, job.start_step) == (first.trajectory, 7) for job in run.jobs(have))


def test_a_rolling_checkpoint_where_something_is_measured_is_no_snapshot() -> None:
    run = RUNS[2]
    have = finished([run])
    node = next(node for node in run.tree if len(node.points) > 3)
    step = sorted(node.snapshot_steps() - node.full_steps)[1]
    have.full[node.key].add(step)
    assert garbage(wants([run]), have, Choice()) == [Weights(node.key, "checkpoints", step, "rolling")]


def test_a_full_checkpoint_that_stands_for_a_snapshot_stays_until_it_is_measured() -> None:
    """Of a branch point that no run wants any more, the EMA weights may still be wanted."""
    run = RUNS[3]
    have = finished([run])
    node = next(node for node in run.tree if len(node.points) > 3)
    step = sorted(node.snapshot_steps() - node.full_steps)[1]
    have.snapshots[node.key].remove(step)
    have.full[node.key].add(step)
    have.evaluated -= set(node.points[step])
    assert garbage(wants([run]), have, EVERYTHING) == [
        one for one in garbage(wants([run]), have, EVERYTHING) if one.trajectory != node.key
    ]
    assert all(job.kind == "evaluate" for job in run.jobs(have))


def test_what_only_superseded_runs_want() -> None:
    old, new = RUNS[4], RUNS[2]
    have = finished([old, new])
    both = garbage(wants([old, new]), have, Choice(unwanted=True))
    assert both == []
    assert garbage(wants([new], [old]), have, Choice()) == [], "never without being asked, nor called rolling"
    found = garbage(wants([new], [old]), have, Choice(unwanted=True))
    assert {one.kind for one in found} == {"unwanted"}
    assert {one.trajectory for one in found} >= old.tree.nodes.keys() - new.tree.nodes.keys()
    left = without(have, found)
    assert complete(new, left)
    assert old.jobs(left) == [], "what was measured remains measured, and nothing of it is trained again"


@pytest.mark.parametrize("opaque", [True, False])
def test_trajectories_of_runs_that_cannot_be_read_are_kept_whole(opaque: bool) -> None:
    run = RUNS[2]
    have = finished([run])
    found = Wants(merge_trees([]), merge_trees([]), frozenset(run.tree.nodes if opaque else ()), frozenset())
    assert bool(garbage(found, have, EVERYTHING)) != opaque
