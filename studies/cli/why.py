"""``study why``: why an arm would be run again, or not."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meanflow_core.words import counted, did_you_mean
from studies.cli.filters import FILE
from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt, OverrideOpt, ScaleOpt, SeedsOpt, VariantOpt
from studies.errors import StudyError

if TYPE_CHECKING:
    from studies.arms import Arm
    from sweeps.nearest import Nearest
    from sweeps.session import Session
    from sweeps.why import ArmWhy, EvaluationsWhy, TrajectoryWhy

KEY = re.compile(r"\b[0-9a-f]{8}\b|\bseed \d+ → \d+")  # what tells equal explanations of two seeds apart

ArmArg = Annotated[
    str,
    typer.Argument(
        metavar="STUDY[/PANEL[/ARM]]",
        help="A study's name or file as declared now, and patterns of its panels and arms: 'tiny/left/v*'.",
    ),
]


def why(
    arm: ArmArg,
    scale: ScaleOpt = None,
    seeds: SeedsOpt = None,
    override: OverrideOpt = None,
    variant: VariantOpt = None,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Say why arms would be run again, or not: what is there, what is missing, and which part of the key of what is
    missing differs from the nearest that is there. The study is taken as declared, as in `study plan`; runs nothing."""
    from studies.cli.choose import choose, home_exists
    from studies.cli.output import print_json
    from sweeps.session import open_session

    study, panel, name = _parts(arm)
    (chosen,), said = choose([study], scale, seeds, override or [], variant, home=home)
    session = open_session([chosen], variant)
    found = _explain(session, _arms(session, arm, panel, name), home)
    if json:
        common = {"study": chosen.study, "scale": chosen.scale, "variant": variant}
        print_json({**common, "arms": [_record(one, session) for one in found]})
        return
    sys.stdout.write(said + "\n" + ("" if home_exists(home) else f"nothing is stored in {home} yet\n"))
    for _, group in groupby(found, lambda one: (one.arm.panel, one.arm.name)):
        for line in _in_words(list(group), session):
            sys.stdout.write(line + "\n")


def _parts(text: str) -> tuple[str, str, str]:
    """(study, panel, arm), the last two as patterns."""
    if found := FILE.fullmatch(text):
        study, rest = found[1], (found[2] or "").split("/", 2)[1:]
    else:
        study, *rest = text.split("/", 2)
    panel, name = [*(part or "*" for part in rest), "*", "*"][:2]
    return study, panel, name


def _arms(session: Session, asked: str, panel: str, name: str) -> list[Arm]:
    """The arms asked for, an arm's seeds together. Raises: StudyError if there is none."""
    from sweeps.selection import arm_names, arms_like

    arms = list(arms_like(session.arms, panel, name).values())
    if not arms:
        there = (f"{arm.panel}/{arm.name}" for arm in session.arms)
        meant = did_you_mean(f"{panel}/{name}", there)
        raise StudyError(f"no arm is called '{asked}' ({meant}available: {arm_names(session.arms)})")
    order = list(dict.fromkeys((arm.panel, arm.name) for arm in arms))
    return sorted(arms, key=lambda arm: (order.index((arm.panel, arm.name)), arm.seed))


def _explain(session: Session, arms: Sequence[Arm], root: Path) -> list[ArmWhy]:
    from results.layout import Home
    from studies.cli.choose import home_exists
    from studies.cli.store import opened
    from sweeps.nearest import Trajectories
    from sweeps.plan import Inventory
    from sweeps.queued import queued_jobs
    from sweeps.standing import reaches, works
    from sweeps.view import held_in
    from sweeps.why import Holding, explain, trained_to

    home, keys = Home(root), set(reaches(arms))
    if not home_exists(root):
        nothing = works(session, arms, Inventory(), [], held_in(home))
        return explain(arms, nothing, Inventory(), Holding(Trajectories([]), {}, {}, {}))
    from results.queries import protocols
    from results.stored import attempt_records, evaluated_keys_of, measured_protocols, stored_trajectories

    with opened(home) as engine:
        have = session.inventory(home, evaluated_keys_of(engine, keys))
        attempts = attempt_records(engine, keys)
        holding = Holding(
            Trajectories(stored_trajectories(engine)),
            trained_to(attempts),
            measured_protocols(engine, keys),
            protocols(engine),
        )
    return explain(arms, works(session, arms, have, attempts, held_in(home), queued_jobs(home)), have, holding)


