"""``study gc``, ``study bundle`` and ``study db import``: what of a home is kept, and taking it elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meanflow_core.words import counted
from studies.cli.filters import OneScaleOpt, OneSeedsOpt, OneVariantOpt, WhatArg
from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt, place
from studies.errors import StudyError

TRAJECTORY = ("trajectory", "trajectories")

if TYPE_CHECKING:
    from results.layout import Home
    from sweeps.collecting import Deleted, Findings, Item
    from sweeps.selection import Selected


def _selected(
    home: Home, what: list[str] | None, scale: str | None, variant: str | None, seeds: str | None = None
) -> list[Selected] | None:
    """What of a home is meant; None for everything. Raises: StudyError."""
    if not (what or scale or variant or seeds):
        return None
    from studies.cli.filters import chosen
    from studies.cli.store import opened
    from sweeps.selection import select, stored_studies

    with opened(home) as engine:
        return select(stored_studies(engine), chosen(what, scale, variant, seeds))


def gc(
    what: WhatArg = None,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    seeds: OneSeedsOpt = None,
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
    selected = _selected(place, what, scale, variant, seeds)
    within = None
    if selected is not None:
        within = {stage.trajectory.key for one in selected for arm in one.arms for stage in arm.stages}
    found = collecting.find(place, Choice(unwanted, superseded, snapshots, ends), within)
    if unwanted and not found.runs:
        raise StudyError(
            f"no run is recorded in {home}, so that all weights would be unwanted; is this the right home?"
        )
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
        out.print(f"not looked at, since somebody works on them: {counted(len(found.busy), *TRAJECTORY)}")
    if done is None:
        out.print(
            "nothing was touched; the same command with --delete deletes it" if items else "there is nothing to delete"
        )
        return
    if done.left:
        left = counted(len(done.left), *TRAJECTORY)
        out.print(f"left, since somebody works on them now or they have changed: {left}")
    if done.stopped:
        out.print("stopped: a run was recorded meanwhile, and may want what was to go. Run the same command again")


def _print_table(items: list[Item], title: str) -> None:
    from rich.table import Table

    from studies.cli.output import console, volume
    from sweeps.collecting import WHAT, WHY

    table = Table(title, "", "size", "why")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for kind, why in WHY.items():
        these = [item for item in items if item.kind == kind]
        if these:
            table.add_row(WHAT[kind], str(len(these)), volume(sum(item.bytes for item in these)), why)
    table.add_section()
    table.add_row("all", str(len(items)), volume(sum(item.bytes for item in items)), "")
    console().print(table)


def bundle(
    out: Annotated[Path, typer.Argument(metavar="OUT.tar.gz", parser=place, help="The file to write.")],
    what: WhatArg = None,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="ema", help="Also the EMA weights wherever something is measured."),
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="Also the logs of attempts.")] = False,
    artefacts: Annotated[bool, typer.Option("--artefacts", help="Also artefacts, such as pictures.")] = False,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Write results, configurations and provenance of studies into one file, which `study db import` takes elsewhere.
    Full states, leases and the SQL store stay here."""
    from meanflow_core.manifest import snapshot_files
    from results.bundling import Taken, write_bundle
    from results.layout import Home, TrajectoryDir
    from results.recorded import read_run, run_names, whose
    from studies.cli.output import print_json, volume
    from studies.cli.store import opened

    if weights not in {None, "ema"}:
        raise StudyError(f"--weights {weights}: there is only 'ema'; full states stay where they are")
    if not out.name.endswith((".tar.gz", ".tgz")):
        raise StudyError(f"{out}: the first argument is the file to write, e.g. results.tar.gz; studies come after it")
    if out.exists():
        raise StudyError(f"{out} exists; give another name, or move it away")
    if not out.absolute().parent.is_dir():
        raise StudyError(f"{out}: there is no folder {out.parent}; make it first")
    place = Home(home)
    with opened(place):  # what cannot be ingested here could not be elsewhere
        selected = _selected(place, what, scale, variant)
    names = run_names(place)
    if selected is not None:
        if parts := [one.stored.name for one in selected if len(one.arms) < len(one.stored.arms)]:
            raise StudyError(f"a bundle holds whole studies; leave out what chooses among the arms of {parts[0]}")
        chosen = {(one.stored.run.study, one.stored.run.scale, one.stored.run.variant) for one in selected}
        names = [name for name in names if whose(read_run(place, name)) in chosen]
    if not names:
        raise StudyError(f"no run is stored in {home}; run a study first, or give another folder with --home")

    def snapshot(folder: TrajectoryDir, step: int) -> dict[str, Path | bytes]:
        return snapshot_files(folder.snapshot(step), folder.checkpoint(step))

    manifest = write_bundle(out, place, names, Taken(logs, artefacts, snapshot if weights else None))
    record = {**manifest.model_dump(mode="json", exclude={"files"}), "file": str(out), "bytes": out.stat().st_size}
    if json:
        print_json({**record, "files": len(manifest.files)})
        return
    for study in manifest.studies:
        suffix = f" as {study.variant}" if study.variant else ""
        sys.stdout.write(f"{study.study} at {study.scale}{suffix}: {counted(study.runs, 'run')}\n")
    size = f"{counted(len(manifest.files), 'file')}, {volume(record['bytes'])}"
    sys.stdout.write(f"wrote {out}: {size}\nelsewhere: study db import {out.name} --home FOLDER\n")


def import_bundle(
    file: Annotated[Path, typer.Argument(metavar="BUNDLE", parser=place, help="A file that `study bundle` wrote.")],
    show_code: Annotated[
        bool, typer.Option("--show-code", help="Print the code and commands that it brings, and take nothing.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Take a bundle that brings code or commands.")
    ] = False,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Take a bundle into a home, new or not. What is there stays as it is; importing again changes nothing.

    Studies with components or trainers of their author's own bring code and commands, which reports and runs execute:
    they are taken only where they are there already, or trusted.
    """
    from dataclasses import asdict

    from results.bundledcode import code_in, printable
    from results.importing import take
    from results.layout import Home
    from studies.cli.choose import home_exists
    from studies.cli.output import print_json
    from studies.cli.store import ingest_new, opened
    from sweeps.lease import holding

    if show_code:
        for code, name in code_in(file).items():
            sys.stdout.write(f"# {printable(name)} ({code.key})\n{printable(code.text)}\n")
        return
    place = Home(home)
    if home_exists(home):  # refuses a store that is another home's, before anything is taken
        with opened(place):
            pass
    manifest, done = take(file, place, lambda folder: holding(*folder.leases), trust_code)
    ingest_new(place)
    if json:
        print_json({"file": str(file), "studies": [one.model_dump() for one in manifest.studies], **asdict(done)})
    else:
        sys.stdout.write(
            f"took {counted(done.runs, 'run')}, {counted(done.trajectories, *TRAJECTORY)}, "
            f"{counted(done.attempts, 'attempt')}, {counted(done.snapshots, 'snapshot')} and "
            f"{counted(done.verdicts, 'verdict')}; there already: {done.there}\n"
        )
        for trajectory, theirs, ours in done.renumbered:
            sys.stdout.write(f"trajectory {trajectory[:8]}: attempt {theirs} of the bundle is {ours} here\n")
        if done.busy:
            sys.stdout.write(
                f"left out, since somebody works on them here: {counted(len(done.busy), *TRAJECTORY)}; import again\n"
            )
    if done.busy:
        sys.exit(1)
