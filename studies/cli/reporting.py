"""``study report``, ``claims`` and ``results``. None of them loads torch."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt, StoredVariantOpt, StudyArg
from studies.errors import StudyError

StoredScaleOpt = Annotated[str | None, typer.Option("--scale", help="Default: that of the latest run.")]


class TableFormat(StrEnum):
    csv = "csv"
    md = "md"
    latex = "latex"
    parquet = "parquet"


def report(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="A study's name or file; or give --figure.")
    ] = None,
    figure: Annotated[int | None, typer.Option("--figure", help="Number of a figure of the paper.")] = None,
    scale: StoredScaleOpt = None,
    variant: StoredVariantOpt = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the pictures.")] = Path("report"),
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Draw a figure from the store: PNG, PDF, SVG, and the CSV behind it. Says what is missing."""
    from reports.build import build_figure
    from results.layout import Home
    from studies.cli.choose import study_of_figure
    from studies.cli.output import print_json
    from studies.cli.store import opened

    name = _one_of(study, figure, study_of_figure)
    place = Home(home)
    with opened(place) as engine:
        drawn = build_figure(engine, place, study=name, scale=scale, variant=variant, out=out)
    if json:
        files = [str(path) for path in drawn.files]
        print_json(
            {
                "study": name,
                "scale": drawn.run.scale,
                "run": drawn.run.run,
                "files": files,
                "missing": drawn.missing,
            }
        )
        return
    sys.stdout.write(f"{name}: {drawn.chosen}\n")
    for line in drawn.missing:
        sys.stdout.write(f"missing: {line}\n")
    for path in drawn.files:
        sys.stdout.write(f"wrote {path}\n")


def _one_of(study: str | None, figure: int | None, by_figure: object) -> str:
    """The name of the study meant. Raises: StudyError."""
    from studies.cli.choose import source_of

    if (study is None) == (figure is None):
        raise StudyError("say which: a study's name, or --figure N (see `study list`)")
    if figure is not None:
        assert callable(by_figure)
        return str(by_figure(figure))
    assert study is not None
    return source_of(study).name


def claims(
    study: StudyArg,
    scale: StoredScaleOpt = None,
    variant: StoredVariantOpt = None,
    home: HomeOpt = DEFAULT_HOME,
    markdown: Annotated[bool, typer.Option("--md", help="Print Markdown.")] = False,
    json: JsonOpt = False,
) -> None:
    """Print what the paper claims, the test declared for it, what was found, and the verdict at this scale."""
    from reports.build import build_claims
    from reports.text import markdown as as_markdown
    from reports.text import show
    from results.layout import Home
    from studies.cli.choose import source_of
    from studies.cli.output import console, print_json
    from studies.cli.store import opened

    name = source_of(study).name
    place = Home(home)
    with opened(place) as engine:
        found = build_claims(engine, place, study=name, scale=scale, variant=variant)
    if json:
        print_json(
            {
                "study": name,
                "scale": found.run.scale,
                "run": found.run.run,
                "flags": found.flags,
                "claims": [verdict.to_json() for verdict in found.verdicts],
            }
        )
    elif markdown:
        sys.stdout.write(as_markdown(found.verdicts, found.flags) + "\n")
    else:
        out = console()
        out.print(f"{name}: {found.chosen}", markup=False)
        show(found.verdicts, found.flags, out)


def results(
    study: Annotated[str, typer.Option("--study", metavar="STUDY", help="A study's name or file.")],
    scale: Annotated[str | None, typer.Option("--scale", help="Default: all that were run.")] = None,
    variant: StoredVariantOpt = None,
    fmt: Annotated[TableFormat, typer.Option("--format", help="How to write the table.")] = TableFormat.csv,
    out: Annotated[Path | None, typer.Option("--out", help="A file; by default the standard output.")] = None,
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """Write every measured evaluation of a study, one row each, without times or attempts."""
    from results.export import write_table
    from results.layout import Home
    from results.queries import results_table
    from studies.cli.choose import source_of
    from studies.cli.store import opened

    name = source_of(study).name
    with opened(Home(home)) as engine:
        frame = results_table(engine, name, scale, variant)
    if frame.empty:
        at = f" at scale '{scale}'" if scale else ""
        raise StudyError(f"nothing of '{name}'{at} is measured in {home}; run `study run {study}` first")
    if fmt is TableFormat.parquet and out is None:
        raise StudyError("parquet is written to a file: add --out results.parquet")
    write_table(frame, fmt.value, out)
    if out is not None:
        sys.stderr.write(f"wrote {len(frame)} rows to {out}\n")
