"""The same arms for another seed, without making anew what does not depend on it. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from meanflow_core.config import Checkpoint, EvaluationKeys, TrajectoryKeys, evaluation_keys, trajectory_keys

if TYPE_CHECKING:
    from studies.arms import Arm, Point, Trajectory


class Reseed:
    """Arms for another seed, which differ in their keys alone. What is hashed is brought in form only once."""

    def __init__(self) -> None:
        self._trajectory_keys: dict[int, TrajectoryKeys] = {}  # by id of the dynamics, which the arms keep
        self._evaluation_keys: dict[tuple[int, int], EvaluationKeys] = {}  # by ids of the protocol and of the trainer

    def __call__(self, arms: Sequence[Arm], seed: int) -> Iterator[Arm]:
        moved: dict[str, Trajectory] = {}
        for arm in arms:
            for stage in arm.stages:
                if stage.trajectory.key not in moved:
                    moved[stage.trajectory.key] = self._moved(stage.trajectory, moved, seed)
            stages = tuple(replace(stage, trajectory=moved[stage.trajectory.key]) for stage in arm.stages)
            yield replace(arm, seed=seed, stages=stages, points=tuple(self._point(p, moved) for p in arm.points))

    def _moved(self, old: Trajectory, moved: Mapping[str, Trajectory], seed: int) -> Trajectory:
        if id(old.dynamics) not in self._trajectory_keys:
            self._trajectory_keys[id(old.dynamics)] = trajectory_keys(old.dynamics)
        keys = self._trajectory_keys[id(old.dynamics)]
        parent = old.parent and Checkpoint(moved[old.parent.trajectory].key, old.parent.step)
        return replace(old, key=keys(parent, seed, old.horizon_steps), seed=seed, parent=parent)

    def _point(self, old: Point, moved: Mapping[str, Trajectory]) -> Point:
        trajectory = moved[old.checkpoint.trajectory]
        at, trainer = Checkpoint(trajectory.key, old.checkpoint.step), trajectory.dynamics.trainer
        named = id(old.protocol), id(trainer)
        if named not in self._evaluation_keys:
            self._evaluation_keys[named] = evaluation_keys(old.protocol, trainer)
        return replace(old, checkpoint=at, evaluation=self._evaluation_keys[named](at))
