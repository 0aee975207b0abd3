"""Why an arm would be run again, or not: what a home holds of it, what is left, what is nearest to what it lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from meanflow_core.config import Protocol
from results.stored import AttemptRecord
from studies.arms import Arm, Point, Trajectory
from sweeps.jobs import Job
from sweeps.nearest import Nearest, Trajectories, nearest_protocol
from sweeps.plan import Inventory
from sweeps.standing import Work, by_arm, reaches

State = Literal["there", "partly", "missing"]


@dataclass(frozen=True)
class Holding:
    """What a home holds besides checkpoints: everything that an explanation may point to.

    ``trained_to`` is how far attempts have come, by trajectory; ``measured`` the protocols by (trajectory, step);
    ``protocols`` are resolved, by key.
    """

    trajectories: Trajectories
    trained_to: Mapping[str, int]
    measured: Mapping[tuple[str, int], Collection[str]]
    protocols: Mapping[str, Mapping[str, Any]]

    @property
    def begun(self) -> set[str]:
        return {one.trajectory for one in self.trajectories.stored}


@dataclass(frozen=True)
class Left:
    """What is still to be trained of a trajectory, and why."""

    start_step: int
    stop_step: int
    why: str


@dataclass(frozen=True)
class TrajectoryWhy:
    """One trajectory of an arm: what is there of it; ``tried`` says how the last attempt ended."""

    trajectory: str
    stages: tuple[str, ...]
    start_step: int
    stop_step: int
    state: State
    left: tuple[Left, ...]
    nearest: Nearest | None
    tried: str | None


@dataclass(frozen=True)
class EvaluationsWhy:
    """Points of an arm that are not measured for one reason."""

    metric: str
    nfe: int
    steps: tuple[int, ...]
    why: str
    nearest: Nearest | None


@dataclass(frozen=True)
class ArmWhy:
    arm: Arm
    trajectories: tuple[TrajectoryWhy, ...]
    evaluations: tuple[EvaluationsWhy, ...]

    @property
    def complete(self) -> bool:
        return all(one.state == "there" for one in self.trajectories) and not self.evaluations


def explain(arms: Sequence[Arm], found: Sequence[Work], have: Inventory, holding: Holding) -> list[ArmWhy]:
    """Each arm, from its root to its end.

    Args:
        found: the work of these arms.
    """
    nearest: dict[str, Nearest | None] = {}  # what several arms share is looked up once
    return [
        ArmWhy(
            arm,
            tuple(_trajectories(arm, needed, have, holding, nearest)),
            tuple(_points(arm, needed, have, holding)),
        )
        for arm, needed in zip(arms, by_arm(arms, found), strict=True)
    ]


def _trajectories(
    arm: Arm, needed: Sequence[Work], have: Inventory, holding: Holding, nearest: dict[str, Nearest | None]
) -> Iterator[TrajectoryWhy]:
    stops = reaches([arm])
    for trajectory in {stage.trajectory.key: stage.trajectory for stage in arm.stages}.values():
        key = trajectory.key
        left = [work for work in needed if work.kind == "train" and work.trajectory == key and work.jobs]
        state: State = "there" if not left else "partly" if have.weights(key) else "missing"
        if state == "missing" and key not in holding.begun and key not in nearest:
            likely = {k: one.key for k, one in nearest.items() if one is not None}
            nearest[key] = holding.trajectories.nearest(trajectory, likely)
        yield TrajectoryWhy(
            key,
            tuple(stage.name for stage in arm.stages if stage.trajectory.key == key),
            trajectory.start_step,
            stops[key],
            state,
            tuple(_left(job, trajectory, have, holding) for work in left for job in work.jobs),
            nearest.get(key) if state == "missing" else None,
            _tried(left),
        )


def _tried(left: Sequence[Work]) -> str | None:
    """How the newest attempt at what is left ended."""
    for work in left:
        if work.where is not None:
            return f"{work.standing}: {work.where}"
        if work.attempt is not None and work.cause is not None:
            reason = f": {work.attempt.reason}" if work.attempt.reason else ""
            return f"attempt {work.attempt.attempt} ended: {work.cause}{reason}"
    return None


def _left(job: Job, trajectory: Trajectory, have: Inventory, holding: Holding) -> Left:
    """Why a job is left: nothing was trained so far yet, or what lies behind is not kept, or was not watched."""
    key = trajectory.key
    to = max(holding.trained_to.get(key, 0), *have.weights(key), trajectory.start_step)
    if job.stop_step > to:
        why = "never trained" if to <= trajectory.start_step else f"never trained past step {to}"
        return Left(job.start_step, job.stop_step, why)
    full = sorted(set(job.full_steps) - have.full.get(key, set()))
    weights = sorted(set(job.snapshot_steps) - have.weights(key))
    unseen = sorted({one.step for one in job.evaluations})
    said = [f"the checkpoint at {_steps(full)} is not kept"] if full else []
    said += [f"the weights at {_steps(weights)} are not kept"] if weights else []
    said += [f"no observer was there at {_steps(unseen)}"] if unseen else []
    return Left(job.start_step, job.stop_step, f"trained to step {to} before, but {' and '.join(said)}")


def _steps(steps: Sequence[int]) -> str:
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(map(str, steps))}"


def _points(arm: Arm, needed: Sequence[Work], have: Inventory, holding: Holding) -> Iterator[EvaluationsWhy]:
    """What of an arm is not measured, those points together that lack it for one reason."""
    work_of = {key: work for work in needed for key in work.unmeasured}
    groups: dict[tuple[str, int, str, str | None], tuple[Nearest | None, list[int]]] = {}
    for point in {one.evaluation: one for one in arm.points if one.evaluation in work_of}.values():
        why, nearest = _unmeasured(point, work_of[point.evaluation], have, holding)
        at = (point.protocol.metric_label, point.protocol.nfe, why, nearest.key if nearest else None)
        groups.setdefault(at, (nearest, []))[1].append(point.checkpoint.step)
    for (metric, nfe, why, _), (nearest, steps) in groups.items():
        yield EvaluationsWhy(metric, nfe, tuple(steps), why, nearest)


def _unmeasured(point: Point, work: Work, have: Inventory, holding: Holding) -> tuple[str, Nearest | None]:
    """Why a point is not measured, and the protocol nearest to its own under which its checkpoint is."""
    at, protocol = point.checkpoint, point.protocol
    measured = holding.measured.get((at.trajectory, at.step), ())
    there = {key: holding.protocols[key] for key in measured if key in holding.protocols}
    nearest = nearest_protocol(protocol, there)
    if nearest is not None:
        return "its checkpoint is measured under another protocol", nearest
    if protocol.observed:
        return "it is measured while training passes", None
    if not _measurable(protocol, at.step, have, at.trajectory):
        return "its weights are not there", None
    tried = _tried([work])
    return "its weights are there, but were never measured so" + (f" ({tried})" if tried else ""), None


def _measurable(protocol: Protocol, step: int, have: Inventory, trajectory: str) -> bool:
    kept = have.weights(trajectory) if protocol.weights == "ema" else have.full.get(trajectory, set())
    return step in kept


def trained_to(attempts: Sequence[AttemptRecord]) -> dict[str, int]:
    """How far the attempts that ended have trained each trajectory."""
    reached: dict[str, int] = {}
    for one in attempts:
        if one.kind == "train" and one.status != "unfinished" and one.stop_step is not None:
            reached[one.trajectory] = max(one.stop_step, reached.get(one.trajectory, 0))
    return reached
