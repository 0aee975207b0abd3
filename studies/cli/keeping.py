"""``study gc``, ``study bundle`` and ``study db import``: what of a home is kept, and taking it elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli.filters import OneScaleOpt, OneVariantOpt, WhatArg
from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt
from studies.errors import StudyError

if TYPE_CHECKING:
    from results.layout import Home
    from sweeps.collecting import Deleted, Findings, Item
    from sweeps.selection import Selected

GIB = 2**30


def _selected(home: Home, what: list[str] | None, scale: str | None, variant: str | None) -> list[Selected] | None:
    """What of a home is meant; None for everything. Raises: StudyError."""
    if not (what or scale or variant):
        return None
    from studies.cli.filters import chosen
    from studies.cli.store import opened
    from sweeps.selection import select, stored_studies

    with opened(home) as engine:
        return select(stored_studies(engine), chosen(what, scale, variant))


def gc(
    what: WhatArg = None,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it. Without this, nothing is touched.")] = False,
    unwanted: Annotated[
        bool, typer.Option("--unwanted", help="Also the weights that no recorded run wants any more.")
    ] = False,
    superseded: Annotated[
        bool,
        typer.Option(
            "--superseded",
            help="With --unwanted: a run no longer counts when a later run of the same study, scale and variant has "
            "another configuration.",
        ),
    ] = False,
    snapshots: Annotated[
        bool,
        typer.Option("--snapshots", help="Also snapshots where all is measured. A new metric then needs new training."),
    ] = False,
    ends: Annotated[
        bool,
        typer.Option(
            "--ends",
            help="Also full states where all is measured and nothing left to do starts. A new metric or a longer or "
            "branching arm then needs new training.",
        ),
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="Also print every path.")] = False,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Show what may be deleted, derived from the tree of all recorded runs; with --delete, delete it. Never what an
    attempt has recorded, never verdicts, never what a missing job needs, never where somebody is at work."""
    from results.layout import Home
    from studies.cli.choose import home_exists
    from sweeps import collecting
    from sweeps.garbage import Choice

    if superseded and not unwanted:
        raise StudyError("--superseded says which runs no longer count for --unwanted; add --unwanted")
    if not home_exists(home):
        raise StudyError(f"nothing is stored in {home}; give the folder of a run with --home")
    place = Home(home)
    selected = _selected(place, what, scale, variant)
    within = None
    if selected is not None:
        within = {stage.trajectory.key for one in selected for arm in one.arms for stage in arm.stages}
    found = collecting.find(place, Choice(unwanted, superseded, snapshots, ends), within)
    done = collecting.delete(place, found) if delete else None
    if json:
        _print_json(place, found, done)
    else:
        _print(place, found, done, listed)
    if done and done.stopped:
        sys.exit(1)


def _print_json(home: Home, found: Findings, done: Deleted | None) -> None:
    from studies.cli.output import print_json
    from sweeps.collecting import WHY

    items = found.items if done is None else done.items
    record = {
        "deleted": done is not None,
        "bytes": sum(item.bytes for item in items),
        "items": [
            {
                "kind": item.kind,
                "path": str(item.path.relative_to(home.root)),
                "bytes": item.bytes,
                "trajectory": item.trajectory or None,
                "why": WHY[item.kind],
            }
            for item in items
        ],
        "busy": found.busy,
    }
    print_json(record if done is None else {**record, "left": done.left, "stopped": done.stopped})


def _print(home: Home, found: Findings, done: Deleted | None, listed: bool) -> None:
    from studies.cli.output import console

    items = found.items if done is None else done.items
    out = console()
    if items:
        _print_table(items, "may go" if done is None else "deleted")
    if listed:
        for item in items:
            out.print(f"{item.kind}: {item.path.relative_to(home.root)}", markup=False, soft_wrap=True)
    if found.busy:
        out.print(f"{len(found.busy)} trajectories are being worked on and were not looked at")
    if done is None:
        out.print(
            "nothing was touched; the same command with --delete deletes it" if items else "there is nothing to delete"
        )
        return
    if done.left:
        out.print(f"{len(done.left)} trajectories were left: somebody works on them now, or they have changed")
    if done.stopped:
        out.print("stopped: a run was recorded meanwhile, and may want what was to go. Run the same command again")


def _print_table(items: list[Item], title: str) -> None:
    from rich.table import Table

    from studies.cli.output import console
    from sweeps.collecting import WHAT, WHY

    table = Table(title, "", "GiB", "why")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for kind, why in WHY.items():
        these = [item for item in items if item.kind == kind]
        if these:
            table.add_row(WHAT[kind], str(len(these)), f"{sum(item.bytes for item in these) / GIB:,.3f}", why)
    table.add_section()
    table.add_row("all", str(len(items)), f"{sum(item.bytes for item in items) / GIB:,.3f}", "")
    console().print(table)
