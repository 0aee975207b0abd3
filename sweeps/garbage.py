"""What of a home's weights may be deleted: pure functions of what the recorded runs want and of what is there.

Nothing is ever garbage that a job which is missing starts from or measures, so the missing jobs of every recorded run
are the same before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from sweeps.plan import Inventory, start_of, states_before, steps_to_reach, unmeasured_steps
from sweeps.tree import Node, Tree
from sweeps.wanted import Wants

Part = Literal["checkpoints", "snapshots"]
Kind = Literal["rolling", "unwanted", "snapshot", "end"]


@dataclass(frozen=True)
class Choice:
    """What may go besides what no run ever wanted: what none wants any more, and the snapshots and full states of
    trajectories that are finished and measured, which only a new metric or a new branch would need."""

    unwanted: bool = False
    superseded: bool = False
    snapshots: bool = False
    ends: bool = False


@dataclass(frozen=True, order=True)
class Weights:
    """A full checkpoint or a snapshot that may be deleted, and of which kind of garbage it is."""

    trajectory: str
    part: Part
    step: int
    kind: Kind


def garbage(wants: Wants, have: Inventory, choice: Choice) -> list[Weights]:
    """The weights that may be deleted, by trajectory. ``have`` covers all trajectories of the home."""
    reach = steps_to_reach(wants.tree, have)
    begun = _starts_of_children(wants.tree, reach)
    found: list[Weights] = []
    for key in sorted(have.full.keys() | have.snapshots.keys()):
        if node := wants.tree.nodes.get(key):
            past = wants.past.nodes.get(key, node)
            found.extend(_of_wanted(node, past, have, choice, reach[key], begun.get(key, set())))
        elif key not in wants.opaque and choice.unwanted:
            found.extend(_weights(key, "checkpoints", have.full.get(key, set()), "unwanted"))
            found.extend(_weights(key, "snapshots", have.snapshots.get(key, set()), "unwanted"))
    return found


def _starts_of_children(tree: Tree, reach: dict[str, set[int]]) -> dict[str, set[int]]:
    """By trajectory, the steps where children begin that are not finished. Kept even where a child would resume from a
    checkpoint of its own, so that losing that one costs no more."""
    begun: dict[str, set[int]] = {}
    for node in tree:
        if reach[node.key] and (parent := node.trajectory.parent):
            begun.setdefault(parent.trajectory, set()).add(parent.step)
    return begun


def _of_wanted(
    node: Node, past: Node, have: Inventory, choice: Choice, reach: set[int], begun: set[int]
) -> Iterator[Weights]:
    """What may go of a trajectory that some run wants."""
    full, snapshots = have.full.get(node.key, set()), have.snapshots.get(node.key, set())
    kept = _full_wanted(node, snapshots) | begun | _states_needed(node, full, reach)
    once = full & _full_wanted(past, snapshots) - kept
    yield from _weights(node.key, "checkpoints", full - kept - once, "rolling")
    if choice.unwanted:
        yield from _weights(node.key, "checkpoints", once, "unwanted")
        yield from _weights(node.key, "snapshots", snapshots - node.snapshot_steps(), "unwanted")
    if reach or any(unmeasured_steps(node, have.evaluated)):
        return
    if choice.snapshots:
        yield from _weights(node.key, "snapshots", snapshots & node.snapshot_steps(), "snapshot")
    if choice.ends and not node.trajectory.dynamics.held:  # trained again it would be another
        yield from _weights(node.key, "checkpoints", full & kept - begun, "end")


def _full_wanted(node: Node, snapshots: set[int]) -> set[int]:
    """Branch points and ends, and where a full checkpoint stands for the snapshot, which is not there."""
    return node.full_steps | node.snapshot_steps() - snapshots


def _states_needed(node: Node, full: set[int], reach: set[int]) -> set[int]:
    """The full checkpoints from which training begins on its way to what it must reach, or which are to be observed."""
    begun = states_before(node, full, reach)
    states = sorted({node.start_step, *begun})
    return {start_of(stop, states) for stop in reach - begun if stop > node.start_step} | reach & full


def _weights(trajectory: str, part: Part, steps: Iterable[int], kind: Kind) -> list[Weights]:
    return [Weights(trajectory, part, step, kind) for step in sorted(steps)]
