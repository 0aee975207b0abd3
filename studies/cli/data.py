"""``study data``: data sets of one's own."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli.options import JsonOpt
from studies.errors import StudyError

if TYPE_CHECKING:
    from meanflow_core.data.layout import Meta

data = typer.Typer(no_args_is_help=True, help="Data sets of your own, in $STUDY_DATA or ./study_data.")
NameArg = Annotated[str, typer.Argument(metavar="NAME", help="What the data set is called.")]


class Known(StrEnum):
    cifar10 = "cifar10"
    mnist = "mnist"


class Split(StrEnum):
    train = "train"
    test = "test"


@data.command("add")
def add(
    name: NameArg,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A folder of images (its subfolders are the classes), or a .npy or .npz file."
        ),
    ],
    kind: Annotated[
        Known | None, typer.Option("--as", help="SOURCE is the folder in which torchvision keeps this data set.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="The labels of a .npy file, from 0.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=1, max=4096, help="Scale and cut images to this many pixels a side.")
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="Of CIFAR-10 and MNIST.")] = Split.train,
    json: JsonOpt = False,
) -> None:
    """Convert a data set, once, to the layout from which training reads it, and print how a study names it."""
    from meanflow_core.data.layout import write
    from meanflow_core.data.sources import read_source
    from studies.cli.output import print_json

    if not source.exists():
        raise StudyError(f"there is no file or folder {source}")
    if kind is not None and (labels or size):
        raise StudyError(f"--as {kind.value}: it has its own labels and size; leave out --labels and --size")
    if kind is None and split is not Split.train:
        raise StudyError(f"--split {split.value}: only with --as cifar10 or --as mnist")
    found = read_source(source, kind.value if kind else None, labels, size, split is Split.train)
    meta, fingerprint = write(name, found.batches(), found.n, found.said, found.labels, found.classes, found.levels)
    if json:
        print_json(_record(name, meta, fingerprint))
        return
    sys.stdout.write(f"{_said(name, meta)}\nin a study:  data: {_as_written(name, fingerprint)}\n")


@data.command("list")
def list_data(json: JsonOpt = False) -> None:
    """Print the data sets that are there."""
    from rich.table import Table

    from meanflow_core.data.layout import LayoutError, data_root, names, read_meta
    from studies.cli.output import console, print_json

    there, damaged = [], []
    for name in names():
        try:
            there.append((name, *read_meta(name)))
        except LayoutError as error:
            damaged.append(str(error))
    for said in damaged:
        sys.stderr.write(f"{said}\n")
    if json:
        print_json([_record(*one) for one in there])
        return
    if not there:
        sys.stdout.write(f"there is no data set in {data_root()}; `study data add NAME SOURCE` makes one\n")
        return
    table = Table("name", "samples", "shape", "classes", "from", "fingerprint")
    for name, meta, fingerprint in there:
        shape, classes = "×".join(map(str, meta.shape)), str(len(meta.classes) or "–")
        table.add_row(name, f"{meta.n:,}", shape, classes, meta.source, fingerprint)
    console().print(table)


@data.command("show")
def show(
    name: NameArg,
    out: Annotated[Path | None, typer.Option("--out", help="The picture's file. Default: NAME.png.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=100, help="Rows of samples.")] = 8,
    columns: Annotated[int, typer.Option("--columns", min=1, max=100, help="Columns of samples.")] = 8,
    json: JsonOpt = False,
) -> None:
    """Print what is known of a data set, and draw some of its samples, a class a row where there are classes."""
    from meanflow_core.data.layout import read_meta
    from reports.samplesheet import save_sheet
    from studies.cli.output import print_json

    meta, fingerprint = read_meta(name)
    record = _record(name, meta, fingerprint)
    path = None
    if len(meta.shape) == 3 and meta.shape[0] in (1, 3):
        path = save_sheet(name, meta, rows, columns, out or Path(f"{name}.png"))
    elif out is not None:
        raise StudyError(f"'{name}' has samples of shape {meta.shape}, which are no images")
    if json:
        print_json({**record, "picture": str(path) if path else None})
        return
    sys.stdout.write(f"{_said(name, meta)}\nin a study:  data: {_as_written(name, fingerprint)}\n")
    if meta.classes:
        sys.stdout.write(f"classes: {', '.join(meta.classes)}\n")
    if path:
        sys.stdout.write(f"wrote {path}\n")


@data.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all that are there.")] = None,
    json: JsonOpt = False,
) -> None:
    """Compare every file of data sets with the checksums that were taken when they were added."""
    from meanflow_core.data import layout
    from studies.cli.output import print_json

    asked = names or layout.names()
    if not asked:
        raise StudyError(f"there is no data set in {layout.data_root()}")
    found = {name: layout.problems(name, thorough=True) for name in asked}
    if json:
        print_json(found)
    else:
        for name, wrong in found.items():
            sys.stdout.write("".join(f"{name}: {line}\n" for line in wrong) or f"{name}: as it was added\n")
    if any(found.values()):
        sys.exit(1)


def _as_written(name: str, fingerprint: str) -> str:
    return f"{{name: stored, dataset: {name}, fingerprint: {fingerprint}}}"


def _said(name: str, meta: Meta) -> str:
    kind = "images" if meta.levels else "values"
    classes = f", {len(meta.classes)} classes" if meta.classes else ", no classes"
    return f"{name}: {meta.n:,} {kind} of shape {'×'.join(map(str, meta.shape))}{classes} (from {meta.source})"


def _record(name: str, meta: Meta, fingerprint: str) -> dict[str, Any]:
    return {"name": name, "fingerprint": fingerprint, **meta.model_dump(mode="json")}
