"""Results that are committed to a repository: of each study and scale one tidy CSV, and a record of how it was made.

``<study>_<scale>.csv`` has a row a declared point of an arm and seed, seed by seed and else as declared; its ``value``
is empty where it is not measured, and ``nan`` where what was measured is no number. ``<study>_<scale>.json``
(`results.formats.CommittedRecord`) has the sha256 of the CSV. The same store gives the same bytes, and both together
give the store back, as far as reports ask it for numbers.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import Engine, insert

from results.formats import CommittedRecord
from results.layout import FORMAT
from results.models import Arm, Attempt, Evaluation, Point, Protocol, Run
from results.queries import RunRecord, evaluated_keys, evaluations, latest_run, protocols, runs, work_on
from results.store import StoreError, open_store, writing

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "panel", "arm", "control", "seed", "stage", "stage_epoch", "epoch", "step", "metric", "nfe", "solver", "weights",
    "protocol", "value", "evaluation", "trajectory",
)  # fmt: skip
KIND = "meanflow-study results"
UNTOLD = ("host",)  # of a machine: nobody else's business
SAME_MACHINE = ("host", "architecture", "cores", "memory_gib")
SEEN = "verdicts.jsonl"
AT_ONCE = 5000  # rows in one statement

Protocols = Mapping[str, Mapping[str, Any]]
Claimed = Callable[[RunRecord, "pd.DataFrame", Protocols], Sequence[Mapping[str, Any]]]
"""Given the latest run of a study, its evaluations and their protocols: its claims (`results.formats.CommittedClaim`),
which `reports.committed` knows."""


@dataclass(frozen=True)
class Committed:
    """One study at one scale, as it is read from a folder. ``rows`` have the columns of the CSV, as texts."""

    record: CommittedRecord
    rows: list[dict[str, str]]

    @property
    def name(self) -> str:
        return stem(self.record.study, self.record.scale)


def stem(study: str, scale: str) -> str:
    """What its files are called."""
    return f"{study}_{scale}"


def tidy(
    engine: Engine,
    study: str,
    scale: str,
    with_floors: Callable[[Any], Protocols],
    claimed: Claimed,
    here: Mapping[str, Any] | None = None,
) -> Committed:
    """What is committed of the latest plain run of a study at a scale, and of earlier runs of its configuration.

    Args:
        with_floors: gives protocols their floors.
        here: the machine that this runs on, for runs that do not say which processor theirs has (`_machine`).

    Raises: StoreError where there is no such run.
    """
    run = latest_run(engine, study, scale, None)
    if run is None:
        raise StoreError(f"no run of '{study}' at scale '{scale}' is stored")
    frame = evaluations(engine, study, scale).sort_values("seed", kind="stable", ignore_index=True)
    known = with_floors(protocols(engine))
    told = {key: dict(known[key]) for key in sorted(frame["protocol"].unique())}
    rows = tidy_rows(frame, told, evaluated_keys(engine))
    text = _csv(rows)
    arms = frame.drop_duplicates(["panel", "arm"])
    record = {
        "format": FORMAT,
        "kind": KIND,
        "study": study,
        "scale": scale,
        "table": {
            "file": f"{stem(study, scale)}.csv",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "rows": len(rows),
            "measured": sum(row["value"] != "" for row in rows),
        },
        "config_hash": run.config_hash,
        "config": run.config,
        "runs": _runs(engine, run, here or {}),
        "work": _work(engine, run),
        "arms": arms[["panel", "arm", "control", "attributes"]].to_dict("records"),
        "protocols": told,
        "claims": claimed(run, frame, told),
    }
    return Committed(CommittedRecord.model_validate(record), rows)


def tidy_rows(frame: pd.DataFrame, protocols: Protocols, measured: Collection[str]) -> list[dict[str, str]]:
    """The lines of the CSV, of evaluations of which those with the keys ``measured`` have a value."""
    return [_row(point, protocols[point["protocol"]], measured) for point in frame.to_dict("records")]


def _row(point: Mapping[Any, Any], protocol: Mapping[str, Any], measured: Collection[str]) -> dict[str, str]:
    """One line of the CSV."""
    value = repr(point["value"]) if point["evaluation"] in measured else ""
    row = {**point, "solver": protocol.get("solver"), "weights": protocol.get("weights"), "value": value}
    return {name: _cell(row[name]) for name in COLUMNS}


def _cell(value: Any) -> str:
    """A number in full, whole ones without a point; nothing for what is missing."""
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value)) if value.is_integer() else repr(value)
    return "" if value is None or str(value) == "<NA>" else str(value)


def _csv(rows: Iterable[Mapping[str, str]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _runs(engine: Engine, latest: RunRecord, here: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plain runs of the configuration, oldest first."""
    frame = runs(engine, latest.study)
    same = (frame["scale"] == latest.scale) & frame["variant"].isna() & (frame["config_hash"] == latest.config_hash)
    found = []
    for run in frame[same].to_dict("records"):
        told = run["provenance"]
        found.append(
            {
                "run": run["run"],
                "created": run["created"],
                "seeds": run["seeds"],
                "commit": told.get("commit"),
                "dirty": told.get("dirty"),
                "packages": told.get("packages") or {},
                "machine": _machine(told.get("machine") or {}, here),
            }
        )
    return found


