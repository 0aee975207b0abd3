"""The typer application and its commands."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from meanflow_core.words import did_you_mean
from studies.cli import (
    admin,
    auditing,
    authoring,
    cancelling,
    data,
    exporting,
    inspect_,
    keeping,
    logs,
    looking,
    planning,
    reporting,
    retrying,
    running,
    statuses,
    sweeping,
    why,
)


class Commands(TyperGroup):
    """Says of a value that an option does not take what is wrong in plain words."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = plain(error.message)
            raise


def plain(message: str) -> str:
    """``Value error, 'lical' is not one of 'local', 'ray'.`` without what pydantic says first, and which is meant."""
    said = message.removeprefix("Value error, ").partition(", unable to parse")[0]
    found = re.fullmatch(r"'(.*)' is not one of (.*)\.", said, re.DOTALL)
    meant = did_you_mean(found[1], re.findall("'([^']*)'", found[2])) if found else ""
    return f"{said} {meant[:1].upper()}{meant[1:]}".strip()


app = typer.Typer(
    name="study",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Reproduce, check and extend the study 'Understanding, Accelerating, and Improving MeanFlow Training'.

A [bold]study[/bold] is one experiment of the paper. [bold]study run obs_v_then_u[/bold] trains its arms and
measures them, [bold]study report --figure 2[/bold] draws the figure from the store, and
[bold]study claims obs_v_then_u[/bold] prints what the paper claims and what was found.

Everything lies in one folder, ./study_home unless --home or STUDY_HOME say otherwise;
running again continues where it stopped and computes nothing twice.""",
)


def show_version(asked: bool) -> None:
    """Print the version and end. Raises: typer.Exit."""
    if asked:
        from importlib.metadata import version

        typer.echo(f"meanflow-study {version('meanflow-study')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


app.command("list")(inspect_.list_studies)
app.command("new")(authoring.new)
app.command("check")(authoring.check)
app.command("plan")(planning.plan)
app.command("run")(running.run)
app.command("sweep")(sweeping.sweep)
app.command("status")(statuses.status)
app.command("watch")(statuses.watch)
app.command("logs")(logs.logs)
app.command("why")(why.why)
app.command("cancel")(cancelling.cancel)
app.command("retry")(retrying.retry)
app.command("report")(reporting.report)
app.command("claims")(reporting.claims)
app.command("implications")(reporting.implications)
app.command("results")(reporting.results)
app.command("compare")(looking.compare)
app.command("sample")(looking.sample)
app.command("export")(exporting.export)
app.command("audit")(auditing.audit)
app.command("verify")(running.verify)
app.command("gc")(keeping.gc)
app.command("bundle")(keeping.bundle)
admin.db.command("import")(keeping.import_bundle)
app.add_typer(admin.db, name="db")
app.add_typer(data.data, name="data")
app.command("doctor")(admin.doctor)
