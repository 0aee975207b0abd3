"""What is nearest to what a home lacks, and why it is lacked: against changes whose effect is known."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from meanflow_core import registry
from meanflow_core.config import Dynamics, Protocol, key_of, trajectory_key
from results.stored import AttemptRecord, StoredTrajectory
from studies.arms import Trajectory
from studies.loader import load_source, resolve
from sweeps.compare import Difference, differences, older_versions, take_apart
from sweeps.nearest import UNKNOWN_VERSION, Trajectories, nearest_protocol
from sweeps.plan import Inventory
from sweeps.session import Session, open_session
from sweeps.standing import works
from sweeps.why import ArmWhy, Holding, explain, trained_to
from tests.homes import TINY

SOURCE = load_source(str(TINY))


def session(*overrides: str, seeds: list[int] | None = None) -> Session:
    return open_session([resolve(SOURCE, "cpu", overrides, seeds)])


def as_stored(trajectory: Trajectory) -> StoredTrajectory:
    parent = trajectory.parent or (None, None)
    dynamics = trajectory.dynamics.dump()
    return StoredTrajectory(trajectory.key, *parent, trajectory.seed, trajectory.horizon_steps, dynamics)


HAS = session()
STORED = [as_stored(node.trajectory) for node in HAS.tree]
DYNAMICS = Dynamics.model_validate(
    {
        "network": {"name": "mlp", "width": 16},
        "data": "digits",
        "optimiser": {"name": "adam", "lr": 0.002},
        "transforms": ["dtd", {"name": "gap_restriction", "lo": 0.1, "hi": 0.3}],
    }
)


def told(changed: Dynamics, there: Dynamics = DYNAMICS) -> list[str]:
    return [one.in_words() for one in differences(take_apart(there.dump()), take_apart(changed.dump()))]


def changed(**fields: Any) -> Dynamics:
    return Dynamics.model_validate(DYNAMICS.dump() | fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, []),
        ({"fm_ratio": 0.5}, ["fm_ratio 0.75 → 0.5"]),
        ({"optimiser": {"name": "adam", "lr": 0.001, "warmup_steps": 5}},
         ["optimiser.lr 0.002 → 0.001", "optimiser.warmup_steps 0 → 5"]),
        ({"data": {"name": "gmm"}}, ["data digits → gmm"]),
        ({"transforms": ["dtd"]}, ["transforms.gap_restriction present → absent"]),
        ({"transforms": []}, ["transforms.dtd present → absent", "transforms.gap_restriction present → absent"]),
        ({"transforms": [{"name": "gap_restriction", "lo": 0.1, "hi": 0.3}, "dtd"]},
         ['order of transforms ["dtd", "gap_restriction"] → ["gap_restriction", "dtd"]']),
        ({"transforms": ["dtd", {"name": "gap_restriction", "lo": 0.1, "hi": 0.4}]},
         ["transforms.gap_restriction.hi 0.3 → 0.4"]),
        ({"reset": ["ema"]}, ['reset absent → ["ema"]']),
    ],
    ids=str,
)  # fmt: skip
def test_the_parts_that_differ_are_named(fields: dict[str, Any], says: list[str]) -> None:
    assert told(changed(**fields)) == says
    assert bool(says) == (changed(**fields).canonical() != DYNAMICS.canonical())


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (("optimiser", 1), "optimiser adam version"),
        (("transforms", 0, 1), "transforms.dtd version"),
        (("version",), "key format version"),
    ],
)
def test_a_version_that_was_raised_since_is_found(path: tuple[Any, ...], says: str) -> None:
    """The program of today has raised a version; the key was made before."""
    old = DYNAMICS.canonical()
    today = copy.deepcopy(old)
    part: Any = today
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] += 1
    found = older_versions(today, key_of({"of": old}), lambda canonical: {"of": canonical})
    before = part[path[-1]] - 1
    assert found == [Difference(says, before, before + 1)]
    assert older_versions(today, key_of({"of": today}), lambda canonical: {"of": canonical}) == []
    assert older_versions(today, "0" * 20, lambda canonical: {"of": canonical}) is None


def wanted(has: Session, panel: str, name: str, seed: int = 0) -> list[Trajectory]:
    (arm,) = [arm for arm in has.arms if (arm.panel, arm.name, arm.seed) == (panel, name, seed)]
    return list({stage.trajectory.key: stage.trajectory for stage in arm.stages}.values())


def test_the_nearest_differs_in_the_fewest_parts() -> None:
    new = session("dynamics.optimiser.lr=0.001", "dynamics.ema_decay=0.8")
    root, child = wanted(new, "left", "v2")
    there = Trajectories(STORED)
    found = there.nearest(root, {})
    assert found is not None
    assert {one.part for one in found.differences} == {"optimiser.lr", "ema_decay"}
    (of_root, of_child) = wanted(HAS, "left", "v2")
    assert found.key == of_root.key
    found = there.nearest(child, {root.key: found.key})
    assert found is not None and found.key == of_child.key, "the one whose parent is nearest to its parent"
    assert {one.part for one in found.differences} == {"parent checkpoint", "ema_decay", "optimiser.lr"}
    assert Trajectories([]).nearest(root, {}) is None


def test_another_seed_and_another_branch_point() -> None:
    there = Trajectories(STORED)
    found = there.nearest(wanted(session(seeds=[5]), "left", "v2", 5)[0], {})
    assert found is not None and list(found.differences) == [Difference("seed", 0, 5)]
    longer = session("panels.left.arms={v_epochs: [3], u_epochs: 4}", "claims=[]", "panels.right.arms.v_epochs=[0,2,4]")
    root, child = wanted(longer, "left", "v3")
    assert root.key in {one.trajectory for one in STORED}
    found = there.nearest(child, {})
    assert found is not None
    (difference,) = found.differences
    assert difference.part == "parent checkpoint"
    assert difference.wanted == f"{root.key[:8]} at step 30"


def test_the_horizon_is_a_part_only_where_the_key_holds_it() -> None:
    dynamics = changed(transforms=[{"name": "progressive_weight"}])
    assert dynamics.uses_horizon

    def of(steps: int) -> Trajectory:
        return Trajectory(trajectory_key(None, dynamics, 0, steps), dynamics, 0, None, steps)

    found = Trajectories([as_stored(of(80))]).nearest(of(100), {})
    assert found is not None and list(found.differences) == [Difference("horizon T (steps)", 80, 100)]
    found = Trajectories(STORED).nearest(of(100), {})
    assert found is not None and "horizon T (steps)" not in {one.part for one in found.differences}


def test_a_key_that_this_program_does_not_make_any_more() -> None:
    """The same record under another key: a version or a default was changed since."""
    root = wanted(HAS, "left", "v2")[0]
    old = StoredTrajectory("f" * 20, None, None, 0, None, root.dynamics.dump())
    found = Trajectories([old]).nearest(root, {})
    assert found is not None and list(found.differences) == [UNKNOWN_VERSION]
    unreadable = StoredTrajectory("e" * 20, None, None, 0, None, root.dynamics.dump() | {"network": {"name": "gone"}})
    found = Trajectories([unreadable]).nearest(root, {})
    assert found is not None
    assert [one.part for one in found.differences] == ["network", "this program"]


def test_a_component_whose_version_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    adam = registry.lookup("optimiser", "adam")
    monkeypatch.setitem(registry._REGISTRY, ("optimiser", "adam"), replace(adam, version=adam.version + 1))
    root, child = wanted(session(), "left", "v2")
    raised = Difference("optimiser adam version", adam.version, adam.version + 1)
    there = Trajectories(STORED)
    found = there.nearest(root, {})
    assert found is not None and list(found.differences) == [raised]
    found = there.nearest(child, {root.key: found.key})
    assert found is not None
    assert [one.part for one in found.differences] == ["parent checkpoint", raised.part]


def test_the_nearest_protocol_is_of_the_same_metric() -> None:
    (point, *_) = HAS.arms[0].points
    protocol = point.protocol

    def other(**fields: Any) -> Protocol:
        return Protocol.model_validate(protocol.dump() | fields)

    there = {one.key: {**one.dump(), "label": "x"} for one in (other(samples=200), other(samples=200, seed=4))}
    found = nearest_protocol(protocol, there)
    assert found is not None and list(found.differences) == [Difference("samples", 200, 100)]
    kid = other(metric={"name": "kid", "features": "pixel"})
    assert nearest_protocol(kid, there) is None
    assert nearest_protocol(protocol, {}) is None


# ------------------------------------------------------------------------------------------------ explanations


def why(
    has: Session,
    have: Inventory,
    stored: list[StoredTrajectory],
    attempts: list[AttemptRecord] | None = None,
    measured: dict[tuple[str, int], set[str]] | None = None,
) -> dict[tuple[str, str], ArmWhy]:
    protocols = {p.protocol.key: {**p.protocol.dump(), "label": "x"} for arm in HAS.arms for p in arm.points}
    holding = Holding(Trajectories(stored), trained_to(attempts or []), measured or {}, protocols)
    found = works(has, has.arms, have, attempts or [], lambda one: None)
    return {(one.arm.panel, one.arm.name): one for one in explain(has.arms, found, have, holding)}


def everything() -> Inventory:
    full = {node.key: set(node.full_steps) for node in HAS.tree}
    snapshots = {node.key: node.snapshot_steps() - node.full_steps for node in HAS.tree}
    return Inventory(full, snapshots, {key for node in HAS.tree for at in node.points.values() for key in at})


def test_what_is_there_would_not_be_run_again() -> None:
    assert all(one.complete for one in why(HAS, everything(), STORED).values())


def test_a_checkpoint_that_is_not_kept() -> None:
    root, _ = wanted(HAS, "left", "v2")
    have = everything()
    have.full[root.key].discard(20)
    trained = AttemptRecord(root.key, 1, "train", "done", None, 0, 40, None, None, None)
    found = why(HAS, have, STORED, [trained])["left", "v2"]
    assert not found.complete
    (of_root, of_child) = found.trajectories
    assert (of_root.trajectory, of_root.state, of_child.state) == (root.key, "partly", "there")
    (left,) = of_root.left
    assert (left.start_step, left.stop_step) == (0, 20)
    assert "trained to step 40 before, but the checkpoint at step 20 is not kept" in left.why
    assert of_root.nearest is None
    assert why(HAS, have, STORED, [trained])["left", "v0"].complete


def test_a_trajectory_that_ends_too_early() -> None:
    (root,) = wanted(HAS, "right", "v0")
    have = everything()
    have.full[root.key].discard(80)
    found = why(HAS, have, STORED)
    (left,) = found["right", "v0"].trajectories[0].left
    assert (left.start_step, left.stop_step, left.why) == (40, 80, "never trained past step 60")
    assert found["left", "v0"].complete, "its part of the same trajectory is there"


def test_an_attempt_that_failed_is_named() -> None:
    root, _ = wanted(HAS, "left", "v2")
    failed = AttemptRecord(root.key, 2, "train", "failed", "Diverged: at step 7", 0, 7, None, None, None)
    found = why(HAS, Inventory(), STORED, [failed])["left", "v2"].trajectories[0]
    assert (found.state, found.nearest) == ("missing", None), "it was begun: no other is nearer"
    assert found.tried == "attempt 2 ended: user error: Diverged: at step 7"


def test_evaluations_that_are_missing() -> None:
    new = session("measure.0.samples=200")
    have = everything()
    measured = {(p.checkpoint.trajectory, p.checkpoint.step): {p.protocol.key} for arm in HAS.arms for p in arm.points}
    found = why(new, have, STORED, measured=measured)["left", "v0"]
    (group,) = found.evaluations
    assert group.steps == (0, 20, 40)
    assert group.nearest is not None and list(group.nearest.differences) == [Difference("samples", 100, 200)]
    (group,) = why(new, have, STORED)["left", "v0"].evaluations
    assert (group.nearest, group.why) == (None, "its weights are there, but were never measured so")
    (group,) = why(new, Inventory(), STORED)["left", "v0"].evaluations
    assert group.why == "its weights are not there"
