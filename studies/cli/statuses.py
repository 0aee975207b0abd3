"""``study status`` and ``study watch``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli.filters import KindOpt, OneScaleOpt, OneSeedsOpt, OneVariantOpt, StatusOpt, WhatArg, chosen
from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt
from sweeps.waiting import rest

if TYPE_CHECKING:
    from rich.table import Table
    from sqlalchemy import Engine

    from results.layout import Home
    from studies.cli.overview import Overview
    from sweeps.selection import Filter
    from sweeps.view import View

REST = 10  # looking takes about a tenth of the time at most, however large the home
LEARN_S = 60.0  # how often the times that steps take are learned anew

ArmsOpt = Annotated[bool, typer.Option("--arms", help="Also one row an arm.")]


def status(
    what: WhatArg = None,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    seeds: OneSeedsOpt = None,
    status: StatusOpt = None,
    kind: KindOpt = None,
    arms: ArmsOpt = False,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Show of each study what is done, runs, waits, failed and is left, and how long that takes."""
    from results.layout import Home
    from studies.cli.output import console, print_json
    from studies.cli.overview import overview, to_json
    from studies.cli.store import opened, rates_in

    asked, place = chosen(what, scale, variant, seeds, status, kind), Home(home)
    with opened(place) as engine:
        view, unreadable = _view(engine, place, asked)
        found = overview(view, asked, rates_in(engine, place), arms=arms, fresh=False)
    if json:
        print_json({**to_json(found), "unreadable": unreadable})
    else:
        out = console()
        for one in _shown_as(found, unreadable):
            out.print(one, markup=False, soft_wrap=isinstance(one, str))


def _view(engine: Engine, home: Home, asked: Filter) -> tuple[View, list[str]]:
    """What is asked for, and what of it this program cannot read."""
    from sweeps.selection import select, stored_studies
    from sweeps.view import View

    unreadable: list[str] = []
    return View(engine, home, select(stored_studies(engine), asked, unreadable)), unreadable


def _shown_as(found: Overview, unreadable: list[str]) -> Iterator[Table | str]:
    from studies.cli.overviewtext import bases, table, words

    nothing = not found.parts and found.asked.standings
    if nothing:
        yield f"nothing is {' or '.join(sorted(found.asked.standings))}"
    else:
        yield table(found.parts, "study")
    if found.arms:
        yield table(found.arms, "arm")
    yield from (*words(found), *bases(found), *(f"unreadable: {message}" for message in unreadable))


def watch(
    what: WhatArg = None,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    seeds: OneSeedsOpt = None,
    status: StatusOpt = None,
    kind: KindOpt = None,
    arms: ArmsOpt = False,
    every: Annotated[
        float, typer.Option("--every", min=0.2, metavar="SECONDS", help="How long to wait between looks.")
    ] = 5.0,
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """Show the same as `study status` until all of it is done, or Ctrl-C. Runs nothing and changes nothing.

    Where the output is no terminal: one line a study whenever something has changed.
    """
    from results.layout import Home
    from studies.cli.store import opened

    asked, place = chosen(what, scale, variant, seeds, status, kind), Home(home)
    with opened(place) as engine, _shown() as show:
        for found, unreadable in _looks(engine, place, asked, every, arms=arms):
            show(found, unreadable)


def _looks(
    engine: Engine, home: Home, asked: Filter, every: float, *, arms: bool
) -> Iterator[tuple[Overview, list[str]]]:
    """One look after another until all that is asked for is done. What a new run asks for belongs to it."""
    from results.stored import newest_run
    from studies.cli.overview import overview
    from studies.cli.store import rates_in

    run: str | None = ""
    learned = -LEARN_S
    while True:
        began = time.monotonic()
        if run != (newest := newest_run(engine)):
            run, (view, unreadable) = newest, _view(engine, home, asked)
        if began - learned >= LEARN_S:
            learned, rates = began, rates_in(engine, home)
        found = overview(view, asked, rates, arms=arms, fresh=True)
        yield found, unreadable
        if found.finished and run == newest_run(engine):
            return
        rest(max(every, REST * (time.monotonic() - began)))


@contextmanager
def _shown() -> Iterator[Callable[[Overview, list[str]], None]]:
    """How looks are shown: drawn anew on a terminal, else a line a study whenever it has changed."""
    from studies.cli.output import console
    from studies.cli.overviewtext import in_one_line

    if sys.stdout.isatty():
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        def drawn(found: Overview, unreadable: list[str]) -> Group:
            parts = _shown_as(found, unreadable)
            return Group(*(Text(one) if isinstance(one, str) else one for one in parts))

        with Live(console=console(), auto_refresh=False) as live:
            yield lambda found, unreadable: live.update(drawn(found, unreadable), refresh=True)
        return
    said: dict[str, str] = {}

    def lines(found: Overview, unreadable: list[str]) -> None:
        new = {part.name: in_one_line(part) for part in found.parts}
        new |= {message: f"unreadable: {message}" for message in unreadable}
        for name, line in new.items():
            if said.get(name) != line:
                sys.stdout.write(line + "\n")
        sys.stdout.flush()
        said.update(new)

    yield lines
