"""What the recorded runs of a home want: their configurations, expanded to arms and merged into one tree again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from results.formats import RunFile
from results.layout import Home
from results.recorded import read_arms, read_run, run_names, trajectories_of, whose
from studies.arms import expand
from studies.errors import StudyError
from studies.schema import ResolvedStudy
from sweeps.session import tree_of
from sweeps.tree import Tree, merge_trees

Group = list[RunFile]  # runs of one study, scale, variant and configuration, oldest first


@dataclass(frozen=True)
class Wants:
    """``tree`` is what the runs that count want. ``past`` is that of all runs, where superseded ones do not count.
    ``opaque`` are trajectories that a run which counts names, but of which this program cannot derive what is wanted:
    an older version recorded it, or a component of your own is not there."""

    tree: Tree
    past: Tree
    opaque: frozenset[str]
    runs: frozenset[str]


def recorded_wants(home: Home, superseded: bool = False) -> Wants:
    """What the runs of a home want; with ``superseded``, only runs with the configuration of the latest run of the same
    study, scale and variant count.

    Raises: StoreError where a run cannot be read.
    """
    names = run_names(home)
    groups = _groups(read_run(home, name) for name in names)
    latest = {whose(group[-1]): group for group in sorted(groups, key=lambda group: group[-1].run)}
    current = [group for group in groups if not superseded or latest[whose(group[-1])] is group]
    tree = merge_trees(map(_tree, current))
    past = tree if len(current) == len(groups) else merge_trees(map(_tree, groups))
    named = set().union(*(_named(home, group) for group in current))
    return Wants(tree, past, frozenset(named - tree.nodes.keys()), frozenset(names))


def _groups(runs: Iterable[RunFile]) -> list[Group]:
    groups: dict[tuple[object, ...], Group] = {}
    for run in runs:
        groups.setdefault((*whose(run), run.config_hash), []).append(run)
    return list(groups.values())


def _tree(group: Group) -> Tree:
    """What runs of one configuration want, with all their seeds; empty where that cannot be derived."""
    latest = group[-1]
    seeds = sorted({seed for run in group for seed in run.seeds})
    try:
        study = ResolvedStudy.model_validate({**latest.config, "seeds": seeds})
        return tree_of([study], expand(study, latest.variant))
    except (ValueError, StudyError):  # pydantic's ValidationError and a ComponentError are ValueErrors
        return Tree()


def _named(home: Home, group: Group) -> set[str]:
    """The trajectories that the arms of runs name."""
    return {key for run in group for arm in read_arms(home, run.run) for key in trajectories_of(arm)}
