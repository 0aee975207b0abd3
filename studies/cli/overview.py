"""How what is selected stands: gathered here, as records; `studies.cli.overviewtext` puts it in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.selection import STANDINGS, Filter, Selected, Standing
from sweeps.standing import Place, Work, by_arm
from sweeps.summary import Summary, summarise
from sweeps.view import View, reached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from results.layout import Home
    from studies.arms import Arm
    from sweeps.cost import Rates

SHOWN: tuple[Standing, ...] = ("failed", "lost", "preempted", "running", "queued")


@dataclass(frozen=True)
class Part:
    """One selected study, or one of its arms with all its seeds (``name``), and its work."""

    selected: Selected
    name: str
    arms: Sequence[Arm]
    work: Sequence[Work]
    summary: Summary


@dataclass(frozen=True)
class Overview:
    """What a look at a home has found. ``parts`` are studies, ``arms`` their arms where they were asked for;
    ``finished`` says that all that is selected is done."""

    home: Home
    asked: Filter
    parts: Sequence[Part]
    arms: Sequence[Part]
    finished: bool

    def lines(self, standing: Standing) -> list[dict[str, Any]]:
        """One record for each piece of work that stands like this and was asked for; the arms of all studies that need
        it stand with it."""
        found: dict[tuple[Place, int | None], dict[str, Any]] = {}
        for part in self.parts:
            for work in part.work:
                if work.standing == standing and self.asked.wants(standing, work.kind):
                    number = work.attempt.attempt if work.attempt else None
                    line = found.setdefault((work.place, number), _line(self.home, work))
                    line["arms"] += [name for name in _names(part.arms, work) if name not in line["arms"]]
                    variant = part.selected.stored.run.variant
                    line["variants"] += [variant] if variant and variant not in line["variants"] else []
        return list(found.values())


def overview(view: View, asked: Filter, rates: Rates, *, arms: bool, fresh: bool) -> Overview:
    """Look at a home (``fresh``: after taking in what is new)."""
    parts, rows = [], []
    found = view.refresh() if fresh else view.look()
    for selected, work in zip(view.selected, found, strict=True):
        needed = by_arm(selected.arms, work)
        if not any(asked.wants(one.standing, one.kind) for one in work):
            continue
        parts.append(_part(view.home, selected, selected.stored.name, selected.arms, needed, rates))
        for name, places in _by_name(selected.arms).items() if arms else ():
            part = _part(
                view.home, selected, name, [selected.arms[i] for i in places], [needed[i] for i in places], rates
            )
            if any(asked.wants(one.standing, one.kind) for one in part.work):
                rows.append(part)
    finished = all(one.standing == "done" for work in found for one in work if asked.kind in (None, one.kind))
    return Overview(view.home, asked, parts, rows, finished)


def _part(
    home: Home,
    selected: Selected,
    name: str,
    arms: Sequence[Arm],
    needed: Sequence[Sequence[Work]],
    rates: Rates,
) -> Part:
    work = list({one.place: one for some in needed for one in some}.values())
    summary = summarise(selected.stored.session, arms, needed, rates, lambda one: reached(home, one))
    return Part(selected, name, arms, work, summary)


def _by_name(arms: Sequence[Arm]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for i, arm in enumerate(arms):
        places.setdefault(f"{arm.panel}/{arm.name}", []).append(i)
    return places


def _names(arms: Sequence[Arm], work: Work) -> Iterator[str]:
    """The arms, without seeds, that need some work."""
    mine = [arm for arm in arms if arm.seed == work.seed]
    for arm, needed in zip(mine, by_arm(mine, [work]), strict=True):
        if needed:
            yield f"{arm.study}/{arm.panel}/{arm.name}"


def _line(home: Home, work: Work) -> dict[str, Any]:
    attempt = work.attempt
    at = reached(home, work) if work.standing == "running" else None
    record = {
        "kind": work.kind,
        "trajectory": work.trajectory,
        "seed": work.seed,
        "start_step": work.start_step,
        "stop_step": work.stop_step,
        "evaluations": len(work.evaluations),
        "attempt": attempt.attempt if attempt else None,
        "reason": attempt.reason if attempt else None,
        "cause": work.cause,
        "holder": work.where,
        "reached": at,
        "log": None,
        "arms": [],
        "variants": [],
    }
    if attempt:
        record["log"] = str(home.trajectory(work.trajectory).attempt(attempt.attempt) / "log.txt")
    return record


def to_json(found: Overview) -> dict[str, Any]:
    """What ``study status --json`` prints."""
    record: dict[str, Any] = {"studies": [_study_record(part) for part in found.parts]}
    for standing in (one for one in STANDINGS if one in SHOWN or one in found.asked.standings):
        record[standing] = found.lines(standing)
    if found.arms:
        record["arms"] = [{**_of(part), "arm": part.name, **_numbers(part)} for part in found.arms]
    return record


def _of(part: Part) -> dict[str, Any]:
    run = part.selected.stored.run
    return {"study": run.study, "scale": run.scale, "variant": run.variant}


def _study_record(part: Part) -> dict[str, Any]:
    counts = part.summary.evaluations
    return {
        **_of(part),
        "run": part.selected.stored.run.run,
        "points": sum(counts.values()),
        "measured": counts.get("done", 0),
        "arms": {"total": part.summary.arms, "done": part.summary.arms_done},
        **_numbers(part),
    }


def _numbers(part: Part) -> dict[str, Any]:
    s = part.summary
    return {
        "seeds": len({arm.seed for arm in part.arms}),
        "segments": _counts(s.segments),
        "evaluations": _counts(s.evaluations),
        "running": s.jobs,
        "epochs_left": s.left.epochs,
        "device_hours_left": s.left.gpu_hours,
        "evaluation_hours_left": s.left.evaluation_hours,
        "hours_left": s.hours_left,
        "eta_hours": s.eta_hours,
        "hours_basis": s.basis,
    }


def _counts(by_standing: Mapping[Standing, int]) -> dict[str, int]:
    return {"total": sum(by_standing.values()), **{standing: by_standing.get(standing, 0) for standing in STANDINGS}}
