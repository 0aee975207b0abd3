"""Expansion of a study into arms: chains of stages on trajectories, with the points at which they are measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from meanflow_core.config import Checkpoint, Dynamics, Protocol, evaluation_keys, trajectory_key
from meanflow_core.words import counted, there_is
from studies.dynamics import stage_dynamics
from studies.errors import StudyError
from studies.reseed import Reseed
from studies.schema import ResolvedStudy, Stage
from studies.strict import Attribute
from studies.sweep import Drawn

MOST_INITIAL = 0.1  # of the weights that are measured; more is said, since it is not what was trained
MOST_EPOCHS = 1_000_000  # of an arm: it is measured and kept by the epoch, and all of that is planned at once


@dataclass(frozen=True)
class Trajectory:
    """One dynamics from one parent checkpoint with one seed, of any length."""

    key: str
    dynamics: Dynamics
    seed: int
    parent: Checkpoint | None
    horizon_steps: int | None

    @property
    def start_step(self) -> int:
        return self.parent.step if self.parent else 0


@dataclass(frozen=True)
class StageRun:
    """A stage of an arm placed on its trajectory. Steps and epochs count from the arm's root."""

    name: str
    trajectory: Trajectory
    start_step: int
    stop_step: int
    start_epoch: int
    stop_epoch: int
    probe: bool = False


@dataclass(frozen=True)
class Point:
    """One number that a study wants: a checkpoint measured under a protocol."""

    stage: str
    stage_epoch: int
    epoch: int
    checkpoint: Checkpoint
    protocol: Protocol
    evaluation: str


@dataclass(frozen=True)
class Arm:
    """One curve of a study for one seed."""

    study: str
    scale: str
    variant: str | None
    panel: str
    name: str
    seed: int
    control: bool
    attributes: dict[str, Attribute]
    stages: tuple[StageRun, ...]
    points: tuple[Point, ...]

    @property
    def epochs(self) -> int:
        """How long the arm is, without what is trained only to be probed."""
        return sum(stage.stop_epoch - stage.start_epoch for stage in self.stages if not stage.probe)


def _epochs(stage: Stage, names: Mapping[str, Attribute], where: str) -> int:
    if isinstance(stage.epochs, int):
        return stage.epochs
    value = names.get(stage.epochs[1:])
    if value is None:
        known = there_is(stage.epochs[1:], names)
        raise StudyError(f"{where}, stage '{stage.name}': epochs {stage.epochs} is no attribute and no constant{known}")
    if not isinstance(value, int) or value < 0:
        raise StudyError(
            f"{where}, stage '{stage.name}': epochs must be a whole number from 0, and {stage.epochs} is {value!r}"
        )
    return value


def place_stages(
    study: ResolvedStudy, stages: Sequence[Stage], attributes: dict[str, Attribute], seed: int, where: str
) -> tuple[StageRun, ...]:
    """Put stages on trajectories: one of 0 epochs vanishes, and one that only continues its predecessor shares its
    trajectory."""
    names = {**study.constants, **attributes}
    present = [(s, n) for s in stages if (n := _epochs(s, names, where))]
    if not present:
        raise StudyError(f"{where}: all its stages have 0 epochs, so there is nothing to train")
    if sum(n for _, n in present) > MOST_EPOCHS:
        raise StudyError(f"{where}: its stages have more than {MOST_EPOCHS:,} epochs")
    horizon = sum(n for _, n in present) * study.steps_per_epoch
    placed: list[StageRun] = []
    for stage, epochs in present:
        last = placed[-1] if placed else None
        start_step, start_epoch = (last.stop_step, last.stop_epoch) if last else (0, 0)
        stop = start_step + epochs * study.steps_per_epoch
        dynamics = stage_dynamics(study, stage, attributes).until(stop)
        if last and (last.trajectory.dynamics.trainer is None) != (dynamics.trainer is None):
            raise StudyError(
                f"{where}, stage '{stage.name}': the built-in trainer and one of your own cannot read each other's "
                "checkpoints, so all stages of an arm have the same"
            )
        if last and last.trajectory.dynamics.carries_over(dynamics):
            trajectory = last.trajectory
        else:
            parent = Checkpoint(last.trajectory.key, last.stop_step) if last else None
            t = horizon if dynamics.uses_horizon else None
            key = trajectory_key(parent, dynamics, seed, t)
            trajectory = Trajectory(key, dynamics, seed, parent, t)
        placed.append(
            StageRun(stage.name, trajectory, start_step, stop, start_epoch, start_epoch + epochs, stage.probe)
        )
    return tuple(placed)