def _machine(told: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """A run's machine, without its name. Runs of the first versions do not say which processor it has: where it is the
    machine that this runs on, by name and size, that is known."""
    same = all(name in told and told[name] == here.get(name) for name in SAME_MACHINE)
    known = {"cpu": here["cpu"]} if same and "cpu" in here and "cpu" not in told else {}
    return {name: value for name, value in {**told, **known}.items() if name not in UNTOLD}


def _work(engine: Engine, run: RunRecord) -> list[dict[str, Any]]:
    """How long it took, by what took it. Trajectories that other studies share count in each of them."""
    groups: dict[str, dict[str, Any]] = {}
    for one in work_on(engine, run.study, run.scale, run.config_hash):
        what = {"kind": one.kind, "device": one.device, "threads": one.threads, "versions": one.versions}
        group = groups.setdefault(json.dumps(what, sort_keys=True), {**what, "attempts": 0, "hours": 0.0})
        group["attempts"] += 1
        group["hours"] += one.seconds * (one.ranks or 1) / 3600
    return [{**group, "hours": round(group["hours"], 6)} for _, group in sorted(groups.items()) if group["kind"]]


def write(committed: Committed, folder: Path) -> list[Path]:
    """Write both files of a study and scale; others in the folder stay as they are. Returns: their paths.

    Raises: StoreError where files of this name are another study's, or cannot be written.
    """
    record = committed.record
    table, described = folder / record.table.file, folder / f"{committed.name}.json"
    try:
        if described.exists() and (whose := _of(described)) != (record.study, record.scale):
            raise StoreError(f"{described} is that of {whose[0]} at scale {whose[1]}: give another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        _replace(table, _csv(committed.rows))
        _replace(described, record.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise StoreError(f"{error.filename or folder} cannot be written: {error.strerror or error}") from error
    return [table, described]


def write_seen(lines: Iterable[Mapping[str, Any]], folder: Path, whose: Collection[tuple[str, str]]) -> None:
    """Write down the verdicts that were seen of some studies at their scales beside their tables, so that reports from
    these flag what was changed afterwards, as in the home; those of others that stand there stay."""
    path = folder / SEEN
    try:
        there = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in map(json.loads, there) if (line["study"], line["scale"]) not in whose]
        ordered = sorted([*kept, *lines], key=lambda line: (line["study"], line["scale"], line["time"], line["claim"]))
        if ordered:
            _replace(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in ordered))
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} holds what is no verdict ({error}); restore it or move it away") from None


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8", newline="")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _of(path: Path) -> tuple[str, str]:
    record = _record(path)
    return record.study, record.scale


def read(where: Path, studies: Collection[str] | None = None) -> list[Committed]:
    """What is committed in a folder, or of one CSV, by name; of some ``studies`` or of all.

    Raises: StoreError where there is nothing, or a file is not what its record says.
    """
    if where.suffix == ".csv":
        described = [where.with_suffix(".json")]
    elif where.is_dir():
        described = sorted(where.glob("*.json"))
    else:
        raise StoreError(f"there is no folder {where}; give one that `study results --all --out FOLDER` has written")
    if not described:
        raise StoreError(f"{where} holds no committed results; `study results --all --out {where}` writes them")
    records = [(path, _record(path)) for path in described]
    return [_read(path, one) for path, one in records if studies is None or one.study in studies]


def _record(path: Path) -> CommittedRecord:
    try:
        return CommittedRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"there is no {path}, the record of the CSV beside it; restore it") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path} is no record of committed results ({where}: {first['msg']})") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None


def _read(path: Path, record: CommittedRecord) -> Committed:
    file = path.with_name(record.table.file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}; {path.name} describes it") from None
    if hashlib.sha256(content).hexdigest() != record.table.sha256:
        raise StoreError(
            f"{file} is not the file that {path.name} describes (its sha256 is another): restore both, or write them "
            "anew with `study results --all`"
        )
    reader = csv.DictReader(io.StringIO(content.decode("utf-8", errors="replace"), newline=""))
    rows = list(reader)
    if tuple(reader.fieldnames or ()) != COLUMNS or any(None in row or None in row.values() for row in rows):
        raise StoreError(f"{file}: its columns are not {', '.join(COLUMNS)}")
    counts = len(rows), sum(row["value"] != "" for row in rows)
    if counts != (record.table.rows, record.table.measured):
        raise StoreError(f"{file} has {counts[0]} rows, {counts[1]} of them measured; {path.name} says otherwise")
    for number, row in enumerate(rows, 2):
        if row["protocol"] not in record.protocols:
            raise StoreError(f"{file}, line {number}: {path.name} has no protocol {row['protocol']!r}")
    return Committed(record, rows)


