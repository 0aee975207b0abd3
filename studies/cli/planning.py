"""``study plan``: the tree, what is missing, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli.options import (
    DEFAULT_HOME,
    HomeOpt,
    JsonOpt,
    OverrideOpt,
    ScaleOpt,
    SeedsOpt,
    StudiesArg,
    VariantOpt,
)

if TYPE_CHECKING:
    from rich.tree import Tree as RichTree

    from sweeps.cost import Cost
    from sweeps.session import Session
    from sweeps.tree import Node


def plan(
    studies: StudiesArg,
    scale: ScaleOpt = None,
    seeds: SeedsOpt = None,
    override: OverrideOpt = None,
    variant: VariantOpt = None,
    power: Annotated[
        bool,
        typer.Option("--power", help="Instead, how many seeds its comparisons need, from the spread in the store."),
    ] = False,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Show what a study would train, how much sharing saves, what is left to do, and what it costs. Trains nothing,
    but for a step of a few rows with what is of your own."""
    from results.layout import Home
    from studies.cli.choose import cannot_run, choose
    from studies.cli.output import console, print_json
    from studies.cli.store import evaluated_in, rates_of
    from sweeps.plan import Inventory
    from sweeps.preflight import impossible
    from sweeps.session import open_session, plan_record

    chosen, said = choose(studies, scale, seeds, override or [], variant, home=home)
    if power:
        from studies.cli.powering import print_power

        print_power(chosen, said, variant, home, json=json)
        return
    session = open_session(chosen, variant)
    rates = rates_of(home)
    jobs = session.jobs(session.inventory(Home(home), evaluated_in(home)))
    if jobs and (problems := impossible(session, times=False)):
        raise cannot_run(studies, chosen[0].scale, problems)
    cost = session.cost(session.jobs(Inventory()), rates)
    remaining = session.cost(jobs, rates)
    if json:
        print_json(plan_record(session, jobs, cost, remaining))
        return
    out = console()
    out.print(said, markup=False, soft_wrap=True)
    out.print(_tree(session))
    _summary(session, jobs_left=len(jobs), cost=cost, remaining=remaining)
    for note in session.notes():
        out.print(f"note: {note}", markup=False, soft_wrap=True)


def _tree(session: Session) -> RichTree:
    """The trajectories of the first seed, as a tree."""
    from rich.tree import Tree as RichTree

    seed = session.seeds[0]
    root = RichTree(f"trajectories of seed {seed} (epochs from the root)")
    branches: dict[str, RichTree] = {}
    names = _arm_names(session, seed)
    for node in session.tree:
        if node.trajectory.seed != seed:
            continue
        parent = node.trajectory.parent
        under = branches[parent.trajectory] if parent else root
        branches[node.key] = under.add(_describe(node, names.get(node.key, "")))
    return root


def _arm_names(session: Session, seed: int) -> dict[str, str]:
    names: dict[str, list[str]] = {}
    for arm in session.arms:
        if arm.seed == seed and arm.stages:
            kind = f"{arm.panel}/{arm.name}" + (" (control)" if arm.control else "")
            names.setdefault(arm.stages[-1].trajectory.key, []).append(kind)
    return {key: ", ".join(arms) for key, arms in names.items()}


def _describe(node: Node, arms: str) -> str:
    start, stop = node.start_step / node.steps_per_epoch, node.stop_step / node.steps_per_epoch
    ends = ", ".join(f"{s / node.steps_per_epoch:g}" for s in sorted(node.full_steps))
    what = f"{node.trajectory.dynamics.in_words()}: epochs {start:g} → {stop:g}"
    return f"{node.key[:8]}  {what}  kept at {ends}" + (f"  [{arms}]".replace("[", "\\[") if arms else "")


def _summary(session: Session, jobs_left: int, cost: Cost, remaining: Cost) -> None:
    from rich.table import Table

    from studies.cli.output import console, gib, hours, scientific

    epochs, n = session.epochs(), len(session.seeds)
    out = console()
    shared = f"{epochs.planned:g} of {epochs.naive:g} suffice, since prefixes are shared"
    parts = [shared if epochs.planned < epochs.naive else f"{epochs.planned:g}; no two arms share a prefix"]
    parts += [f"training that is only probed adds {epochs.probe:g}"] if epochs.probe else []
    parts += [f"our control arms add {epochs.control:g}"] if epochs.control else []
    out.print(f"epochs a seed: {'; '.join(parts)}. Seeds: {n}.")
    table = Table("", "everything", "still to do")
    rows = (
        ("epochs", f"{cost.epochs:,.0f}", f"{remaining.epochs:,.0f}"),
        ("steps", f"{cost.steps:,}", f"{remaining.steps:,}"),
        ("images", f"{cost.images:,}", f"{remaining.images:,}"),
        ("useful FLOPs, v-rows", scientific(cost.v_flops), scientific(remaining.v_flops)),
        ("useful FLOPs, u-rows", scientific(cost.u_flops), scientific(remaining.u_flops)),
        ("training, device time", hours(cost.gpu_hours), hours(remaining.gpu_hours)),
        ("evaluations", f"{cost.evaluations:,}", f"{remaining.evaluations:,}"),
        ("evaluating, device time", hours(cost.evaluation_hours), hours(remaining.evaluation_hours)),
        ("GiB written", gib(cost.gib), gib(remaining.gib)),
        ("files written", f"{cost.files:,}", f"{remaining.files:,}"),
    )
    for row in rows:
        table.add_row(*row)
    out.print(table)
    out.print(f"device time from: {cost.hours_basis}")
    if jobs_left == 0:
        out.print("everything is there already: nothing would be computed")
