"""Questions of the commands that look at a home's work, answered as plain records, so that none waits for pandas."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, func, select

from results.models import Attempt, Evaluation, Protocol, Run, Trajectory
from results.store import reading

AT_ONCE = 500  # keys in one statement; databases bound the number of parameters


@dataclass(frozen=True)
class StoredRun:
    """The latest run of (study, scale, variant). ``seeds`` are also those of earlier runs of the same configuration."""

    run: str
    created: datetime
    study: str
    scale: str
    variant: str | None
    seeds: tuple[int, ...]
    config: dict[str, Any]
    config_hash: str


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt; ``status`` is done, failed, preempted, or unfinished (running or lost)."""

    trajectory: str
    attempt: int
    kind: str | None
    status: str
    reason: str | None
    start_step: int | None
    stop_step: int | None
    started: datetime | None
    ended: datetime | None
    host: str | None


@dataclass(frozen=True)
class StoredTrajectory:
    """The key material of a trajectory that was begun."""

    trajectory: str
    parent_trajectory: str | None
    parent_step: int | None
    seed: int
    horizon_steps: int | None
    dynamics: dict[str, Any]

    @property
    def parent(self) -> tuple[str, int] | None:
        if self.parent_trajectory is None or self.parent_step is None:
            return None
        return self.parent_trajectory, self.parent_step


def stored_runs(engine: Engine) -> list[StoredRun]:
    """The latest run of every (study, scale, variant), sorted by these."""
    names = (Run.run, Run.study, Run.scale, Run.variant, Run.config_hash, Run.seeds)
    with reading(engine) as connection:
        groups: dict[tuple[str, str, str | None], list[Any]] = {}
        for row in connection.execute(select(*names).order_by(Run.run.desc())):
            groups.setdefault((row.study, row.scale, row.variant), []).append(row)
        latest = [rows[0].run for rows in groups.values()]
        full = {
            row.run: row
            for some in _portions(latest)
            for row in connection.execute(select(Run.run, Run.created, Run.config).where(Run.run.in_(some)))
        }
    found = []
    for (study, scale, variant), rows in groups.items():
        run, config_hash = rows[0].run, rows[0].config_hash
        seeds = {int(seed) for row in rows if row.config_hash == config_hash for seed in row.seeds}
        record = full[run]
        found.append(
            StoredRun(run, record.created, study, scale, variant, tuple(sorted(seeds)), record.config, config_hash)
        )
    return sorted(found, key=lambda one: (one.study, one.scale, one.variant or ""))


def first_declared(engine: Engine, study: str, scale: str, variant: str | None) -> dict[str, str]:
    """Of every protocol of a study, by its key, the first run that declared it."""
    of_study = (Run.study == study, Run.scale == scale, Run.variant.is_not_distinct_from(variant))
    statement = select(Protocol.protocol, func.min(Protocol.run)).join(Run, Run.run == Protocol.run).where(*of_study)
    with reading(engine) as connection:
        return {row[0]: row[1] for row in connection.execute(statement.group_by(Protocol.protocol))}


def attempt_records(engine: Engine, trajectories: Collection[str] | None = None) -> list[AttemptRecord]:
    """The attempts on some trajectories or on all, in order."""
    columns = [getattr(Attempt, name) for name in AttemptRecord.__dataclass_fields__]
    statement = select(*columns).order_by(Attempt.trajectory, Attempt.attempt)
    with reading(engine) as connection:
        return [
            AttemptRecord(*row)
            for condition in _of(Attempt.trajectory, trajectories)
            for row in connection.execute(statement.where(condition))
        ]


def evaluated_keys_of(engine: Engine, trajectories: Collection[str] | None = None) -> set[str]:
    """The keys of the evaluations that have been measured on some trajectories, or on all."""
    with reading(engine) as connection:
        return {
            key
            for condition in _of(Evaluation.trajectory, trajectories)
            for key in connection.scalars(select(Evaluation.evaluation).where(condition))
        }


def stored_trajectories(engine: Engine) -> list[StoredTrajectory]:
    """All trajectories that were ever begun, by key."""
    columns = [getattr(Trajectory, name) for name in StoredTrajectory.__dataclass_fields__]
    with reading(engine) as connection:
        rows = connection.execute(select(*columns).order_by(Trajectory.trajectory))
        return [StoredTrajectory(*row) for row in rows]


def measured_protocols(engine: Engine, trajectories: Collection[str]) -> dict[tuple[str, int], set[str]]:
    """By (trajectory, step), the keys of the protocols under which it has been measured."""
    columns = (Evaluation.trajectory, Evaluation.step, Evaluation.protocol)
    found: dict[tuple[str, int], set[str]] = {}
    with reading(engine) as connection:
        for condition in _of(Evaluation.trajectory, trajectories):
            for trajectory, step, protocol in connection.execute(select(*columns).where(condition)):
                found.setdefault((trajectory, step), set()).add(protocol)
    return found


def newest_run(engine: Engine) -> str | None:
    """The name of the run that was declared last."""
    with reading(engine) as connection:
        return connection.scalar(select(func.max(Run.run)))


def _portions(keys: Collection[str]) -> Iterator[list[str]]:
    listed = list(keys)
    for start in range(0, len(listed), AT_ONCE):
        yield listed[start : start + AT_ONCE]


def _of(column: Any, keys: Collection[str] | None) -> Iterator[ColumnElement[bool]]:
    """Conditions that together select these keys (None: all)."""
    if keys is None:
        yield column.is_not(None)
    else:
        for some in _portions(keys):
            yield column.in_(some)
