"""``study sweep``: run a study with a sweep, and rank its points."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli.backends import BackendChoice
from studies.cli.options import (
    DEFAULT_HOME,
    AddressOpt,
    BackendName,
    BackendOpt,
    ClusterOpt,
    DetachOpt,
    DryRunOpt,
    HomeOpt,
    OutOpt,
    PanelOpt,
    SamplesOpt,
    ScaleOpt,
    SearchOpt,
    SeedsOpt,
    StudyArg,
    VariantOpt,
    WorkersOpt,
)
from studies.cli.running import execute
from studies.cli.searching import asked_of, search_and_finish
from studies.errors import StudyError
from studies.sweep import SEARCHES

if TYPE_CHECKING:
    from studies.schema import ResolvedStudy

SweepOverrideOpt = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        metavar="KEY=VALUE",
        help="Change a setting or the sweep, e.g. -o space.schedule_power=[0.25,4], or -o strategy=random "
        "-o points=8. Needs --as.",
    ),
]


def sweep(
    study: StudyArg,
    scale: ScaleOpt = None,
    seeds: SeedsOpt = None,
    override: SweepOverrideOpt = None,
    variant: VariantOpt = None,
    workers: WorkersOpt = None,
    backend: BackendOpt = BackendName.LOCAL,
    address: AddressOpt = None,
    cluster: ClusterOpt = None,
    detach: DetachOpt = False,
    dry_run: DryRunOpt = False,
    search: SearchOpt = None,
    samples: SamplesOpt = None,
    panel: PanelOpt = None,
    out: OutOpt = Path("report"),
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """Run a study that has a sweep as `study run` does, then rank the points of the sweep and draw its figure.

    Points that the home holds already are not computed again. The best point is known only up to its seeds: points that
    these cannot tell from it are named.
    """
    from results.layout import Home
    from studies.cli.rounds import prove
    from studies.dynamics import trainers
    from sweeps.session import open_session

    choice = BackendChoice(backend, workers, address, cluster, detach, dry_run)
    asked = asked_of(study, scale, seeds, override or [], variant, search, samples, panel)
    if asked is not None and (detach or dry_run):
        raise StudyError(f"--search {search} learns from every round: leave out --detach and --dry-run")
    if asked is not None and asked.kind in SEARCHES:
        status, chosen = search_and_finish(asked, choice, home)
    else:
        chosen, said = (
            asked.resolve() if asked else choose_sweep(study, scale, seeds, override or [], variant, home=home)
        )
        if any(trainers(chosen)) and not dry_run:
            prove(open_session([chosen], variant), Home(home))
        status = execute([chosen], said, [study], variant, choice, home)
    if status in (0, 1) and not (detach or dry_run):  # not stopped: a ranking of what is there
        _report(chosen, study, variant, out, home)
    sys.exit(status)


def choose_sweep(
    name: str,
    scale: str | None,
    seeds: str | None,
    overrides: Sequence[str],
    variant: str | None,
    panel: str | None = None,
    home: Path | None = None,
) -> tuple[ResolvedStudy, str]:
    """The study asked for, with one ``panel`` or all, and what is to be said of the choice and of the points of its
    sweep.

    Raises: StudyError, also for a study without a sweep.
    """
    from studies.cli.choose import choose
    from studies.fitting import with_sweep

    (resolved,), said = choose([name], scale, seeds, overrides, variant, panel, home)
    if resolved.sweep is None:
        there = ", ".join(built_in for built_in in with_sweep() if built_in != name)
        raise StudyError(
            f"study '{name}' has no sweep"
            + (" left by the overrides" if overrides else "")
            + (f" (there is one in: {there})" if there else "")
            + f"; `study run {name}` runs it without"
        )
    return resolved, "\n".join([said, *same_points(resolved)])


def same_points(study: ResolvedStudy) -> Iterator[str]:
    """Which points of the sweep are one and the same training, so that they rank alike."""
    from studies.arms import expand_seed

    arms = expand_seed(study, study.seeds[0])
    points = {(panel, pattern.format(**a)) for panel in study.panels for pattern, a in _points(study, panel)}
    alike: dict[tuple[Any, ...], list[str]] = {}
    for arm in arms:
        if arm.stages and (arm.panel, arm.name) in points:  # without any, a search has failed to train it
            steps = tuple((stage.trajectory.key, stage.stop_step) for stage in arm.stages)
            alike.setdefault((arm.panel, *steps), []).append(arm.name)
    for (panel, *_), names in alike.items():
        if len(names) > 1:
            yield f"note: in panel {panel} the points {', '.join(names)} are one and the same training"


def _points(study: ResolvedStudy, panel: str) -> list[tuple[str, dict[str, Any]]]:
    return study.arms_of(panel)[len(study.panels[panel].attributes()) :]


def _report(study: ResolvedStudy, asked: str, variant: str | None, out: Path, home: Path) -> None:
    """Print the ranking of what is measured, and write it and the figure."""
    from reports.errors import NothingToReport
    from reports.rankingtext import plain
    from reports.report import build_report
    from results.layout import Home
    from studies.cli.output import console
    from studies.cli.store import opened

    place = Home(home)
    with opened(place) as engine:
        try:
            made = build_report(
                engine, place, study=study.study, scale=study.scale, variant=variant, out=out, asked=asked
            )
        except NothingToReport as error:
            sys.stdout.write(f"nothing to rank yet: {error}\n")
            return
    if made.ranking:
        console().print("\n" + plain(made.ranking.rankings), markup=False, highlight=False, soft_wrap=True)
    lines = [f"missing: {phrase}" for phrase in made.missing] + [f"wrote {path}" for path in made.files]
    sys.stdout.write("\n".join(["", *lines]) + "\n")
