"""An `Overview` for people: tables, and a line for whatever runs or went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meanflow_core.words import counted
from studies.cli.output import hours
from studies.cli.overview import SHOWN, Overview, Part
from sweeps.selection import STANDINGS, Standing

if TYPE_CHECKING:
    from rich.table import Table

    from sweeps.standing import Work
    from sweeps.summary import Summary

SHOWN_LINES = 8
SHOWN_ARMS = 3


def table(parts: Sequence[Part], head: str) -> Table:
    """One row a part; arms of several studies or variants by these, too."""
    from rich.table import Table

    several = len({part.selected.stored.name for part in parts}) > 1
    made = Table(head, "seeds", "arms", "segments", "measured", "now", "left", "ETA")
    for part in parts:
        s = part.summary
        of = part.selected.stored.name
        made.add_row(
            f"{of}: {part.name}" if several and part.name != of else part.name,
            str(len({arm.seed for arm in part.arms})),
            f"{s.arms_done} of {s.arms}",
            _share(s.segments),
            _share(s.evaluations),
            _now(part.work),
            _left(s),
            hours(s.eta_hours) if s.eta_hours is not None else "",
        )
    return made


def in_one_line(part: Part) -> str:
    """A study for those who have no terminal."""
    s = part.summary
    said = [f"{part.name}: trained {_share(s.segments)} segments, measured {_share(s.evaluations)}", _now(part.work)]
    eta = f"ETA {hours(s.eta_hours)}" if s.eta_hours is not None else ""
    return ", ".join(filter(None, [*said, f"left: {_left(s)}", eta]))


def _share(counts: Mapping[Standing, int]) -> str:
    return f"{counts.get('done', 0)} of {sum(counts.values())}"


def _now(work: Sequence[Work]) -> str:
    counts = {standing: sum(one.standing == standing for one in work) for standing in SHOWN}
    return ", ".join(f"{n} {standing}" for standing, n in counts.items() if n)


def _left(s: Summary) -> str:
    if not s.left.epochs and not s.left.evaluations:
        return "nothing"
    said = [counted(s.left.epochs, "epoch")] if s.left.epochs else []
    said += [counted(s.left.evaluations, "evaluation")] if s.left.evaluations else []
    return ", ".join([*said, hours(s.hours_left) if s.hours_left is not None else "time unknown"])


def words(found: Overview) -> Iterator[str]:
    """What runs and what went wrong, one line each; with ``--status`` all that stands so, else the first few."""
    asked = found.asked.standings
    for standing in STANDINGS if asked else SHOWN:
        lines = found.lines(standing) if not asked or standing in asked else []
        shown = lines if asked else lines[:SHOWN_LINES]
        yield from (f"{standing}: {_in_words(line, standing)}" for line in shown)
        if len(lines) > len(shown):
            yield f"{standing}: ... and {len(lines) - len(shown)} more (study status --status {standing})"


def _in_words(line: dict[str, Any], standing: Standing) -> str:
    what = f"{line['kind']} {line['trajectory'][:8]}"
    if line["attempt"] is not None:
        what += f", attempt {line['attempt']}" + (f" ({line['cause']})" if line["cause"] else "")
    if line["cause"]:
        what += f": {line['reason'] or 'it left no DONE.json: its process or machine died'}"
    elif line["reached"] is not None:
        unit = (
            f"of {line['evaluations']} evaluations" if line["kind"] == "evaluate" else f"of {line['stop_step']} steps"
        )
        what += f", {line['reached']} {unit}"
    if line["holder"]:
        what += f", {'held by' if standing == 'running' else 'as'} {line['holder']}"
    names, more = line["arms"][:SHOWN_ARMS], len(line["arms"]) - SHOWN_ARMS
    of = f"; as {', '.join(line['variants'])}" if line["variants"] else ""
    return f"{what}  [{', '.join(names)}{f' and {more} more' if more > 0 else ''}; seed {line['seed']}{of}]"


def bases(found: Overview) -> Iterator[str]:
    """On what the time left, and the time at which all will be done, rests."""
    for part in found.parts:
        if part.summary.left.epochs or part.summary.left.evaluations:
            yield f"{part.name}: {part.summary.basis}"
