"""``study data``: data sets of one's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli.options import JsonOpt, place
from studies.errors import StudyError

if TYPE_CHECKING:
    from meanflow_core.arrays import Array
    from meanflow_core.data.account import Account, Values
    from meanflow_core.data.layout import Meta

CLASSES_SHOWN = 20

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
            metavar="SOURCE",
            parser=place,
            help="A folder of images (its subfolders are the classes), or a .npy or .npz file.",
        ),
    ],
    kind: Annotated[
        Known | None, typer.Option("--as", help="SOURCE is the folder in which torchvision keeps this data set.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", parser=place, metavar="FILE", help="The labels of a .npy file, from 0.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=1, max=4096, help="Scale and cut images to this many pixels a side.")
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="Of CIFAR-10 and MNIST.")] = Split.train,
    background: Annotated[
        str | None,
        typer.Option(
            "--background",
            metavar="COLOUR",
            help="What lies behind transparent pixels of images: black, '#808080', ... Default: white.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Add nothing where anything is left out, or looks wrong.")
    ] = False,
    json: JsonOpt = False,
) -> None:
    """Convert a data set, once, to the layout from which training reads it, and print what was taken and left out, and
    how a study names it."""
    from meanflow_core.data.account import Account
    from meanflow_core.data.layout import vacant, write
    from meanflow_core.data.sources import read_source
    from studies.cli.output import print_json

    if not source.exists():
        raise StudyError(f"there is no file or folder {source}")
    if kind is not None and not (labels is None and size is None and background is None):
        itself = "it has its own labels and size, and nothing transparent"
        raise StudyError(f"--as {kind.value}: {itself}; leave out --labels, --size and --background")
    if kind is None and split is not Split.train:
        raise StudyError(f"--split {split.value}: only with --as cifar10 or --as mnist")
    vacant(name)  # before much is read
    account = Account()
    found = read_source(source, kind.value if kind else None, labels, size, split is Split.train, background, account)
    batches = account.measured(found.batches(), images=found.levels is not None)
    if strict:
        batches = _strictly(batches, account)
    meta, fingerprint = write(
        name, batches, found.n, found.said, found.labels, found.classes, found.levels, found.background
    )
    if json:
        print_json({**_record(name, meta, fingerprint), **account.record()})
        return
    for line in account.said("warning"):
        sys.stderr.write(f"warning: {line}\n")
    lines = [_said(name, meta), *_classes_line(meta, found.labels), _values_line(meta, account.values)]
    lines += [f"{group}: {line}" for group in ("left out", "changed") for line in account.said(group)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.write(f"in a study:  data: {_as_written(name, fingerprint)}\n")


@data.command("list")
def list_data(json: JsonOpt = False) -> None:
    """Print the data sets that are there."""
    from rich.markup import escape
    from rich.table import Table

    from meanflow_core.data.latentfiles import are_latents
    from meanflow_core.data.layout import LayoutError, data_root, names, read_meta
    from studies.cli.output import console, print_json

    there, others = [], []
    for name in names():
        if are_latents(data_root() / name):
            others.append(f"{name}: latents, which `study data check {name}` looks at")
            continue
        try:
            there.append((name, *read_meta(name)))
        except LayoutError as error:
            others.append(str(error))
    for said in others:
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
        table.add_row(name, f"{meta.n:,}", shape, classes, escape(meta.source), fingerprint)
    console().print(table)


@data.command("show")
def show(
    name: NameArg,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=place, metavar="PATH", help="The picture's file. Default: NAME.png."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=100, help="Rows of samples.")] = 8,
    columns: Annotated[int, typer.Option("--columns", min=1, max=100, help="Columns of samples.")] = 8,
    json: JsonOpt = False,
) -> None:
    """Print what is known of a data set, and draw some of its samples, a class a row where there are classes."""
    from meanflow_core.data.account import shown
    from meanflow_core.data.latentfiles import are_latents
    from meanflow_core.data.layout import folder_of, read_meta
    from reports.samplesheet import save_sheet
    from studies.cli.output import print_json

    if are_latents(folder_of(name)):
        raise StudyError(f"'{name}' holds latents, which have no picture; `study data check {name}` looks at them")
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
        sys.stdout.write(f"classes: {', '.join(map(shown, meta.classes))}\n")
    if path:
        sys.stdout.write(f"wrote {path}\n")


@data.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all that are there.")] = None,
    json: JsonOpt = False,
) -> None:
    """Read data sets whole, latents too: every file against the checksum that was taken when it was added, and what is
    in it."""
    from meanflow_core.data import latentfiles, layout
    from studies.cli.output import print_json

    asked = names or layout.names()
    if not asked:
        raise StudyError(f"there is no data set in {layout.data_root()}")
    latents = {name for name in asked if latentfiles.are_latents(layout.folder_of(name))}
    found = {
        name: latentfiles.problems(layout.folder_of(name), None, thorough=True)
        if name in latents
        else layout.problems(name, thorough=True)
        for name in asked
    }
    if json:
        print_json(found)
    else:
        for name, wrong in found.items():
            right = "nothing is wrong with these latents" if name in latents else "as it was added"
            sys.stdout.write("".join(f"{name}: {line}\n" for line in wrong or [right]))
    if any(found.values()):
        sys.exit(1)


def _strictly(batches: Iterator[Array], account: Account) -> Iterator[Array]:
    """The batches, as long as there is no doubt. Raises: StudyError, before the first or after the last."""
    yield from _undoubted(account)
    yield from batches
    yield from _undoubted(account)


def _undoubted(account: Account) -> tuple[()]:
    if doubts := account.doubts():
        listed = "".join(f"\n  - {line}" for line in doubts)
        raise StudyError(f"--strict: nothing was added{listed}")
    return ()


def _classes_line(meta: Meta, labels: Array | None) -> Iterator[str]:
    """The classes and how many samples each has, as far as a line or two hold them."""
    import numpy as np

    if labels is not None:
        numbers = np.bincount(labels, minlength=len(meta.classes))
        said = [f"{name} ({n:,})" for name, n in zip(meta.classes, numbers, strict=True)]
        more = f", … ({len(said) - CLASSES_SHOWN:,} more)" if len(said) > CLASSES_SHOWN else ""
        yield f"classes: {', '.join(said[:CLASSES_SHOWN])}{more}"


def _values_line(meta: Meta, values: Values) -> str:
    if meta.levels:
        return f"values: {values.low:g} to {values.high:g}; 0 to {meta.levels} are trained on as −1 to 1"
    spread = f"mean {values.mean:.3g}, standard deviation {values.std:.3g}"
    return f"values: {values.low:.3g} to {values.high:.3g}, {spread}; trained on as they are"


def _as_written(name: str, fingerprint: str) -> str:
    from studies.yamlfile import parse_value

    dataset = name if parse_value(name, name) == name else f'"{name}"'
    return f'{{name: stored, dataset: {dataset}, fingerprint: "{fingerprint}"}}'  # unquoted, 123e45 is a number


def _said(name: str, meta: Meta) -> str:
    from meanflow_core.words import counted

    samples = counted(meta.n, "image" if meta.levels else "sample")
    classes = counted(len(meta.classes), "class", "classes") if meta.classes else "no classes"
    return f"{name}: {samples} of shape {'×'.join(map(str, meta.shape))}, {classes} (from {meta.source})"


def _record(name: str, meta: Meta, fingerprint: str) -> dict[str, Any]:
    return {"name": name, "fingerprint": fingerprint, **meta.model_dump(mode="json")}