def as_store(committed: Sequence[Committed]) -> Engine:
    """A store in memory that answers as the one did from which results were committed: runs, arms, points, protocols
    (with their floors) and values. Attempts, training metrics and artefacts are not in it.

    Raises: StoreError where files contradict each other, or bring code or commands of their author's own.
    """
    for one in committed:
        if one.record.config.get("sources") or one.record.config.get("trainer"):
            raise StoreError(
                f"{one.name}.json: this study has components or a trainer of its author's own, which reports and runs "
                "would execute; take a bundle of it instead, `study db import BUNDLE --trust-code`"
            )
    engine = open_store("sqlite://", scratch=True)
    try:
        with writing(engine) as connection:
            for model, rows in _store_rows(committed).items():
                for start in range(0, len(rows), AT_ONCE):
                    connection.execute(insert(model), rows[start : start + AT_ONCE])
    except BaseException:
        engine.dispose()
        raise
    return engine


def _store_rows(committed: Sequence[Committed]) -> dict[type[Any], list[dict[str, Any]]]:
    """Rows by table, in an order that foreign keys allow."""
    measured: dict[str, dict[str, Any]] = {}
    rows: dict[type[Any], list[dict[str, Any]]] = {
        model: [] for model in (Run, Protocol, Arm, Point, Attempt, Evaluation)
    }
    for one in committed:
        _add(one, rows, measured)
    trajectories = dict.fromkeys(row["trajectory"] for row in measured.values())
    rows[Attempt] = [{"trajectory": key, "attempt": 1, "status": "done"} for key in trajectories]
    rows[Evaluation] = list(measured.values())
    return rows


def _add(one: Committed, rows: Mapping[type[Any], list[dict[str, Any]]], measured: dict[str, dict[str, Any]]) -> None:
    """Add the rows of one study and scale, with all arms under its latest run."""
    record, latest = one.record, one.record.runs[-1]
    shared = {name: getattr(record, name) for name in ("study", "scale", "config", "config_hash")}
    command = ["study", "run", record.study, "--scale", record.scale]
    for run in record.runs:
        told = run.model_dump(include={"commit", "dirty", "packages", "machine"})
        own = {"run": run.run, "created": run.created, "seeds": run.seeds, "provenance": told}
        rows[Run].append({**shared, **own, "variant": None, "command": command})
    rows[Protocol] += [{"protocol": k, "run": latest.run, "definition": p} for k, p in record.protocols.items()]
    attributes = {(arm.panel, arm.arm): arm.attributes for arm in record.arms}
    numbers: dict[tuple[str, str, str], int] = {}
    for line, row in enumerate(one.rows, 2):
        key = (row["panel"], row["arm"], row["seed"])
        try:
            if key not in numbers:
                numbers[key] = len(numbers)
                own = {"control": row["control"] == "True", "attributes": attributes[key[:2]], "seed": int(row["seed"])}
                arm = {"run": latest.run, "number": numbers[key], "panel": row["panel"], "arm": row["arm"]}
                rows[Arm].append({**arm, **own})
            point = _point(row)
            rows[Point].append({"run": latest.run, "arm_number": numbers[key], "number": line, **point})
            if row["value"]:
                _measure(one, {**point, "weights": row["weights"], "value": float(row["value"])}, measured)
        except (KeyError, ValueError) as error:
            raise StoreError(f"{record.table.file}, line {line} cannot be read: {error}") from None


def _point(row: Mapping[str, str]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("stage", "trajectory", "evaluation", "protocol", "metric")}
    epochs = {name: float(row[name]) for name in ("stage_epoch", "epoch")}
    return {**kept, **epochs, "step": int(row["step"]), "nfe": int(row["nfe"]) if row["nfe"] else None}


def _measure(one: Committed, point: Mapping[str, Any], measured: dict[str, dict[str, Any]]) -> None:
    """Note an evaluation, which several arms and studies may share."""
    kept = ("evaluation", "trajectory", "step", "weights", "protocol", "metric", "nfe", "value")
    row = {**{name: point[name] for name in kept}, "attempt": 1, "seconds": None}
    known = measured.setdefault(point["evaluation"], row)
    if repr(known["value"]) != repr(row["value"]):
        raise StoreError(
            f"evaluation {row['evaluation']} is {row['value']!r} in {one.name}.csv and {known['value']!r} elsewhere: "
            "write all of them anew from one store with `study results --all`"
        )
