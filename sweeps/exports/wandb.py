"""Runs for Weights & Biases: offline, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from sweeps.exports.marks import mark, marked
from sweeps.exports.series import Series

PROJECT = "meanflow-study"


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
