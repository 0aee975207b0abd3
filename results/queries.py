"""Questions to the store, answered as pandas frames.

Text columns are of dtype object with None where there is nothing; whole numbers that may be missing are
Int64, others float64 with NaN. In every function ``variant=None`` means the study itself, without a variant;
where ``ANY`` is accepted, it means with or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, Executable, and_, func, select

from results.layout import Home
from results.models import Arm, Attempt, Evaluation, Metric, Point, Protocol, Run, Stage, Trajectory, Verdict
from results.store import reading

if TYPE_CHECKING:
    import pandas as pd


class _Any(Enum):
    ANY = "any"


ANY: Final = _Any.ANY
Variant = str | _Any | None

_DTYPES = {
    "created": "datetime64[us, UTC]",
    "started": "datetime64[us, UTC]",
    "ended": "datetime64[us, UTC]",
    "time": "datetime64[us, UTC]",
    **dict.fromkeys(("seed", "step", "attempt", "line"), "int64"),
    **dict.fromkeys(("nfe", "start_step", "stop_step", "steps", "threads", "ranks", "n", "planned_n"), "Int64"),
    **dict.fromkeys(("samples", "protocol_seed"), "Int64"),
    **dict.fromkeys(("value", "epoch", "stage_epoch", "seconds", "seconds_per_step"), "float64"),
    **dict.fromkeys(("effect", "interval_low", "interval_high"), "float64"),
    "control": "bool",
}

RESULT_COLUMNS = (
    "evaluation", "study", "scale", "variant", "panel", "arm", "control", "seed", "stage", "stage_epoch",
    "epoch", "step", "metric", "nfe", "protocol", "trajectory", "value",
)  # fmt: skip
PROTOCOL_COLUMNS = ("weights", "solver", "samples", "protocol_seed", "precision", "parameters")
"""What tells two protocols of one metric apart; ``parameters`` are the metric's, a dict."""
_RESULT_ORDER = [
    "scale",
    "variant",
    "panel",
    "arm",
    "seed",
    "epoch",
    "step",
    "stage",
    "metric",
    "nfe",
    "protocol",
]


@dataclass(frozen=True)
class RunRecord:
    """One run as it declared itself; ``created`` is in UTC."""

    run: str
    created: datetime
    study: str
    scale: str
    variant: str | None
    seeds: list[int]
    config: dict[str, Any]
    config_hash: str
    provenance: dict[str, Any]
    command: list[str]


@dataclass(frozen=True)
class WorkRow:
    """One finished attempt: ``seconds`` of wall-clock, which ``ranks`` processes took at once (None: one)."""

    kind: str | None
    device: str | None
    threads: int | None
    versions: dict[str, Any] | None
    seconds: float
    ranks: int | None


def runs(engine: Engine, study: str | None = None) -> pd.DataFrame:
    """One row a run, with or without variant, oldest first.

    Columns: run, created, study, scale, variant, seeds, config_hash, command, provenance.
    """
    statement = select(
        Run.run,
        Run.created,
        Run.study,
        Run.scale,
        Run.variant,
        Run.seeds,
        Run.config_hash,
        Run.command,
        Run.provenance,
    ).order_by(Run.run)
    return _frame(engine, statement if study is None else statement.where(Run.study == study))


def latest_run(
    engine: Engine, study: str | None = None, scale: str | None = None, variant: Variant = None
) -> RunRecord | None:
    """The newest run (of a study, at a scale, if they are given), or None where there is none."""
    with reading(engine) as connection:
        return _latest(connection, study, scale, variant)


def evaluations(
    engine: Engine, study: str, scale: str, variant: str | None = None, config_hash: str | None = None
) -> pd.DataFrame:
    """One row a declared point: `RESULT_COLUMNS` and ``attributes`` (the arm's, a dict).

    ``value`` is NaN where the point is not measured yet. The arms are those of the latest run and of earlier
    runs with its configuration (or of all runs with ``config_hash``); an arm and seed that several of them
    declare is taken from the newest. A measurement that several arms share stands once under each. Rows are
    in the order of declaration.
    """
    return _evaluations(engine, study, scale, variant, config_hash, measured=False)


