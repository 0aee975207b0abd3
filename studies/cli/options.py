"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudyArg = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A study's name (see `study list`) or a file of your own, ./mine.yaml."),
]
StudiesArg = Annotated[
    list[str],
    typer.Argument(metavar="STUDY...", help="Names (see `study list`) or files of your own, ./mine.yaml."),
]
HomeOpt = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="STUDY_HOME",
        help="Folder that holds runs, checkpoints and the store.",
        show_default=True,
    ),
]
ScaleOpt = Annotated[
    str | None,
    typer.Option("--scale", help="How big: smoke, cpu, truth, paper, ... Default: gpu if there is one, else cpu."),
]
SeedsOpt = Annotated[
    str | None,
    typer.Option("--seeds", metavar="LIST", help="Which seeds, e.g. 0-5 or 0,3,7. Default: the scale's."),
]
OverrideOpt = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        metavar="KEY=VALUE",
        help="Change a setting, e.g. -o steps_per_epoch=80, or the sweep, e.g. -o space.schedule_power=[0.25,4]. "
        "Needs --as.",
    ),
]
VariantOpt = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Name for a run with overrides, so that it never mixes with the study."),
]
StoredVariantOpt = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="The variant of that name instead of the study itself."),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

DEFAULT_HOME = Path("study_home")
