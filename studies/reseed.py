"""The same arms for another seed, without making anew what does not depend on it. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from meanflow_core.config import Checkpoint, EvaluationKeys, TrajectoryKeys, evaluation_keys, trajectory_keys

if TYPE_CHECKING:
    from studies.arms import Arm, Point, Trajectory

K = TypeVar("K")
V = TypeVar("V")


def _once(made: dict[int, V], given: K, make: Callable[[K], V]) -> V:
    if id(given) not in made:
        made[id(given)] = make(given)
    return made[id(given)]


class Reseed:
    """Arms for another seed, which differ in their keys alone. What is hashed is brought in form only once."""

    def __init__(self) -> None:
        self._trajectory_keys: dict[int, TrajectoryKeys] = {}  # by id of the dynamics, which the arms keep
        self._evaluation_keys: dict[int, EvaluationKeys] = {}  # by id of the protocol

    def __call__(self, arms: Sequence[Arm], seed: int) -> Iterator[Arm]:
        moved: dict[str, Trajectory] = {}
        for arm in arms:
            for stage in arm.stages:
                if stage.trajectory.key not in moved:
                    moved[stage.trajectory.key] = self._moved(stage.trajectory, moved, seed)
            stages = tuple(replace(stage, trajectory=moved[stage.trajectory.key]) for stage in arm.stages)
            yield replace(arm, seed=seed, stages=stages, points=tuple(self._point(p, moved) for p in arm.points))

    def _moved(self, old: Trajectory, moved: Mapping[str, Trajectory], seed: int) -> Trajectory:
        keys = _once(self._trajectory_keys, old.dynamics, trajectory_keys)
        parent = old.parent and Checkpoint(moved[old.parent.trajectory].key, old.parent.step)
        return replace(old, key=keys(parent, seed, old.horizon_steps), seed=seed, parent=parent)

    def _point(self, old: Point, moved: Mapping[str, Trajectory]) -> Point:
        keys = _once(self._evaluation_keys, old.protocol, evaluation_keys)
        at = Checkpoint(moved[old.checkpoint.trajectory].key, old.checkpoint.step)
        return replace(old, checkpoint=at, evaluation=keys(at))
