"""From a tree to the jobs that are missing: pure functions of the tree and of what is there already."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from results.layout import Home
from studies.schema import ResolvedStudy
from sweeps.jobs import Job, WantedEvaluation
from sweeps.rolling import apart_s
from sweeps.tree import Node, Tree

_STEP = re.compile(r"\d{9}")


@dataclass
class Inventory:
    """What a home holds of each trajectory: steps with full checkpoints, steps with EMA weights, evaluations done; and
    the steps of which the full state was let go on purpose, so that it is lacking only where something needs it."""

    full: dict[str, set[int]] = field(default_factory=dict)
    snapshots: dict[str, set[int]] = field(default_factory=dict)
    evaluated: set[str] = field(default_factory=set)
    released: dict[str, set[int]] = field(default_factory=dict)

    def weights(self, trajectory: str) -> set[int]:
        """Steps at which EMA weights can be had."""
        return self.full.get(trajectory, set()) | self.snapshots.get(trajectory, set())


def checkpoint_steps(folder: Path) -> set[int]:
    """The steps of what is published in a folder of checkpoints or snapshots."""
    try:
        return {int(p.name) for p in folder.iterdir() if _STEP.fullmatch(p.name)}
    except FileNotFoundError:
        return set()


def take_inventory(home: Home, trajectories: Iterable[str], evaluated: Iterable[str]) -> Inventory:
    """Look into a home. ``evaluated`` are the evaluation keys that the store holds."""
    inventory = Inventory(evaluated=set(evaluated))
    for key in trajectories:
        folder = home.trajectory(key)
        inventory.full[key] = checkpoint_steps(folder.checkpoints)
        inventory.snapshots[key] = checkpoint_steps(folder.snapshots)
        inventory.released[key] = checkpoint_steps(folder.released)
    return inventory


def wanted_evaluations(node: Node, evaluated: set[str]) -> dict[int, list[WantedEvaluation]]:
    """By step, the evaluations of a node that are missing."""
    missing = {
        step: [
            WantedEvaluation(evaluation=key, step=step, protocol=protocol)
            for key, protocol in at.items()
            if key not in evaluated
        ]
        for step, at in node.points.items()
    }
    return {step: wanted for step, wanted in sorted(missing.items()) if wanted}


def unmeasured_steps(node: Node, evaluated: set[str]) -> tuple[set[int], set[int]]:
    """Steps where something is still to be observed while training passes, and to be measured from weights kept."""
    observed: set[int] = set()
    later: set[int] = set()
    for step, at in node.points.items():
        for key, protocol in at.items():
            if key not in evaluated:
                (observed if protocol.observed else later).add(step)
    return observed, later


def start_of(step: int, reached: Sequence[int]) -> int:
    """Where training towards a step begins: at the nearest earlier state of those reached (sorted)."""
    return reached[bisect_left(reached, step) - 1]


def states_before(node: Node, full: set[int], reach: set[int]) -> set[int]:
    """The full checkpoints from which what is to be reached can be: a trainer of your own has to pass through it."""
    return full - reach if node.trajectory.dynamics.trainer is not None else full


def train_pieces(node: Node, full: set[int], reach: set[int]) -> Iterator[tuple[int, int]]:
    """The (start, stop] that must be trained to pass through the steps that are to be reached (see `steps_to_reach`).
    Pieces never cross a branch point that is lacking; each starts at the nearest earlier full checkpoint, and is (s, s]
    where only a full checkpoint is to be observed; a trainer of your own reports steps that it does, so there they
    start before. What is held is trained whole."""
    if node.trajectory.dynamics.held:
        if reach:
            yield node.start_step, node.stop_step
        return
    full = states_before(node, full, reach)
    yield from ((step, step) for step in sorted(reach & full))
    need = sorted(reach - full)
    bounds, reached = node.boundaries(), sorted({node.start_step, *full})
    pieces, last = [], node.start_step
    for i, steps in groupby(need, key=lambda step: bisect_left(bounds, step)):
        if 0 < i < len(bounds):
            inside = list(steps)
            pieces.append((max(last, start_of(inside[0], reached)), inside[-1]))
            last = inside[-1]
    initial_weights = 0 in need and node.start_step == 0
    if initial_weights and (0 not in {start for start, _ in pieces}):
        yield 0, 0
    yield from pieces


def steps_to_reach(tree: Tree, have: Inventory) -> dict[str, set[int]]:
    """By trajectory, the steps that training must still pass: where weights are missing, where something is to be
    observed, and full checkpoints that are lacking. One that was let go on purpose is lacking only where a child is to
    begin, or training passes anyway."""
    reach: dict[str, set[int]] = {}
    begun: dict[str, set[int]] = {}  # by trajectory, where children begin that are to be trained from their start
    for node in reversed(list(tree)):
        full, released = have.full.get(node.key, set()), have.released.get(node.key, set())
        observed, later = unmeasured_steps(node, have.evaluated)
        lacking = (node.full_steps - released | begun.get(node.key, set())) - full
        reach[node.key] = found = (later - have.weights(node.key)) | observed | lacking
        found |= _passed(node.full_steps & released - full, full, found - full)
        parent = node.trajectory.parent
        if parent and any(start == parent.step for start, _ in train_pieces(node, full, found)):
            begun.setdefault(parent.trajectory, set()).add(parent.step)
    return reach


def _passed(steps: set[int], full: set[int], reach: set[int]) -> set[int]:
    """Those of the steps that training passes on its way from the last full checkpoint to one that it must reach."""
    states = sorted({-1, *full})
    ways = [(start_of(stop, states), stop) for stop in reach]
    return {step for step in steps if any(start < step <= stop for start, stop in ways)}


def missing_jobs(tree: Tree, have: Inventory, settings: Callable[[Node], Mapping[str, object]]) -> list[Job]:
    """Every job that is left, parents before children, seed by seed, training before evaluation.

    Args:
        settings: what a node's study says of how to run (device, threads, logging), as fields of `Job`.
    """
    by_seed: dict[int, tuple[list[Job], list[Job]]] = {}
    reach = steps_to_reach(tree, have)
    for node in tree:
        train, evaluate = by_seed.setdefault(node.trajectory.seed, ([], []))
        wanted = wanted_evaluations(node, have.evaluated)
        t = node.trajectory
        common = {
            "trajectory": t.key,
            "dynamics": t.dynamics,
            "seed": t.seed,
            "horizon_steps": t.horizon_steps,
            "parent": t.parent,
            **settings(node),
        }
        observed, later = split_observed(wanted)
        steps, keep = sorted({*node.points, *node.kept_steps}), node.snapshot_steps() - node.full_steps
        for start, stop in train_pieces(node, have.full.get(t.key, set()), reach[t.key]):
            first = bisect_left if start in {0, stop} else bisect_right  # what it starts from is measured before
            passed = steps[first(steps, start) : bisect_right(steps, stop)]
            train.append(
                Job.model_validate(
                    {
                        **common,
                        "kind": "train",
                        "start_step": start,
                        "stop_step": stop,
                        "full_steps": sorted(node.full_steps & ({0, stop} if start == 0 else {stop})),
                        "snapshot_steps": [s for s in passed if s in keep],
                        "evaluations": [w for s in passed for w in observed.get(s, ())],
                    }
                )
            )
        evaluate.extend(_evaluate_jobs(node, later, common))
    return [job for _, lists in sorted(by_seed.items()) for jobs in lists for job in jobs]


Wanted = dict[int, list[WantedEvaluation]]


def split_observed(wanted: Wanted) -> tuple[Wanted, Wanted]:
    """By step, what is observed while training passes, and what is measured later from weights that are kept."""
    parts: tuple[Wanted, Wanted] = ({}, {})
    for step, evaluations in wanted.items():
        for one in evaluations:
            parts[not one.protocol.observed].setdefault(step, []).append(one)
    return parts


def _evaluate_jobs(
    node: Node, wanted: Mapping[int, list[WantedEvaluation]], common: Mapping[str, object]
) -> Iterator[Job]:
    """One job a segment, so that evaluating begins as soon as a segment is trained."""
    bounds = node.boundaries()
    groups: dict[int, list[WantedEvaluation]] = {}
    for step, evaluations in wanted.items():
        i = bisect_left(bounds, step, lo=1)
        groups.setdefault(bounds[i] if i < len(bounds) else step, []).extend(evaluations)
    for _, evaluations in sorted(groups.items()):
        steps = [e.step for e in evaluations]
        yield Job.model_validate(
            {
                **common,
                "kind": "evaluate",
                "start_step": min(steps),
                "stop_step": max(steps),
                "evaluations": evaluations,
            }
        )


def job_settings(study: ResolvedStudy) -> dict[str, object]:
    """What a study and the environment say of how its jobs are run; none of it is part of any key."""
    every = study.checkpoint_every_epochs
    return {
        "log_every_steps": study.log_every_steps,
        "checkpoint_every_steps": every * study.steps_per_epoch if every else None,
        "rolling_s": apart_s(),
        "observers": study.observers,
        "divergence": study.divergence,
        "device": study.device,
        "threads": study.threads,
        "sources": study.sources,
    }
