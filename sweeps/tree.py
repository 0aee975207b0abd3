"""The tree of trajectories of all arms asked for, prefixes shared, and what is saved by sharing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from meanflow_core.config import Checkpoint, Protocol
from studies.arms import Arm, Point, Trajectory

NONE: Mapping[str, int] = MappingProxyType({})


@dataclass
class Node:
    """One trajectory with everything that is wanted of it. Steps count from the root."""

    trajectory: Trajectory
    study: str  # the first study that wants it; decides how it is run, never what
    steps_per_epoch: int
    stop_step: int = 0
    paper_stop_step: int = 0  # how far the paper's own arms go
    probe_stop_step: int = 0  # how far what is only probed goes; the rest is for our controls
    full_steps: set[int] = field(default_factory=set)
    points: dict[int, dict[str, Protocol]] = field(default_factory=dict)  # step → evaluation key → protocol
    kept_steps: set[int] = field(default_factory=set)  # EMA weights kept on the way, for studies to come

    def snapshot_steps(self) -> set[int]:
        """Where EMA weights are kept: wherever something is measured, but for what is observed in passing; and on the
        way, as a study asks for."""
        measured = {step for step, at in self.points.items() if any(not p.observed for p in at.values())}
        return measured | self.kept_steps

    @property
    def key(self) -> str:
        return self.trajectory.key

    @property
    def start_step(self) -> int:
        return self.trajectory.start_step

    def boundaries(self) -> list[int]:
        """Where its segments meet: its start, every branch point and end."""
        return sorted({self.start_step, *self.full_steps})


@dataclass
class Tree:
    """Trajectories by key; parents stand before their children."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def segments(self) -> int:
        """Number of pieces between branch points."""
        return sum(len(node.boundaries()) - 1 for node in self if node.stop_step > node.start_step)

    def evaluations(self) -> int:
        return sum(len(at) for node in self for at in node.points.values())


def build_tree(arms: Iterable[Arm], steps_per_epoch: Mapping[str, int], keep_every: Mapping[str, int] = NONE) -> Tree:
    """Merge arms into a tree.

    Args:
        steps_per_epoch: of each study, by name.
        keep_every: of the studies that keep EMA weights on the way, after how many steps each.
    """
    tree = Tree()
    for arm in sorted(arms, key=lambda a: a.seed):
        spe = steps_per_epoch[arm.study]
        for stage in arm.stages:
            node = tree.nodes.setdefault(stage.trajectory.key, Node(stage.trajectory, arm.study, spe))
            node.stop_step = max(node.stop_step, stage.stop_step)
            if stage.probe:
                node.probe_stop_step = max(node.probe_stop_step, stage.stop_step)
            elif not arm.control:
                node.paper_stop_step = max(node.paper_stop_step, stage.stop_step)
            if every := keep_every.get(arm.study):
                first = stage.start_step + every - stage.start_step % every
                node.kept_steps.update(range(first, stage.stop_step + 1, every))
            if parent := stage.trajectory.parent:
                tree.nodes[parent.trajectory].full_steps.add(parent.step)
        if arm.stages:
            last = arm.stages[-1]
            tree.nodes[last.trajectory.key].full_steps.add(last.stop_step)
        for point in arm.points:
            _want(tree, point)
    return tree


def merge_trees(trees: Iterable[Tree]) -> Tree:
    """One tree that wants all that these want; parents stand before their children."""
    merged = Tree()
    for one in trees:
        for node in one:
            into = merged.nodes.setdefault(node.key, Node(node.trajectory, node.study, node.steps_per_epoch))
            for name in ("stop_step", "paper_stop_step", "probe_stop_step"):
                setattr(into, name, max(getattr(into, name), getattr(node, name)))
            into.full_steps |= node.full_steps
            into.kept_steps |= node.kept_steps
            for step, at in node.points.items():
                into.points.setdefault(step, {}).update(at)
    return merged


def _want(tree: Tree, point: Point) -> None:
    at: Checkpoint = point.checkpoint
    node = tree.nodes[at.trajectory]
    node.points.setdefault(at.step, {})[point.evaluation] = point.protocol
    opaque = node.trajectory.dynamics.trainer is not None  # whatever it saves is whole
    if point.protocol.weights != "ema" and not point.protocol.observed and not opaque:  # a snapshot holds no others
        node.full_steps.add(at.step)


@dataclass(frozen=True)
class Epochs:
    """Epochs per seed: what the paper's arms cost one by one, what they cost with prefixes shared, what is trained
    only to be probed, and what our own control arms add to that."""

    naive: float
    planned: float
    probe: float
    control: float


def count_epochs(arms: Iterable[Arm], tree: Tree, seeds: int) -> Epochs:
    """Means over seeds (all seeds cost the same). An epoch wanted by several counts once: for the paper's arms first,
    then for probes, then for our controls."""
    naive = sum(arm.epochs for arm in arms if not arm.control)
    planned = probe = control = 0.0
    for node in tree:
        paper_end = max(node.start_step, node.paper_stop_step)
        probe_end = max(paper_end, node.probe_stop_step)
        planned += (paper_end - node.start_step) / node.steps_per_epoch
        probe += (probe_end - paper_end) / node.steps_per_epoch
        control += (node.stop_step - probe_end) / node.steps_per_epoch
    return Epochs(naive / seeds, planned / seeds, probe / seeds, control / seeds)