def results_table(engine: Engine, study: str, scale: str | None = None, variant: str | None = None) -> pd.DataFrame:
    """The measured rows of `evaluations` (at every scale, where none is given), sorted: `RESULT_COLUMNS`, and then
    `PROTOCOL_COLUMNS`.

    Nothing in it depends on how often a run was interrupted or repeated.
    """
    import pandas as pd

    with reading(engine) as connection:
        condition = and_(Run.study == study, Run.variant.is_not_distinct_from(variant))
        scales = connection.scalars(select(Run.scale).where(condition).distinct().order_by(Run.scale)).all()
    wanted = scales if scale is None else [scale]
    frames = [_evaluations(engine, study, name, variant, None, measured=True) for name in wanted]
    filled = [frame for frame in frames if len(frame)] or frames[:1] or [_empty_results(engine)]
    table = pd.concat(filled, ignore_index=True)[list(RESULT_COLUMNS)]
    told = protocols(engine)
    apart = [_apart(told.get(key, {})) for key in table["protocol"]]
    for name, column in zip(PROTOCOL_COLUMNS, zip(*apart, strict=True) if apart else [()] * 6, strict=True):
        table[name] = pd.Series(column, dtype=_DTYPES.get(name, "object"))
    return table.sort_values([*_RESULT_ORDER, "evaluation"], ignore_index=True)


def _apart(definition: dict[str, Any]) -> tuple[Any, ...]:
    """`PROTOCOL_COLUMNS` of a resolved protocol."""
    metric = definition.get("metric")
    parameters = {k: v for k, v in metric.items() if k != "name"} if isinstance(metric, dict) else None
    precision = definition.get("precision", "fp32")  # of the first versions, which knew no other
    return (*(definition.get(name) for name in ("weights", "solver", "samples", "seed")), precision, parameters)


def training_metrics(engine: Engine, trajectories: Sequence[str], names: Sequence[str] | None = None) -> pd.DataFrame:
    """Training metrics (trajectory, step, name, value) of some trajectories, of all names or some, sorted."""
    statement = select(Metric.trajectory, Metric.step, Metric.name, Metric.value)
    statement = statement.where(Metric.trajectory.in_(trajectories))
    if names is not None:
        statement = statement.where(Metric.name.in_(names))
    return _frame(engine, statement.order_by(Metric.trajectory, Metric.step, Metric.name))


def attempts(engine: Engine) -> pd.DataFrame:
    """One row an attempt, in order; ``status`` is done, failed, preempted, or unfinished (running or lost).

    ``seconds`` and ``seconds_per_step`` are wall-clock; steps count from the root of the chain.
    """
    return _frame(engine, select(*Attempt.__table__.columns).order_by(Attempt.trajectory, Attempt.attempt))


def step_times(engine: Engine) -> list[tuple[dict[str, Any], str, float]]:
    """(resolved dynamics, device, device-seconds a step) of every finished training attempt that measured it: the time
    that it took, times the processes that shared it."""
    statement = (
        select(Trajectory.dynamics, Attempt.device, Attempt.seconds_per_step * func.coalesce(Attempt.ranks, 1))
        .join_from(Attempt, Trajectory, Attempt.trajectory == Trajectory.trajectory)
        .where(Attempt.seconds_per_step.is_not(None), Attempt.device.is_not(None))
    )
    with reading(engine) as connection:
        return [(row[0], row[1], row[2]) for row in connection.execute(statement)]


def evaluation_seconds(engine: Engine) -> dict[str, float]:
    """Mean wall-clock seconds of an evaluation, by metric label."""
    statement = select(Evaluation.metric, func.avg(Evaluation.seconds)).group_by(Evaluation.metric)
    with reading(engine) as connection:
        return {row[0]: float(row[1]) for row in connection.execute(statement) if row[1] is not None}


def evaluated_keys(engine: Engine) -> set[str]:
    """The keys of all evaluations that have been measured."""
    with reading(engine) as connection:
        return set(connection.scalars(select(Evaluation.evaluation)))


def measured_values(engine: Engine, keys: Sequence[str]) -> dict[str, float]:
    """The value of each of these evaluations that has one, by key; one that is no finite number has none."""
    statement = select(Evaluation.evaluation, Evaluation.value).where(Evaluation.evaluation.in_(keys))
    with reading(engine) as connection:
        return {key: value for key, value in connection.execute(statement) if value is not None and isfinite(value)}


def artefacts(engine: Engine, home: Home, keys: Sequence[str]) -> dict[str, Path]:
    """Where the artefact of each of these evaluations lies, of those that have been measured by a metric that keeps
    one; paths only, no file is looked at."""
    statement = select(Evaluation.evaluation, Evaluation.trajectory, Evaluation.attempt, Evaluation.metric)
    with reading(engine) as connection:
        rows = connection.execute(statement.where(Evaluation.evaluation.in_(keys)))
        return {e: home.trajectory(trajectory).artefact(attempt, metric, e) for e, trajectory, attempt, metric in rows}


