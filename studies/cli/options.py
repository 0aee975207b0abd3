"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


def place(text: str | Path) -> Path:
    """A path that a user gives. An empty one, often an unset variable of the shell, would mean the working folder."""
    if not str(text):
        raise typer.BadParameter("it is empty; give a path, or leave the option out for its default")
    return Path(text)


StudyArg = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A study's name (see `study list`) or a file of your own, ./mine.yaml."),
]
StudiesArg = Annotated[
    list[str],
    typer.Argument(metavar="STUDY", help="Names (see `study list`) or files of your own, ./mine.yaml."),
]
HomeOpt = Annotated[
    Path,
    typer.Option(
        "--home",
        parser=place,
        metavar="PATH",
        envvar="STUDY_HOME",
        help="Folder that holds runs, checkpoints and the store.",
        show_default=True,
    ),
]
ScaleOpt = Annotated[
    str | None,
    typer.Option(
        "--scale",
        help="How big: smoke, cpu, truth, paper, ... Default: gpu where the study has it and there is one, else cpu.",
    ),
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
WorkersOpt = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Jobs at once. Default: as many as the cores allow; one on a GPU."),
]


class BackendName(StrEnum):
    """What executes the jobs of a run."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"
    INLINE = "inline"


BackendOpt = Annotated[
    BackendName,
    typer.Option(
        "--backend",
        help="What executes the jobs: processes of this machine, Ray, SLURM, or, for debugging, the command itself "
        "(inline).",
    ),
]
AddressOpt = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="With --backend ray: a Ray cluster that runs already ('auto' finds this machine's). Default: a Ray of "
        "its own on this machine.",
    ),
]


ClusterOpt = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        envvar="STUDY_CLUSTER",
        metavar="PROFILE",
        help="With --backend slurm: what jobs ask for, a file such as ./mycluster.yaml.",
    ),
]
DetachOpt = Annotated[bool, typer.Option("--detach", help="With --backend slurm: end when all is in the queue.")]
DryRunOpt = Annotated[
    bool, typer.Option("--dry-run", help="With --backend slurm: print the batch scripts, and submit nothing.")
]


class SearchName(StrEnum):
    """How the points of a search are drawn."""

    ASHA = "asha"
    OPTUNA = "optuna"
    RANDOM = "random"


SearchOpt = Annotated[
    SearchName | None,
    typer.Option(
        "--search",
        help="Draw the points: asha stops bad ones early, optuna also draws by what is known, random does neither. "
        "Needs --samples and --as.",
    ),
]
SamplesOpt = Annotated[
    int | None, typer.Option("--samples", min=1, metavar="N", help="How many points --search draws.")
]
PanelOpt = Annotated[
    str | None, typer.Option("--panel", help="The panel that --search looks at. Default: the study's first.")
]
OutOpt = Annotated[Path, typer.Option("--out", parser=place, metavar="PATH", help="Folder for the files.")]
DataOpt = Annotated[
    Path | None,
    typer.Option(
        "--from",
        parser=place,
        metavar="DATA",
        help="From committed results (a folder that `study results --all` wrote, or a CSV in it) instead of a home.",
    ),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

DEFAULT_HOME = Path("study_home")
