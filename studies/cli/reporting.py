"""``study report``, ``claims``, ``implications`` and ``results``. None of them loads torch."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meanflow_core.words import counted
from studies.cli.options import DEFAULT_HOME, DataOpt, HomeOpt, JsonOpt, OutOpt, StoredVariantOpt, StudyArg, place
from studies.errors import StudyError

if TYPE_CHECKING:
    from reports.report import Report

StoredScaleOpt = Annotated[str | None, typer.Option("--scale", help="Default: that of the latest run.")]
MarkdownOpt = Annotated[bool, typer.Option("--md", help="Print Markdown.")]


class TableFormat(StrEnum):
    csv = "csv"
    md = "md"
    latex = "latex"
    parquet = "parquet"


def report(
    study: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="A study's name or file; or give --figure or --table.")
    ] = None,
    figure: Annotated[int | None, typer.Option("--figure", help="Number of a figure of the paper.")] = None,
    table: Annotated[int | None, typer.Option("--table", help="Number of a table of the paper.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that the store can give, with an index, index.md, of it and of the rest.")
    ] = False,
    scale: StoredScaleOpt = None,
    variant: StoredVariantOpt = None,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="LABEL", help="Draw another measured metric, e.g. v_error.")
    ] = None,
    nfe: Annotated[int | None, typer.Option("--nfe", min=1, help="At another number of function evaluations.")] = None,
    out: OutOpt = Path("report"),
    data: DataOpt = None,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Make a study's figure (PNG, PDF, SVG, and the CSV behind it) and its table (Markdown, LaTeX, CSV) from the store.
    Says what is missing.

    Where true errors are measured, the figure is drawn with them too (..._truth). Beside a table stands the order of
    its rows (..._orders.csv).
    """
    if everything:
        if study or figure or table or variant or metric or nfe:
            raise StudyError(
                "--all reports whatever is stored; besides it give only --scale, --out, --from, --home and --json"
            )
        _report_everything(home, data, scale, out, json)
        return
    name, only_scale = _one_of(study, figure, table, home, data)
    only: Literal["figure", "table"] | None = "figure" if figure else "table" if table else None
    if only == "table" and (metric or nfe):
        raise StudyError("--metric and --nfe draw a figure by another metric; leave them out with --table")
    made = _write_report(
        home, data, study=name, scale=scale or only_scale, variant=variant, metric=metric, nfe=nfe, figure=figure,
        only=only, out=out, asked=study,
    )  # fmt: skip
    _print_report(name, made, json)


def _write_report(home: Path, data: Path | None, **wanted: Any) -> Report:
    """Write what `reports.report.build_report` makes of the store of a home, or of committed results."""
    from reports.report import build_report
    from studies.cli.store import reported

    with reported(home, data, {wanted["study"]}) as (engine, place):
        return build_report(engine, place, **wanted)


def _print_report(name: str, made: Report, json: bool) -> None:
    """The table and the ranking, then what is missing and which files were written."""
    from studies.cli.output import console, print_json

    if json:
        about = {"study": name, "scale": made.run.scale, "run": made.run.run}
        tables = {"table": made.table.records} if made.table else {}
        print_json(
            {
                **about,
                "files": [str(path) for path in made.files],
                "missing": made.missing,
                "notes": made.notes,
                **tables,
            }
        )
        return
    sys.stdout.write(f"{name}: {made.chosen}\n")
    if made.table:
        from reports.tableformats import show

        show(made.table.document, console())
    if made.ranking:
        from reports.rankingtext import plain

        console().print(plain(made.ranking.rankings), markup=False, highlight=False, soft_wrap=True)
    lines = [*(f"note: {phrase}" for phrase in made.notes), *(f"missing: {phrase}" for phrase in made.missing)]
    sys.stdout.write("\n".join([*lines, *(f"wrote {path}" for path in made.files)]) + "\n")


def _report_everything(home: Path, data: Path | None, scale: str | None, out: Path, json: bool) -> None:
    """What the store can give, into one folder; progress goes to standard error."""
    from reports.everything import build_everything
    from studies.cli.output import print_json
    from studies.cli.store import reported

    with reported(home, data) as (engine, place):
        made = build_everything(engine, place, scale=scale, out=out, say=_say, record=data is None)
    if json:
        print_json({"index": str(made.index), "files": [str(path) for path in made.files], "missing": made.missing})
        return
    lines = [f"missing: {phrase}" for phrase in made.missing]
    lines.append(f"wrote {counted(len(made.files), 'file')}; {made.index} lists them")
    sys.stdout.write("\n".join(lines) + "\n")


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def _one_of(
    study: str | None, figure: int | None, table: int | None, home: Path, data: Path | None
) -> tuple[str, str | None]:
    """The name of the study meant, and the scale where only one makes the figure or table. Raises: StudyError."""
    from studies.cli.choose import study_of_figure
    from studies.cli.store import named_in

    if study is not None and figure is None and table is None:
        return named_in(study, home, data), None
    if figure is not None and study is None and table is None:
        return study_of_figure(figure)
    if table is not None and study is None and figure is None:
        return study_of_figure(table, table=True)
    raise StudyError("say which: a study's name, --figure N or --table N (see `study list`)")


