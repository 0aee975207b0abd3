"""An attempt's own folder: what it writes, and how its end is recorded."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from results.layout import Home, TrajectoryDir
from sweeps.jobs import Done, Job, WantedEvaluation

if TYPE_CHECKING:
    from meanflow_core.evaluation.artefact import Artefact

STAGED = "staged-"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or none; replaces what is there. Processes of other machines and containers may have our
    number."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with aside.open("wb") as f:
        f.write(content.encode() if isinstance(content, str) else content)
        f.flush()
        os.fsync(f.fileno())
    aside.replace(path)


def describe_trajectory(folder: TrajectoryDir, job: Job) -> None:
    """Write ``trajectory.json`` unless it is there."""
    if folder.description.exists():
        return
    folder.root.mkdir(parents=True, exist_ok=True)
    record = {
        "format": 1,
        "trajectory": job.trajectory,
        "parent": job.parent._asdict() if job.parent else None,
        "seed": job.seed,
        "horizon_steps": job.horizon_steps,
        "dynamics": job.dynamics.dump(),
    }
    write_atomically(folder.description, json.dumps(record, indent=1))


def attempt_numbers(folder: TrajectoryDir) -> list[int]:
    """Of the attempts that there have been on a trajectory; each got one more than the highest."""
    try:
        return [int(path.name) for path in folder.attempts.iterdir() if path.name.isdigit()]
    except FileNotFoundError:
        return []


def evaluations_in(metrics: bytes) -> set[str]:
    """Keys of the evaluations that (a part of) a metrics.jsonl records. Lines that are cut off or damaged count for
    nothing, here as in the store."""
    keys = set()
    for line in metrics.splitlines(keepends=True):
        if line.startswith(b'{"type": "evaluation"') and line.endswith(b"\n"):
            with contextlib.suppress(ValueError, KeyError):
                keys.add(json.loads(line)["evaluation"])
    return keys


def recorded_evaluations(folder: TrajectoryDir) -> set[str]:
    """Keys of the evaluations that the attempts on a trajectory have recorded."""
    return set().union(*(evaluations_in(path.read_bytes()) for path in folder.attempts.glob("*/metrics.jsonl")))


def _npy(artefact: Artefact) -> bytes:
    """An array as the content of an .npy file."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, artefact, allow_pickle=False)
    return content.getvalue()


class Attempt:
    """One execution of a job. Its folder is new and is never overwritten."""

    def __init__(self, home: Home, job: Job) -> None:
        self.job = job
        self.trajectory = home.trajectory(job.trajectory)
        describe_trajectory(self.trajectory, job)
        self.folder = self._new_folder()
        self.number = int(self.folder.name)
        record = {**job.model_dump(mode="json"), "attempt": self.number}
        write_atomically(self.folder / "segment.json", json.dumps(record, indent=1))
        self._metrics: TextIO = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        self.log_path = self.folder / "log.txt"
        self.started = time.monotonic()

    def _new_folder(self) -> Path:
        attempts = self.trajectory.attempts
        attempts.mkdir(parents=True, exist_ok=True)
        number = max(attempt_numbers(self.trajectory), default=0)
        while True:
            number += 1
            folder = self.trajectory.attempt(number)
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue

    def staged(self, name: str) -> Path:
        """A path inside the attempt at which a checkpoint is written before it is published."""
        return self.folder / f"{STAGED}{name}"

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._line({"type": "metrics", "step": step, "values": dict(values)})

    def evaluated(
        self, wanted: WantedEvaluation, value: float, seconds: float, artefact: Artefact | None = None
    ) -> None:
        """Record an evaluation and how long it took. Its artefact is written first, so that whatever is recorded has
        it."""
        protocol = wanted.protocol
        if artefact is not None:
            path = self.trajectory.artefact(self.number, protocol.metric_label, wanted.evaluation)
            write_atomically(path, _npy(artefact))
        self._line(
            {
                "type": "evaluation",
                "evaluation": wanted.evaluation,
                "step": wanted.step,
                "weights": protocol.weights,
                "protocol": protocol.key,
                "metric": protocol.metric_label,
                "nfe": protocol.nfe,
                "value": value,
                "seconds": round(seconds, 4),
            }
        )

    def _line(self, record: Mapping[str, Any]) -> None:
        self._metrics.write(json.dumps(record, allow_nan=False) + "\n")
        self._metrics.flush()

    def close(self, done: Done) -> None:
        """Make the metrics durable, then write ``DONE.json``."""
        os.fsync(self._metrics.fileno())
        self._metrics.close()
        write_atomically(self.folder / "DONE.json", done.model_dump_json(indent=1))
