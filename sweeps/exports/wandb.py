"""Runs for Weights & Biases: offline, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from sweeps.exports.marks import mark, marked
from sweeps.exports.series import Series
from sweeps.exports.server import check_answers

PROJECT = "meanflow-study"


def check_server() -> None:
    """Raises: StudyError where runs are to be sent at once and no server answers."""
    if os.environ.get("WANDB_MODE") == "online":
        server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        check_answers(server, "Weights & Biases", f"WANDB_BASE_URL={server}")


def write(runs: Iterable[Series], to: Path) -> tuple[int, int]:
    """Log runs into ``to/wandb``, from where `wandb sync` sends them. A run that has changed since the last export is
    another one there, since what was sent cannot be taken back.

    Returns: (runs written, runs left alone).
    """
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    written = same = 0
    for run in runs:
        folder = to / "wandb" / "exported" / run.key
        if marked(folder, run):
            same += 1
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for interrupted in (to / "wandb").glob(f"offline-run-*-{run.digest}"):
            shutil.rmtree(interrupted)
        made = wandb.init(
            project=PROJECT, group=run.group, name=run.name, id=run.digest, config=run.parameters, dir=str(to),
            mode=mode, settings=wandb.Settings(silent=True),
        )  # fmt: skip
        for step, values in groupby(run.values, key=lambda value: value.step):
            made.log({value.name: value.value for value in values}, step=step)
        made.finish()
        mark(folder, run)
        written += 1
    return written, same