def work_on(engine: Engine, study: str, scale: str, config_hash: str) -> list[WorkRow]:
    """Finished attempts on the trajectories of a study's plain runs of one configuration, in order."""
    trajectories = (
        select(Stage.trajectory)
        .join(Run, Run.run == Stage.run)
        .where(Run.study == study, Run.scale == scale, Run.variant.is_(None), Run.config_hash == config_hash)
    )
    columns = [getattr(Attempt, name) for name in WorkRow.__dataclass_fields__]
    statement = select(*columns).where(Attempt.trajectory.in_(trajectories), Attempt.seconds.is_not(None))
    with reading(engine) as connection:
        return [WorkRow(*row) for row in connection.execute(statement.order_by(Attempt.trajectory, Attempt.attempt))]


def verdicts(
    engine: Engine, study: str | None = None, scale: str | None = None, variant: Variant = ANY
) -> pd.DataFrame:
    """One row a verdict that was shown, in the order of showing; by default of all studies and variants."""
    statement = select(*Verdict.__table__.columns).order_by(Verdict.line)
    if study is not None:
        statement = statement.where(Verdict.study == study)
    if scale is not None:
        statement = statement.where(Verdict.scale == scale)
    if variant is not ANY:
        statement = statement.where(Verdict.variant.is_not_distinct_from(variant))
    return _frame(engine, statement)


def protocols(engine: Engine) -> dict[str, dict[str, Any]]:
    """Every declared protocol by its key, resolved, with its ``label`` as the newest run has it."""
    with reading(engine) as connection:
        rows = connection.execute(select(Protocol.protocol, Protocol.definition).order_by(Protocol.run))
        return {row.protocol: row.definition for row in rows}


def _latest(connection: Connection, study: str | None, scale: str | None, variant: Variant) -> RunRecord | None:
    statement = select(*(getattr(Run, name) for name in RunRecord.__dataclass_fields__))
    if study is not None:
        statement = statement.where(Run.study == study)
    if scale is not None:
        statement = statement.where(Run.scale == scale)
    if variant is not ANY:
        statement = statement.where(Run.variant.is_not_distinct_from(variant))
    row = connection.execute(statement.order_by(Run.run.desc()).limit(1)).first()
    return None if row is None else RunRecord(*row)


def _evaluations(
    engine: Engine, study: str, scale: str, variant: str | None, config_hash: str | None, *, measured: bool
) -> pd.DataFrame:
    if config_hash is None:
        latest = latest_run(engine, study, scale, variant)
        config_hash = latest.config_hash if latest else None
    newest_first = func.rank().over(partition_by=(Arm.panel, Arm.arm, Arm.seed), order_by=Arm.run.desc())
    wanted = and_(
        Run.study == study,
        Run.scale == scale,
        Run.variant.is_not_distinct_from(variant),
        Run.config_hash == config_hash,
    )
    arm = (
        select(Run.study, Run.scale, Run.variant, *Arm.__table__.columns, newest_first.label("age"))
        .join_from(Run, Arm, Arm.run == Run.run)
        .where(wanted)
        .subquery("arm")
    )
    columns = {**arm.c, **Point.__table__.c, "value": Evaluation.value}
    statement = (
        select(*(columns[name] for name in RESULT_COLUMNS), arm.c.attributes)
        .join_from(arm, Point, and_(Point.run == arm.c.run, Point.arm_number == arm.c.number))
        .join(Evaluation, Evaluation.evaluation == Point.evaluation, isouter=not measured)
        .where(arm.c.age == 1)
        .order_by(arm.c.run.desc(), arm.c.number, Point.number)
    )
    return _frame(engine, statement)


def _empty_results(engine: Engine) -> pd.DataFrame:
    return _evaluations(engine, "", "", None, "", measured=True)


def _frame(engine: Engine, statement: Executable) -> pd.DataFrame:
    import pandas as pd  # most of a second, and commands that compute ask for no frame

    with reading(engine) as connection:
        result = connection.execute(statement)
        names = list(result.keys())
        frame = pd.DataFrame([tuple(row) for row in result], columns=names, dtype=object)
    return frame.astype({name: _DTYPES[name] for name in names if name in _DTYPES})