def _epochs(one: TrajectoryWhy, session: Session) -> float:
    steps = sum(left.stop_step - left.start_step for left in one.left)
    return steps / session.tree.nodes[one.trajectory].steps_per_epoch


def _record(one: ArmWhy, session: Session) -> dict[str, Any]:
    return {
        "panel": one.arm.panel,
        "arm": one.arm.name,
        "seed": one.arm.seed,
        "complete": one.complete,
        "trajectories": [
            {
                "trajectory": t.trajectory,
                "stages": list(t.stages),
                "start_step": t.start_step,
                "stop_step": t.stop_step,
                "state": t.state,
                "epochs_left": _epochs(t, session),
                "left": [{"start_step": x.start_step, "stop_step": x.stop_step, "why": x.why} for x in t.left],
                "tried": t.tried,
                "nearest": t.nearest.to_json() if t.nearest else None,
            }
            for t in one.trajectories
        ],
        "evaluations": [
            {
                "metric": e.metric,
                "nfe": e.nfe,
                "steps": list(e.steps),
                "why": e.why,
                "nearest": e.nearest.to_json() if e.nearest else None,
            }
            for e in one.evaluations
        ],
    }


def _in_words(seeds: Sequence[ArmWhy], session: Session) -> Iterator[str]:
    """One arm. Seeds whose explanations differ in keys alone are told once."""
    from studies.cli.choose import in_ranges

    alike: dict[str, list[ArmWhy]] = {}
    for one in seeds:
        alike.setdefault(KEY.sub("", "\n".join(_of_seed(one, session))), []).append(one)
    for group in alike.values():
        arm = group[0].arm
        listed = in_ranges([one.arm.seed for one in group])
        many = "seeds" if len(group) > 1 else "seed"
        shown = f" (shown: {arm.seed})" if len(group) > 1 and not group[0].complete else ""
        yield ""
        yield f"{arm.study}/{arm.panel}/{arm.name}, {many} {listed}{shown}"
        yield from (f"  {line}" for line in _of_seed(group[0], session))


def _of_seed(one: ArmWhy, session: Session) -> Iterator[str]:
    for trajectory in one.trajectories:
        yield from _of_trajectory(trajectory)
    for evaluations in one.evaluations:
        yield from _of_evaluations(evaluations)
    left = sum(_epochs(t, session) for t in one.trajectories)
    points = sum(len(e.steps) for e in one.evaluations)
    yield (
        "would not be run again"
        if one.complete
        else f"would be run: {counted(left, 'epoch')}, {counted(points, 'evaluation')}"
    )


def _of_trajectory(one: TrajectoryWhy) -> Iterator[str]:
    yield f"{one.trajectory[:8]} {', '.join(one.stages)}, steps {one.start_step} → {one.stop_step}: {one.state}"
    if one.nearest:
        yield from _of_nearest(one.nearest)
    for left in one.left:
        what = f"train {left.start_step} → {left.stop_step}" if left.stop_step > left.start_step else "pass again"
        yield f"  {what}: {left.why}"
    if one.tried:
        yield f"  {one.tried}"


def _of_evaluations(one: EvaluationsWhy) -> Iterator[str]:
    steps = f"step{'s' if len(one.steps) > 1 else ''} {', '.join(map(str, one.steps))}"
    yield f"{one.metric}, {one.nfe} NFE, {steps}: {one.why}"
    if one.nearest:
        yield from _of_nearest(one.nearest)


def _of_nearest(nearest: Nearest) -> Iterator[str]:
    yield f"  the nearest is {nearest.key[:8]}, from which it differs in:"
    yield from (f"    {difference.in_words()}" for difference in nearest.differences)