def claims(
    study: StudyArg,
    scale: StoredScaleOpt = None,
    variant: StoredVariantOpt = None,
    data: DataOpt = None,
    home: HomeOpt = DEFAULT_HOME,
    markdown: MarkdownOpt = False,
    json: JsonOpt = False,
) -> None:
    """Print what the paper claims, the test declared for it, what was found, and the verdict at this scale."""
    from reports.build import build_claims
    from reports.text import markdown as as_markdown
    from reports.text import show
    from studies.cli.output import console, print_json
    from studies.cli.store import named_in, reported

    name = named_in(study, home, data)
    with reported(home, data, {name}) as (engine, place):
        found = build_claims(engine, place, study=name, scale=scale, variant=variant, record=data is None, asked=study)
    if json:
        print_json(
            {
                "study": name,
                "scale": found.run.scale,
                "run": found.run.run,
                "flags": found.flags,
                "notes": found.notes,
                "claims": [verdict.to_json() for verdict in found.verdicts],
            }
        )
    elif markdown:
        sys.stdout.write(as_markdown(found.verdicts, found.flags, found.notes) + "\n")
    else:
        out = console()
        out.print(f"{name}: {found.chosen}", markup=False)
        show(found.verdicts, found.flags, out, found.notes)


def implications(
    scale: StoredScaleOpt = None,
    data: DataOpt = None,
    home: HomeOpt = DEFAULT_HOME,
    markdown: MarkdownOpt = False,
    json: JsonOpt = False,
) -> None:
    """Sum up what the paper concludes in Sections 4.1 to 4.3 from the verdicts on its claims at one scale."""
    from reports.build import build_implications
    from reports.implications import RULE
    from reports.implicationtext import markdown as as_markdown
    from reports.implicationtext import plain
    from studies.cli.output import print_json
    from studies.cli.store import reported

    with reported(home, data) as (engine, place):
        found = build_implications(engine, place, scale=scale, record=data is None)
    if json:
        sums = [one.model_dump(mode="json") for one in found.sums]
        print_json({"scale": found.scale, "rule": RULE, "flags": found.flags, "implications": sums})
    elif markdown:
        sys.stdout.write(as_markdown(found.sums, found.flags) + "\n")
    else:
        sys.stdout.write(f"{found.chosen}\n\n{plain(found.sums, found.flags)}\n")


def results(
    study: Annotated[str | None, typer.Option("--study", metavar="STUDY", help="A study's name or file.")] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Of every study at every scale: one CSV and its record, to be committed, in --out."),
    ] = False,
    scale: Annotated[str | None, typer.Option("--scale", help="Default: all that were run.")] = None,
    variant: StoredVariantOpt = None,
    fmt: Annotated[TableFormat, typer.Option("--format", help="How to write the table.")] = TableFormat.csv,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=place, metavar="PATH", help="A file (with --all, a folder); by default the standard output."
        ),
    ] = None,
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """Write every measured evaluation of a study, one row each, without times or attempts.

    With --all: of every study and scale without a variant <study>_<scale>.csv, and beside it <study>_<scale>.json,
    which says what made it; the same store gives the same bytes. `study claims --from`, `study report --from` and
    `study audit` read them."""
    if everything:
        if study or variant or fmt is not TableFormat.csv or out is None:
            raise StudyError(
                "--all writes CSV files of whole studies: give --out FOLDER, and besides only --scale, --home"
            )
        _write_committed(home, scale, out)
        return
    if study is None:
        raise StudyError("say which: --study STUDY, or --all (see `study list`)")
    from reports.stored import run_command, scales_there
    from results.export import write_table
    from results.layout import Home
    from results.queries import results_table
    from studies.cli.store import opened, stored_name

    name = stored_name(study, home)
    with opened(Home(home)) as engine:
        frame = results_table(engine, name, scale, variant)
        if frame.empty:
            at = f" at scale '{scale}'" if scale else ""
            there, command = scales_there(engine, scale, [name]), run_command(study, scale, variant)
            raise StudyError(f"nothing of '{name}'{at} is measured in {home}{there}; run `{command}` first")
    if fmt is TableFormat.parquet and out is None:
        raise StudyError("parquet is written to a file: add --out results.parquet")
    write_table(frame, fmt.value, out)
    if out is not None:
        sys.stderr.write(f"wrote {counted(len(frame), 'row')} to {out}\n")


def _write_committed(home: Path, scale: str | None, out: Path) -> None:
    """Both files of every plain run in the store, and what each lacks."""
    from reports.committed import committed_from, seen
    from reports.stored import scales_there
    from results.committed import write, write_seen
    from results.layout import Home
    from results.stored import stored_runs
    from studies.cli.output import hours, say
    from studies.cli.store import opened
    from sweeps.provenance import machine

    with opened(Home(home)) as engine:
        chosen = [run for run in stored_runs(engine) if run.variant is None and scale in (None, run.scale)]
        if not chosen:
            raise StudyError(f"no study without a variant is in {home}{scales_there(engine, scale)}; run one first")
        written = []
        for run in chosen:
            made = committed_from(engine, Home(home), run.study, run.scale, machine())
            table, where = made.record.table, f"{run.study} at scale {run.scale}"
            if not table.measured:
                say(f"{where}: left out, since nothing of it is measured yet")
                continue
            lacks = f", {table.rows - table.measured} not measured yet" if table.measured < table.rows else ""
            took = hours(sum(work.hours for work in made.record.work))
            path, _ = write(made, out)
            written.append((run.study, run.scale))
            say(f"{where}: {counted(table.rows, 'point')}{lacks}, {took} of device time: {path}")
        if written:
            write_seen(seen(Home(home), written), out, written)
