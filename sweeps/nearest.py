"""The trajectory or protocol of a home that is nearest to one that it lacks, and where their keys differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from meanflow_core.config import Checkpoint, Dynamics, Protocol, trajectory_key
from meanflow_core.registry import ComponentError
from results.stored import StoredTrajectory
from studies.arms import Trajectory
from sweeps.compare import Difference, differences, keyed, older_versions, take_apart

UNKNOWN_VERSION = Difference("the version or a default of a component", "an older one", "today's")


@dataclass(frozen=True)
class Nearest:
    """What is there (its key), and what of it would have to be otherwise."""

    key: str
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key, "differences": [one.to_json() for one in self.differences]}


class Trajectories:
    """The trajectories that a home holds, to be compared with. Few dynamics are shared by many of them."""

    def __init__(self, stored: Iterable[StoredTrajectory]) -> None:
        self.stored = list(stored)
        self._parts: dict[str, dict[str, Any]] = {}
        self._of = {one.trajectory: json.dumps(one.dynamics, sort_keys=True) for one in self.stored}
        for one in self.stored:
            text = self._of[one.trajectory]
            if text not in self._parts:
                self._parts[text] = take_apart(_today(one.dynamics))

    def nearest(self, wanted: Trajectory, parents: Mapping[str, str]) -> Nearest | None:
        """That which differs in the fewest parts; of several, one from the trajectory that is nearest to the parent
        (``parents``), then of the same seed; None where a home holds none."""
        mine = take_apart(keyed(wanted.dynamics))
        told = {text: differences(parts, mine) for text, parts in self._parts.items()}
        likely = None if wanted.parent is None else parents.get(wanted.parent.trajectory)

        def rank(one: StoredTrajectory) -> tuple[int, bool, bool, str]:
            n = len(told[self._of[one.trajectory]]) + len(_besides(one, wanted))
            return n, one.parent_trajectory != likely, one.seed != wanted.seed, one.trajectory

        if not self.stored:
            return None
        best = min(self.stored, key=rank)
        found = [*_besides(best, wanted), *told[self._of[best.trajectory]], *_versions(best)]
        return Nearest(best.trajectory, tuple(found))


def _today(dynamics: dict[str, Any]) -> dict[str, Any]:
    """Stored dynamics with what has become an option since; as they are where this program cannot read them."""
    try:
        return keyed(Dynamics.model_validate(dynamics))
    except (ValidationError, ComponentError):
        return dynamics


def _besides(one: StoredTrajectory, wanted: Trajectory) -> list[Difference]:
    """The parts of the key besides the dynamics."""
    parent = None if one.parent is None else Checkpoint(*one.parent)
    found = []
    if parent != wanted.parent:
        found.append(Difference("parent checkpoint", _at(parent), _at(wanted.parent)))
    if one.seed != wanted.seed:
        found.append(Difference("seed", one.seed, wanted.seed))
    if one.horizon_steps != wanted.horizon_steps and None not in (one.horizon_steps, wanted.horizon_steps):
        found.append(Difference("horizon T (steps)", one.horizon_steps, wanted.horizon_steps))
    return found


def _at(checkpoint: Checkpoint | None) -> str:
    return f"{checkpoint.trajectory[:8]} at step {checkpoint.step}" if checkpoint else "none"


def _versions(one: StoredTrajectory) -> list[Difference]:
    """What has been raised since a trajectory was begun, where its key is not what the program makes of it today."""
    try:
        dynamics = Dynamics.model_validate(one.dynamics)
    except (ValidationError, ComponentError) as error:
        return [Difference("this program", f"cannot read it ({str(error).splitlines()[0]})", "reads its own")]
    parent = None if one.parent is None else Checkpoint(*one.parent)
    if (one.horizon_steps is not None or not dynamics.uses_horizon) and one.trajectory == trajectory_key(
        parent, dynamics, one.seed, one.horizon_steps
    ):
        return []

    def finish(canonical: Mapping[str, Any]) -> dict[str, Any]:
        material = {"parent": list(parent) if parent else None, "dynamics": canonical, "seed": one.seed}
        return material if one.horizon_steps is None else {**material, "horizon_steps": one.horizon_steps}

    found = older_versions(dynamics.canonical(), one.trajectory, finish)
    return [UNKNOWN_VERSION] if found is None else found


def nearest_protocol(wanted: Protocol, there: Mapping[str, Mapping[str, Any]]) -> Nearest | None:
    """Of some protocols (by key, resolved), that of the same metric which differs in the fewest parts."""
    mine = take_apart(wanted.dump())
    told = {}
    for key, definition in sorted(there.items()):
        if definition["metric"]["name"] == wanted.metric.name:
            record = {name: value for name, value in definition.items() if name in Protocol.model_fields}
            told[key] = [*differences(take_apart(record), mine), *_protocol_versions(key, record)]
    if not told:
        return None
    key = min(told, key=lambda one: len(told[one]))
    return Nearest(key, tuple(told[key]))


def _protocol_versions(key: str, record: dict[str, Any]) -> list[Difference]:
    try:
        protocol = Protocol.model_validate(record)
    except (ValidationError, ComponentError):
        return []
    if protocol.key == key:
        return []
    found = older_versions(protocol.canonical(), key, lambda canonical: canonical)
    return [UNKNOWN_VERSION] if found is None else found