def measured_epochs(stage: StageRun, every: int | None, first: int = 0) -> list[int]:
    """Epochs from the stage's start at which it is measured: its start, every so many, its end; from ``first`` on."""
    length = stage.stop_epoch - stage.start_epoch
    epochs = {length} if every is None else {*range(0, length, every), length}
    return sorted(epoch for epoch in epochs if epoch >= first)


def checkpoint_at(stage: StageRun, step: int) -> Checkpoint:
    """The checkpoint at a step of a stage; its start is its parent's last checkpoint where there is a parent."""
    trajectory = stage.trajectory
    if step == trajectory.start_step and trajectory.parent:
        return trajectory.parent
    return Checkpoint(trajectory.key, step)


def _points(study: ResolvedStudy, stages: Sequence[StageRun]) -> Iterator[Point]:
    for stage in stages:
        for measure in study.measure:
            if measure.stages is None or stage.name in measure.stages:
                protocol = Protocol.of(measure, stage.trajectory.dynamics)
                key = evaluation_keys(protocol)
                for epoch in measured_epochs(stage, measure.every_epochs, measure.from_epoch):
                    step = stage.start_step + epoch * study.steps_per_epoch
                    at = checkpoint_at(stage, step)
                    yield Point(stage.name, epoch, stage.start_epoch + epoch, at, protocol, key(at))


def expand(study: ResolvedStudy, variant: str | None = None) -> list[Arm]:
    """All arms of a study, seed by seed: a first complete picture comes early. Raises: StudyError."""
    first, *others = study.seeds
    arms = expand_seed(study, first, variant)
    reseed = Reseed()
    return [*arms, *(arm for seed in others for arm in reseed(arms, seed))]


def expand_seed(study: ResolvedStudy, seed: int, variant: str | None = None) -> list[Arm]:
    """The arms of one seed, panel by panel, then the controls. What an adaptive search has cut short ends there; what
    it shares with a whole arm, the horizon of its schedules among it, is as in that."""
    arms = []
    blank = Arm(study.study, study.scale, variant, "", "", seed, False, {}, (), ())
    for panel_name in study.panels:
        for pattern, attributes in study.arms_of(panel_name):
            name = _arm_name(study, pattern, attributes)
            where = f"study '{study.study}', panel '{panel_name}', arm '{name}'"
            stages = place_stages(study, study.stages, attributes, seed, where)
            points = tuple(_points(study, stages))
            arms.append(
                replace(blank, panel=panel_name, name=name, attributes=attributes, stages=stages, points=points)
            )
    for name, control in study.controls.items():
        where = f"study '{study.study}', control '{name}'"
        stages = place_stages(study, study.stages_of(name), control.attributes, seed, where)
        points = tuple(_points(study, stages))
        arm = replace(blank, panel=control.panel, name=name, control=True, stages=stages, points=points)
        arms.append(replace(arm, attributes=control.attributes))
    _unique(arms)
    _measured(study, arms)
    _tabled(study, arms)
    short = {panel: study.cut_short(panel) for panel in study.panels}
    return [
        arm if arm.control or (drawn := short[arm.panel].get(arm.name)) is None else _cut(study, arm, drawn)
        for arm in arms
    ]


