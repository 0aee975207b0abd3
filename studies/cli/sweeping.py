"""``study sweep``: run a study with a sweep, and rank its points."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli.options import DEFAULT_HOME, HomeOpt, ScaleOpt, SeedsOpt, StudyArg, VariantOpt
from studies.cli.running import WorkersOpt, execute
from studies.errors import StudyError

if TYPE_CHECKING:
    from studies.schema import ResolvedStudy

OWN_KEYS = {"base", "space", "strategy", "points", "seed"}  # of a sweep and of no study: they need no 'sweep.' before

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
    out: Annotated[Path, typer.Option("--out", help="Folder for the ranking and the figure.")] = Path("report"),
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """Run a study that has a sweep as `study run` does, then rank the points of the sweep and draw its figure.

    Points that the home holds already are not computed again. The best point is known only up to its seeds: points that
    these cannot tell from it are named.
    """
    chosen, said = choose_sweep(study, scale, seeds, override or [], variant)
    status = execute([chosen], said, [study], variant, workers, home)
    if status in (0, 1):  # not stopped: a ranking of what is there
        _report(chosen, study, variant, out, home)
    sys.exit(status)


def choose_sweep(
    name: str, scale: str | None, seeds: str | None, overrides: Sequence[str], variant: str | None
) -> tuple[ResolvedStudy, str]:
    """The study asked for, and in words its scale and what of it is left out since it does not fit a space replaced.

    Raises: StudyError, also for a study without a sweep.
    """
    from studies.cli.choose import check_variant, default_scale, parse_seeds, source_of
    from studies.fitting import leave_out_misfits
    from studies.loader import merged, validated

    check_variant(overrides, variant)
    source = source_of(name)
    why = "as asked"
    if scale is None:
        scale, why = default_scale(source)
    data, overridden = merged(source, scale, [in_sweep(item) for item in overrides], parse_seeds(seeds))
    if not isinstance(data.get("sweep"), dict):
        raise StudyError(f"study '{name}' has no sweep ({_with_sweep()}); `study run {name}` runs it")
    left_out: dict[str, list[str]] = {}
    if any(path[0] == "sweep" for path in overridden):
        if ("sweep", "arm_name") not in overridden:
            data["sweep"]["arm_name"] = name_of_points(data)
        left_out = leave_out_misfits(data, {str(path[0]) for path in overridden})
    resolved = validated(data, source, overridden)
    words = [f"scale {scale} ({why}): {resolved.scale_text}", *_left_out(left_out)]
    return resolved, "\n".join([*words, *same_points(resolved)])


def _left_out(parts: dict[str, list[str]]) -> Iterator[str]:
    """What the study is without, a line a reason."""
    for why, names in parts.items():
        yield f"left out, since {why}: {', '.join(names)}"


def in_sweep(override: str) -> str:
    """``space.k=[1]`` → ``sweep.space.k=[1]``; other overrides stay as they are."""
    key = override.partition("=")[0].partition(".")[0].strip()
    return f"sweep.{override.strip()}" if key in OWN_KEYS else override


def _with_sweep() -> str:
    from studies.loader import builtin_names, load_source

    found = [name for name in builtin_names() if load_source(name).data.get("sweep")]
    return f"there is one in: {', '.join(found)}" if found else "no built-in study has one"


def name_of_points(data: dict[str, Any]) -> str:
    """The format string of the sweep's arms, with all attributes of its space in it; made anew where it names one that
    the arms no longer have."""
    sweep, pattern = data["sweep"], str(data["sweep"].get("arm_name", ""))
    space = list(_parts(sweep.get("space")))
    shared = {name for panel in _parts(data.get("panels")).values() for name in _parts(_parts(panel).get("arms"))}
    try:
        fields = {field for _, field, _, _ in Formatter().parse(pattern) if field}
    except ValueError:
        return pattern  # validation says what is wrong with it
    if fields - {*space, *shared, *_parts(sweep.get("base"))}:
        pattern, fields = "", set()
    return "_".join([*filter(None, [pattern]), *(f"{name}{{{name}}}" for name in space if name not in fields)])


def _parts(value: Any) -> dict[str, Any]:
    """A mapping as it is; validation says what is wrong with anything else."""
    return value if isinstance(value, dict) else {}


def same_points(study: ResolvedStudy) -> Iterator[str]:
    """Which points of the sweep are one and the same training, so that they rank alike."""
    from studies.arms import expand_seed

    arms = expand_seed(study, study.seeds[0])
    points = {(panel, pattern.format(**a)) for panel in study.panels for pattern, a in _points(study, panel)}
    alike: dict[tuple[Any, ...], list[str]] = {}
    for arm in arms:
        if (arm.panel, arm.name) in points:
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
