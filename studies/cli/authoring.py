"""``study new`` and ``study check``: a study of one's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meanflow_core.words import counted
from studies.cli.options import JsonOpt
from studies.errors import StudyError

if TYPE_CHECKING:
    from studies.loader import StudySource


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the study is called; the file is ./NAME.yaml.")],
    from_: Annotated[
        str, typer.Option("--from", metavar="STUDY", help="The study that it changes, or a file of your own.")
    ],
) -> None:
    """Write a study file that changes another study: commented, and valid as it is."""
    from studies.cli.output import say
    from studies.loader import builtin_names, load_source
    from studies.scaffold import scaffold
    from studies.strict import is_name

    if not is_name(name):
        raise StudyError(f"'{name}' is no name of a study: small letters, digits, '_', '-' and '.', 60 at most")
    if name in builtin_names():
        raise StudyError(f"'{name}' is a built-in study; give yours another name")
    source, path = load_source(from_), Path(f"{name}.yaml")
    extends = from_ if from_ in builtin_names() else os.path.relpath(source.files[0].path)
    if extends != from_ and not extends.startswith("."):
        extends = f"./{extends}"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(scaffold(name, source, extends))
    except FileExistsError:
        raise StudyError(f"there is a file {path} already; it is left as it is") from None
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error}") from None
    say(f"wrote {path}. Next: edit it, then   study check ./{path}")


def check(
    studies: Annotated[list[str], typer.Argument(metavar="FILE", help="Study files, ./mine.yaml, or names.")],
    json: JsonOpt = False,
) -> None:
    """Say all that is wrong in a study, file, line and key, at every scale; in data sets that are here; and what it
    would train. Trains nothing, but for a step of a few rows with what is of your own."""
    from studies.cli.choose import check_own_name
    from studies.cli.output import print_json
    from studies.loader import load_source

    found: list[dict[str, Any]] = []
    for name in studies:
        source = load_source(name)
        check_own_name(source)
        found.append({"study": source.name, "file": str(source.files[0].path), "scales": _scales(source)})
    if json:
        print_json(found)
    else:
        _print(found)
    if any(scale["errors"] for one in found for scale in one["scales"]):
        sys.exit(2)


def _scales(source: StudySource) -> list[dict[str, Any]]:
    from studies.loader import faults, merged
    from sweeps.cost import Rates
    from sweeps.plan import Inventory
    from sweeps.preflight import damaged_data, impossible
    from sweeps.session import open_session, plan_record

    scales: list[dict[str, Any]] = []
    for scale in source.scales:
        try:
            study, errors = faults(*merged(source, scale), source)
            plan = None
            if study is not None and not errors:
                session = open_session([study])
                errors = damaged_data(session) or impossible(session)
            if study is not None and not errors:
                jobs = session.jobs(Inventory())
                cost = session.cost(jobs, Rates())
                plan = {**plan_record(session, jobs, cost, cost), "arms": len(session.arms) // len(session.seeds)}
        except StudyError as error:
            plan, errors = None, str(error).splitlines()
        scales.append({"scale": scale, "errors": errors, "plan": plan})
    return scales


def _by_scale(
    scales: Sequence[dict[str, Any]], said: Callable[[dict[str, Any]], Sequence[str]]
) -> dict[str, list[str]]:
    """What is said of several scales, once, with these."""
    at: dict[str, list[str]] = {}
    for scale in scales:
        for words in said(scale):
            at.setdefault(words, []).append(scale["scale"])
    return at


def _print(found: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from studies.cli.output import console, gib, scientific

    for one in found:
        for error, scales in _by_scale(one["scales"], lambda scale: scale["errors"]).items():
            sys.stderr.write(f"{error}  [{', '.join(scales)}]\n")
        table = Table("scale", "arms", "seeds", "epochs a seed", "unshared", "steps", "FLOPs", "evaluations", "GiB")
        for scale in one["scales"]:
            plan = scale["plan"]
            if plan is None:
                table.add_row(scale["scale"], counted(len(scale["errors"]), "error"))
                continue
            epochs = plan["planned_epochs"] + plan["probe_epochs"] + plan["control_epochs"]
            unshared = plan["naive_epochs"] + plan["probe_epochs"] + plan["control_epochs"]
            cost = plan["cost"]
            parts = (cost["v_flops"], cost["u_flops"])
            flops = None if None in parts else sum(parts)
            table.add_row(
                scale["scale"], str(plan["arms"]), str(len(plan["seeds"])), f"{epochs:g}", f"{unshared:g}",
                f"{cost['steps']:,}", scientific(flops), f"{cost['evaluations']:,}", gib(cost["gib"]),
            )  # fmt: skip
        out = console()
        out.print(f"{one['study']} ({one['file']})", markup=False, soft_wrap=True)
        out.print(table)
        for note, scales in _by_scale(one["scales"], lambda scale: (scale["plan"] or {}).get("notes", ())).items():
            out.print(f"note: {note}  [{', '.join(scales)}]", markup=False, soft_wrap=True)