def _cut(study: ResolvedStudy, arm: Arm, drawn: Drawn) -> Arm:
    """An arm up to the epoch that a search has trained it to."""
    until = drawn.until_epoch or 0
    if any(stage.trajectory.dynamics.held and stage.start_epoch < until < stage.stop_epoch for stage in arm.stages):
        raise StudyError(
            f"study '{study.study}', arm '{arm.name}': a search that stops arms early needs a trainer that resumes "
            "exactly"
        )
    stages = [
        replace(
            stage,
            stop_epoch=min(stage.stop_epoch, until),
            stop_step=min(stage.stop_step, stage.start_step + (until - stage.start_epoch) * study.steps_per_epoch),
        )
        for stage in arm.stages
        if stage.start_epoch < until
    ]
    points = tuple(point for point in arm.points if stages and point.epoch <= until)
    return replace(arm, stages=tuple(stages), points=points)


def initial_share(arm: Arm) -> float:
    """How much of the EMA weights that are measured last in an arm is still where the EMA began: Π decayˢ over the
    steps s since then. 0 where none are measured, or a program of the user's own makes them."""
    measured = [point.checkpoint.step for point in arm.points if point.protocol.weights == "ema"]
    share = 1.0
    for stage in arm.stages:
        dynamics, last = stage.trajectory.dynamics, min(stage.stop_step, max(measured, default=0))
        began_anew = "ema" in dynamics.reset and stage.start_step == stage.trajectory.start_step
        share = (1.0 if began_anew else share) * dynamics.ema_decay ** max(0, last - stage.start_step)
    return share if measured and all(stage.trajectory.dynamics.trainer is None for stage in arm.stages) else 0.0


def ema_note(arms: Sequence[Arm]) -> str | None:
    """What has to be said where measured EMA weights are in good part those at which the EMA began."""
    shares = {f"{arm.panel}/{arm.name}": share for arm in arms if (share := initial_share(arm)) > MOST_INITIAL}
    if not shares:
        return None
    most = max(shares, key=lambda name: shares[name])
    return (
        f"the EMA weights measured at the end of {counted(len(shares), 'arm')} are in good part the initial weights "
        f"({100 * shares[most]:.3g} % in {most}): lower ema_decay, train longer, or measure the online weights"
    )


Reading = tuple[str, int, str]  # label of the metric, NFE, solver


def _reading(point: Point) -> Reading:
    return point.protocol.metric_label, point.protocol.nfe, point.protocol.solver


def _measured(study: ResolvedStudy, arms: Sequence[Arm]) -> None:
    """Raises: StudyError for a measure that has no point in any arm."""
    there = {_reading(point) for arm in arms for point in arm.points}
    for i, measure in enumerate(study.measure):
        if (measure.metric_label, measure.nfe, measure.solver) not in there:
            raise StudyError(
                f"study '{study.study}', measure {i} ({measure.metric_label}): no arm has a stage with a point of it; "
                "look at its 'stages', 'every_epochs' and 'from_epoch'"
            )


def _tabled(study: ResolvedStudy, arms: Sequence[Arm]) -> None:
    """Raises: StudyError for a column of the table that is not measured at its percent of some arm's length."""
    for column in study.table.columns if study.table else ():
        reading: Reading = (column.metric or study.primary, column.nfe, column.solver)
        for arm in arms:
            wanted = column.percent / 100 * arm.epochs
            if not any(math.isclose(p.epoch, wanted) for p in arm.points if _reading(p) == reading):
                raise StudyError(
                    f"study '{study.study}', table column '{column.id}': arm '{arm.name}' is not measured at "
                    f"{column.percent:g} % of its {arm.epochs} epochs ({wanted:g}); change the column's 'percent' or "
                    f"the 'every_epochs' of {reading[0]}"
                )


def _arm_name(study: ResolvedStudy, pattern: str, attributes: dict[str, Any]) -> str:
    try:
        return pattern.format(**attributes)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        known = ", ".join(attributes)
        raise StudyError(f"study '{study.study}': arm_name '{pattern}': {error} (attributes: {known})") from None


def _unique(arms: Sequence[Arm]) -> None:
    seen = set()
    for arm in arms:
        if (arm.panel, arm.name) in seen:
            raise StudyError(
                f"study '{arm.study}': two arms of panel '{arm.panel}' are called '{arm.name}'; "
                "let arm_name tell them apart"
            )
        seen.add((arm.panel, arm.name))
