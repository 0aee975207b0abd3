"""``study logs``: what the attempts at an arm have printed."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meanflow_core.words import counted, listed
from studies.cli.filters import KindOpt, OneScaleOpt, OneSeedsOpt, OneVariantOpt, StatusOpt, WhatArg, chosen
from studies.cli.options import DEFAULT_HOME, HomeOpt
from studies.errors import StudyError

if TYPE_CHECKING:
    from sweeps.tries import Try

POLL_S = 0.5
SHOWN_RECORDED = 3


def logs(
    what: WhatArg = None,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    seeds: OneSeedsOpt = None,
    status: StatusOpt = None,
    kind: KindOpt = None,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, metavar="N", help="Only the attempt of this number.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All attempts that match, oldest first; not only one.")] = False,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on printing what is written, until the attempt ends.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", min=0, metavar="N", help="The last N lines; 0: all.")] = 50,
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """Print the log of the latest attempt at an arm (the one that runs, else the one that wrote last), and the newest
    of the losses or values that it has recorded.

    An arm needs all of the trajectories that lead to it, so attempts at what it shares with others count too. With
    --status it is how the attempt itself stands that counts.
    """
    if all_ and follow:
        raise StudyError("--follow follows one attempt: leave out --all, and name it with --attempt if need be")
    from results.layout import Home
    from results.stored import attempt_records
    from studies.cli.store import opened
    from sweeps.selection import select, stored_studies
    from sweeps.tries import tries
    from sweeps.view import View, held_in

    asked, place = chosen(what, scale, variant, seeds, status, kind), Home(home)
    held = held_in(place)
    with opened(place) as engine:
        selected = select(stored_studies(engine), asked)
        view = View(engine, place, selected)
        trajectories = set(view.open)
        found = tries(place, selected, view.look(), attempt_records(engine, trajectories), held, asked)
    matching = [one for one in found if attempt in (None, one.attempt.attempt)]
    if not matching:
        raise StudyError(_nothing(found, attempt))
    offset = 0
    for one in matching if all_ else matching[-1:]:
        offset = _print(one, lines)
        if not follow:
            _print_recorded(one.log.with_name("metrics.jsonl"))
    if follow:
        _follow(matching[-1], offset, lambda: held(matching[-1].attempt) is not None)
    elif not all_ and len(matching) > 1:
        _say(f"(matching too: {counted(len(matching) - 1, 'earlier attempt')}; --all shows all)")


def _nothing(found: list[Try], attempt: int | None) -> str:
    if attempt is None or not found:
        return "nothing of this has been tried yet; `study status` says how it stands"
    numbers = sorted({one.attempt.attempt for one in found})
    return f"there is no attempt {attempt} among those that match (available: {listed(numbers)})"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _print(one: Try, lines: int) -> int:
    """The header and the end of one log. Returns: how many bytes of it have been read."""
    cause = f" ({one.cause})" if one.cause not in (None, one.standing) else ""
    reason = f": {one.attempt.reason}" if one.attempt.reason else ""
    holder = f", held by {one.holder}" if one.holder else ""
    _say(f"== {one.name}: {one.standing}{cause}{holder}{reason}")
    _say(f"== {one.log}")
    if not one.log.is_file():
        _say("(it has written no log)")
        return 0
    kept: deque[bytes] = deque(maxlen=lines or None)
    count = offset = 0
    with one.log.open("rb") as file:
        for line in file:
            kept.append(line)
            count, offset = count + 1, offset + len(line)
    if count > len(kept):
        _say(f"({counted(count - len(kept), 'earlier line')}; --lines 0 shows all)")
    text = b"".join(kept).decode(errors="replace")
    _say(text.removesuffix("\n") if text else "(it printed nothing)")
    return offset


def _print_recorded(path: Path) -> None:
    """The newest of what an attempt has recorded, and where all of it is."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line] if path.is_file() else []
    if lines:
        _say(f"== recorded in {path}: {counted(len(lines), 'line')}, the last:")
        _say("\n".join(_recorded(line) for line in lines[-SHOWN_RECORDED:]))


def _recorded(line: str) -> str:
    """``step 60: loss 0.9999, u_mse 98.38``; ``step 60: frechet_pixel at 1 NFE: 0.4561``; what is neither, as it is."""
    try:
        found = json.loads(line)
        if found["type"] == "evaluation":
            return f"step {found['step']}: {found['metric']} at {found['nfe']} NFE: {found['value']:.4g}"
        return f"step {found['step']}: " + ", ".join(f"{name} {value:.4g}" for name, value in found["values"].items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return line


def _follow(one: Try, offset: int, lives: Callable[[], bool]) -> None:
    """Print what is written from now on, until the attempt has ended; then how."""
    while True:
        over = not lives() or (one.log.parent / "DONE.json").exists()  # asked first, so that the last words are read
        if one.log.is_file():
            with one.log.open("rb") as file:
                file.seek(offset)
                new = file.read()
            offset += len(new)
            sys.stdout.write(new.decode(errors="replace"))
            sys.stdout.flush()
        if over:
            break
        time.sleep(POLL_S)
    _say(f"== {_ending(one.log.parent)}")


def _ending(folder: Path) -> str:
    from sweeps.jobs import Done

    try:
        done = Done.model_validate_json((folder / "DONE.json").read_text())
    except FileNotFoundError:
        return "it left no DONE.json: its process or machine died"
    return done.status + (f": {done.reason}" if done.reason else "")
