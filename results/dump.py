"""The store as text that two runs of the same thing must share, however often one of them was killed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, Select, select

from results.models import Arm, Evaluation, Metric, Point, Run, Stage, Trajectory, Verdict
from results.queries import protocols
from results.store import reading

_WHO = (Run.study, Run.scale, Run.variant, Run.config_hash, Arm.panel, Arm.arm, Arm.seed)


def _of_arm(model: type[Stage | Point], *left_out: str) -> Select[Any]:
    columns = [c for c in model.__table__.columns if c.name not in {"run", "arm_number", *left_out}]
    arm_of = (Arm.run == model.run) & (Arm.number == model.arm_number)
    return select(*_WHO, *columns).join_from(Run, Arm, Arm.run == Run.run).join(model, arm_of)


_STATEMENTS: dict[str, Select[Any]] = {
    "arm": select(*_WHO, Arm.control, Arm.attributes).join_from(Run, Arm, Arm.run == Run.run),
    "evaluation": select(*(c for c in Evaluation.__table__.columns if c.name not in {"seconds", "attempt"})),
    "metric": select(),  # one trajectory at a time, see below
    "point": _of_arm(Point, "number"),
    "protocol": select(),
    "stage": _of_arm(Stage),
    "trajectory": select(*Trajectory.__table__.columns),
    "verdict": select(*(c for c in Verdict.__table__.columns if c.name not in {"line", "time"})),
}


def canonical_dump(engine: Engine) -> Iterator[str]:
    """JSON arrays ``[kind, field, ...]``, one a line (without newline), sorted, without duplicates.

    Left out is whatever an interruption or a repetition may change: attempts, times, durations, hosts, and
    the names, commands and provenance of runs. Infinities are written as strings, NaN as null.
    """
    definitions = protocols(engine)
    with reading(engine) as connection:
        for kind, statement in _STATEMENTS.items():
            if kind == "metric":
                yield from _metrics(connection)
            elif kind == "protocol":
                yield from _lines(kind, definitions.items())
            else:
                yield from _lines(kind, connection.execute(statement))


def _metrics(connection: Connection) -> Iterator[str]:
    for trajectory in connection.scalars(select(Metric.trajectory).distinct().order_by(Metric.trajectory)).all():
        columns = select(Metric.trajectory, Metric.step, Metric.name, Metric.value)
        yield from _lines("metric", connection.execute(columns.where(Metric.trajectory == trajectory)))


def _lines(kind: str, rows: Iterable[Iterable[Any]]) -> list[str]:
    texts = {json.dumps([kind, *map(_plain, row)], sort_keys=True, separators=(",", ":")) for row in rows}
    return sorted(texts)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
