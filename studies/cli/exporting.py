"""``study export``: runs for other trackers."""

from __future__ import annotations

import importlib.util
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from studies.cli.filters import OneScaleOpt, OneSeedsOpt, OneVariantOpt, WhatArg, chosen
from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt
from studies.errors import StudyError


class Tracker(StrEnum):
    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"


NEEDS = {Tracker.tensorboard: "tensorboardX", Tracker.mlflow: "mlflow", Tracker.wandb: "wandb"}
DEFAULTS = {Tracker.tensorboard: "tensorboard", Tracker.mlflow: "sqlite:///mlflow.db", Tracker.wandb: "."}


def export(
    tracker: Annotated[Tracker, typer.Argument(metavar="TRACKER", help="tensorboard, mlflow or wandb.")],
    what: WhatArg = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="A folder, or MLflow's tracking URI. Default: tensorboard, sqlite:///mlflow.db, or . for wandb.",
            show_default=False,
        ),
    ] = None,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    seeds: OneSeedsOpt = None,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Copy what was logged and measured to another tracker: a run an arm and seed, with its resolved configuration,
    losses and evaluations over steps. Exporting again brings what is new."""
    from results.layout import Home
    from studies.cli.output import print_json
    from studies.cli.store import opened
    from sweeps.exports.series import series_of
    from sweeps.selection import select, stored_studies

    if importlib.util.find_spec(NEEDS[tracker]) is None:
        package = "tensorboardX" if tracker is Tracker.tensorboard else f"'meanflow-study[{tracker.value}]'"
        raise StudyError(f"{tracker.value} needs a package that is not here: pip install {package}")
    asked, target = chosen(what, scale, variant, seeds), to or DEFAULTS[tracker]
    with opened(Home(home)) as engine:
        runs = series_of(engine, select(stored_studies(engine), asked))
        if tracker is Tracker.tensorboard:
            from sweeps.exports import tensorboard

            written, same = tensorboard.write(runs, Path(target))
        elif tracker is Tracker.wandb:
            from sweeps.exports import wandb

            written, same = wandb.write(runs, Path(target))
        else:
            written, same = _to_mlflow(runs, target)
    if json:
        print_json({"tracker": tracker.value, "to": target, "written": written, "unchanged": same})
        return
    sys.stdout.write(f"{tracker.value}: wrote {written} runs to {target}; {same} were there as they are\n")


def _to_mlflow(runs: object, uri: str) -> tuple[int, int]:
    from mlflow.exceptions import MlflowException

    from sweeps.exports import mlflow

    try:
        return mlflow.write(runs, uri)  # type: ignore[arg-type]
    except MlflowException as error:
        said = str(error).strip().splitlines()[0][:300]
        raise StudyError(f"--to {uri}: MLflow does not take it: {said}") from None
