"""The record of a run, written before anything is executed: what was asked for, by which code, on which machine."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from meanflow_core.config import Protocol, key_of
from results.layout import FORMAT, Home
from studies.arms import Arm
from studies.schema import ResolvedStudy
from sweeps.attempt import write_atomically
from sweeps.jobs import now
from sweeps.provenance import Provenance


def config_hash(study: ResolvedStudy) -> str:
    """Key of the resolved configuration without its seeds and what only reports ask for; what is at its default is
    left out, so that a new option of the schema moves no key. The hash of a source stands in its components' names."""
    said = {"seeds", "heading", "paper_values", "sources"}
    return key_of(study.model_dump(mode="json", exclude=said, exclude_defaults=True))


def new_run_name() -> str:
    """Sortable by time, unique by chance."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


def arm_record(arm: Arm) -> dict[str, Any]:
    """One line of ``arms.jsonl``."""
    return {
        "study": arm.study,
        "scale": arm.scale,
        "variant": arm.variant,
        "panel": arm.panel,
        "arm": arm.name,
        "seed": arm.seed,
        "control": arm.control,
        "attributes": arm.attributes,
        "stages": [
            {
                "name": s.name,
                "trajectory": s.trajectory.key,
                "start_step": s.start_step,
                "stop_step": s.stop_step,
                "start_epoch": s.start_epoch,
                "stop_epoch": s.stop_epoch,
            }
            for s in arm.stages
        ],
        "points": [
            {
                "stage": p.stage,
                "stage_epoch": p.stage_epoch,
                "epoch": p.epoch,
                "step": p.checkpoint.step,
                "trajectory": p.checkpoint.trajectory,
                "evaluation": p.evaluation,
                "protocol": p.protocol.key,
                "metric": p.protocol.metric_label,
                "nfe": p.protocol.nfe,
            }
            for p in arm.points
        ],
    }


def protocol_records(arms: Iterable[Arm]) -> dict[str, dict[str, Any]]:
    """``protocols.json``: every protocol of the arms, resolved."""
    protocols: dict[str, Protocol] = {}
    for arm in arms:
        for point in arm.points:
            protocols.setdefault(point.protocol.key, point.protocol)
    return {key: {**p.dump(), "label": p.metric_label} for key, p in sorted(protocols.items())}


def record_run(
    home: Home,
    study: ResolvedStudy,
    arms: Sequence[Arm],
    variant: str | None,
    command: Sequence[str],
    provenance: Provenance,
) -> Path:
    """Write ``runs/<run>/`` aside and publish it by a rename. Returns: its folder."""
    name = new_run_name()
    folder, aside = home.run(name), home.runs / f".{name}"
    aside.mkdir(parents=True)
    try:
        for file, content in provenance.files.items():
            (aside / file).write_bytes(content)
        record = {
            "format": FORMAT,
            "run": name,
            "created": now(),
            "command": list(command),
            "study": study.study,
            "scale": study.scale,
            "variant": variant,
            "seeds": list(study.seeds),
            "config": study.model_dump(mode="json"),
            "config_hash": config_hash(study),
            "provenance": provenance.record,
        }
        write_atomically(aside / "arms.jsonl", "".join(json.dumps(arm_record(a)) + "\n" for a in arms))
        write_atomically(aside / "protocols.json", json.dumps(protocol_records(arms), indent=1))
        write_atomically(aside / "run.json", json.dumps(record, indent=1))
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder
