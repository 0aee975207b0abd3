"""``study cancel``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli.filters import KindOpt, OneScaleOpt, OneSeedsOpt, OneVariantOpt, chosen
from studies.cli.options import DEFAULT_HOME, HomeOpt
from studies.errors import StudyError

if TYPE_CHECKING:
    from results.layout import Home
    from sweeps.standing import Work


def cancel(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="WHAT", help="Studies and arms that were run, as in `study status`; '*' is all."),
    ] = None,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    seeds: OneSeedsOpt = None,
    kind: KindOpt = None,
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """End work that runs or waits, here or on a cluster. What runs saves at a step boundary; what is done stays.

    What other arms share with these ends too. `study run` or `study retry` goes on with it.
    """
    from results.layout import Home
    from studies.cli.store import opened
    from sweeps.selection import select, stored_studies
    from sweeps.view import View

    asked, place = chosen(what, scale, variant, seeds, None, kind), Home(home)
    if not what:
        raise StudyError("name the studies or arms to cancel ('*' for everything)")
    with opened(place) as engine:
        found = View(engine, place, select(stored_studies(engine), asked)).look()
    works = {work.place: work for some in found for work in some if asked.wants(work.standing, work.kind)}
    _cancel(place, [work for work in works.values() if work.standing != "done"])


def _cancel(home: Home, works: list[Work]) -> None:
    from sweeps.cancelling import request

    for trajectory, kind in dict.fromkeys((work.trajectory, work.kind) for work in works):
        request(home, trajectory, kind)
    if home.submissions.is_dir():
        from sweeps.slurm.cancel import cancel_in_queue

        cancel_in_queue(home, {(work.kind, work.trajectory) for work in works})
    active = [work for work in works if work.standing in {"running", "queued"}]
    for work in active:
        sys.stdout.write(f"{work.standing}: {work.name}: {work.where}: asked to end\n")
    rest = len(works) - len(active)
    sys.stdout.write(
        f"asked to end, of what runs or waits in a queue: {len(active)}; not done, and begun by no command that runs "
        f"now: {rest}\n"
    )
