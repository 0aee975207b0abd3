"""``study export``: runs for other trackers."""

from __future__ import annotations

import importlib.util
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meanflow_core.words import counted
from studies.cli.filters import OneScaleOpt, OneSeedsOpt, OneVariantOpt, WhatArg, chosen
from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt
from studies.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sweeps.exports.series import Series


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
    losses and evaluations over steps. Exporting again brings what is new; one that was interrupted goes on."""
    from results.layout import Home
    from studies.cli.output import print_json
    from studies.cli.progress import tracked
    from studies.cli.store import opened
    from sweeps.exports.series import series_of
    from sweeps.exports.server import shown
    from sweeps.selection import select, stored_studies

    if importlib.util.find_spec(NEEDS[tracker]) is None:
        package = "tensorboardX" if tracker is Tracker.tensorboard else f"'meanflow-study[{tracker.value}]'"
        raise StudyError(f"{tracker.value} needs a package that is not here: pip install {package}")
    asked, target = chosen(what, scale, variant, seeds), to or DEFAULTS[tracker]
    with opened(Home(home)) as engine:
        selected = select(stored_studies(engine), asked)
        total = sum(len(one.arms) for one in selected)
        runs = tracked(series_of(engine, selected), f"exporting to {tracker.value}", total)
        try:
            written, same = WRITERS[tracker](runs, target)
        except OSError as error:
            said = f"cannot write {error.filename or 'there'}: {error.strerror or error}"
            raise StudyError(f"--to {shown(target)}: {said}") from None
    if json:
        print_json({"tracker": tracker.value, "to": target, "written": written, "unchanged": same})
        return
    said = f"wrote {counted(written, 'run')} to {shown(target)}; there already, as they are: {same}"
    sys.stdout.write(f"{tracker.value}: {said}\n")


def _to_mlflow(runs: Iterable[Series], uri: str) -> tuple[int, int]:
    from sweeps.exports import mlflow
    from sweeps.exports.server import shown

    mlflow.check_server(uri)
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        return mlflow.write(runs, uri)
    except (MlflowException, RequestException) as error:
        raise _refused(f"--to {shown(uri)}: MLflow does not take it", error) from None


def _to_tensorboard(runs: Iterable[Series], to: str) -> tuple[int, int]:
    from sweeps.exports import tensorboard

    return tensorboard.write(runs, Path(to))


def _to_wandb(runs: Iterable[Series], to: str) -> tuple[int, int]:
    from sweeps.exports import wandb

    wandb.check_server()
    from wandb.errors import Error

    try:
        return wandb.write(runs, Path(to))
    except Error as error:
        raise _refused("Weights & Biases does not take it", error) from None


def _refused(what: str, error: Exception) -> StudyError:
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    return StudyError(f"{what}: {said}. Runs that are whole there stay; the same command goes on")


WRITERS = {Tracker.tensorboard: _to_tensorboard, Tracker.mlflow: _to_mlflow, Tracker.wandb: _to_wandb}
