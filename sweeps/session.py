"""A planned piece of work: studies → arms → tree → the jobs that are missing in a home, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from meanflow_core.config import Protocol
from results.layout import Home
from studies.arms import Arm, ema_note, expand
from studies.errors import StudyError
from studies.schema import ResolvedStudy
from sweeps.cost import Cost, Rates, cost_of
from sweeps.jobs import Job
from sweeps.plan import Inventory, job_settings, missing_jobs, take_inventory
from sweeps.tree import Epochs, Node, Tree, build_tree, count_epochs


@dataclass(frozen=True)
class Session:
    """Studies at one scale each, with their arms merged into one tree."""

    studies: tuple[ResolvedStudy, ...]
    arms: tuple[Arm, ...]
    tree: Tree

    @property
    def steps_per_epoch(self) -> dict[str, int]:
        return {study.study: study.steps_per_epoch for study in self.studies}

    @cached_property
    def _settings(self) -> dict[str, dict[str, object]]:
        return {study.study: job_settings(study) for study in self.studies}

    def settings(self, node: Node) -> dict[str, object]:
        return self._settings[node.study]

    def arms_of(self, study: ResolvedStudy) -> list[Arm]:
        return [arm for arm in self.arms if arm.study == study.study]

    @property
    def seeds(self) -> list[int]:
        return sorted({arm.seed for arm in self.arms})

    def inventory(self, home: Home, evaluated: set[str]) -> Inventory:
        return take_inventory(home, self.tree.nodes, evaluated)

    def jobs(self, have: Inventory) -> list[Job]:
        return missing_jobs(self.tree, have, self.settings)

    def protocols(self) -> list[Protocol]:
        """All that something is measured under."""
        return list({p.key: p for arm in self.arms for point in arm.points for p in [point.protocol]}.values())

    def epochs(self) -> Epochs:
        """Epochs per seed."""
        return count_epochs(self.arms, self.tree, len(self.seeds))

    def notes(self) -> list[str]:
        """What should be known of the studies before they are trained, a phrase each."""
        seed = self.seeds[0] if self.arms else None
        notes = ((study, ema_note([a for a in self.arms_of(study) if a.seed == seed])) for study in self.studies)
        return [f"{study.study}: {note}" for study, note in notes if note]

    def cost(self, jobs: Sequence[Job], rates: Rates) -> Cost:
        return cost_of(jobs, rates, {node.key: node.steps_per_epoch for node in self.tree})


def open_session(studies: Sequence[ResolvedStudy], variant: str | None = None) -> Session:
    """Expand studies and merge their arms. Raises: StudyError."""
    names = [study.study for study in studies]
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"study '{name}' is named twice")
    seeds = {study.seeds for study in studies}
    if len(seeds) > 1:
        raise StudyError("studies planned together need the same seeds; give --seeds")
    return session_of(studies, [arm for study in studies for arm in expand(study, variant)])


def session_of(studies: Sequence[ResolvedStudy], arms: Sequence[Arm]) -> Session:
    """Merge some of the arms of studies."""
    return Session(tuple(studies), tuple(arms), tree_of(studies, arms))


def tree_of(studies: Sequence[ResolvedStudy], arms: Sequence[Arm]) -> Tree:
    """What arms of studies want, merged."""
    keep = {one.study: one.keep_every_epochs * one.steps_per_epoch for one in studies if one.keep_every_epochs}
    return build_tree(arms, {study.study: study.steps_per_epoch for study in studies}, keep)


def plan_record(session: Session, jobs: Sequence[Job], cost: Cost, remaining: Cost) -> dict[str, Any]:
    """What ``study plan --json`` prints. Epochs are per seed; segments, evaluations and cost are for all seeds."""
    epochs = session.epochs()
    return {
        "studies": [study.study for study in session.studies],
        "scale": session.studies[0].scale,
        "seeds": session.seeds,
        "naive_epochs": _whole(epochs.naive),
        "planned_epochs": _whole(epochs.planned),
        "probe_epochs": _whole(epochs.probe),
        "control_epochs": _whole(epochs.control),
        "segments": session.tree.segments(),
        "evaluations": session.tree.evaluations(),
        "notes": session.notes(),
        "cost": cost.to_json(),
        "missing": {
            "segments": sum(job.kind == "train" for job in jobs),
            "evaluations": sum(len(job.evaluations) for job in jobs),
            "cost": remaining.to_json(),
        },
    }


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value
