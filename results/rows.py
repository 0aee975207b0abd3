"""What the files of a home say, as rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from results import formats, models
from results.files import FileError, look, read_document

Row = dict[str, Any]

ATTEMPT_DOCUMENTS: dict[str, type[formats.SegmentFile | formats.DoneFile]] = {
    "segment.json": formats.SegmentFile,
    "DONE.json": formats.DoneFile,  # the later one: it says what really happened
}


def of_run(
    run: formats.RunFile, arms: Sequence[formats.ArmLine], protocols: Mapping[str, dict[str, Any]]
) -> dict[type[models.Base], list[Row]]:
    """A run's rows by table, in an order that foreign keys allow."""
    result: dict[type[models.Base], list[Row]] = {
        models.Run: [run.model_dump(exclude={"format"})],
        models.Protocol: [{"run": run.run, "protocol": k, "definition": v} for k, v in protocols.items()],
        models.Arm: [],
        models.Stage: [],
        models.Point: [],
    }
    for number, arm in enumerate(arms):
        own = arm.model_dump(exclude={"format", "stages", "points"})
        result[models.Arm].append({"run": run.run, "number": number, **own})
        parts: dict[type[models.Base], Sequence[formats.StageEntry | formats.PointEntry]]
        parts = {models.Stage: arm.stages, models.Point: arm.points}
        for model, entries in parts.items():
            result[model].extend(
                {"run": run.run, "arm_number": number, "number": i, **entry.model_dump()}
                for i, entry in enumerate(entries)
            )
    return result


def of_trajectory(described: formats.TrajectoryFile) -> Row:
    """The row of a trajectory.json."""
    parent = described.parent
    return {
        **described.model_dump(exclude={"format", "parent"}),
        "parent_trajectory": parent.trajectory if parent else None,
        "parent_step": parent.step if parent else None,
    }


def of_attempt(folder: Path) -> tuple[Row, list[str]]:
    """The row of an attempt from those of its files that can be read, and what is wrong with the others."""
    row: Row = dict.fromkeys(models.Attempt.__table__.columns.keys()) | {"status": "unfinished"}
    problems = []
    for name, model in ATTEMPT_DOCUMENTS.items():
        try:
            if look(folder / name) is not None:
                row |= read_document(folder / name, model).model_dump(exclude={"format"}, exclude_none=True)
        except FileError as error:
            problems.append(str(error))
    return row, problems


def of_lines(
    ident: Row, entries: Iterable[formats.MetricsLine | formats.EvaluationLine]
) -> tuple[list[Row], list[Row]]:
    """Rows of metrics and of evaluations of the attempt ``ident`` (trajectory and attempt)."""
    metrics: list[Row] = []
    evaluations: list[Row] = []
    for entry in entries:
        if isinstance(entry, formats.MetricsLine):
            at_step = {**ident, "step": entry.step}
            metrics.extend({**at_step, "name": name, "value": v} for name, v in entry.values.items())
        else:
            evaluations.append({**entry.model_dump(exclude={"format", "type"}), **ident})
    return metrics, evaluations


def of_verdict(line: int, entry: formats.VerdictLine) -> Row:
    """The row of a line (counted from 1) of verdicts.jsonl."""
    low, high = entry.interval or (None, None)
    row = entry.model_dump(exclude={"format", "interval"})
    return {"line": line, **row, "interval_low": low, "interval_high": high}
