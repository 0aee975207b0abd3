"""``study sample`` and ``study compare``: pictures of what arms generate, and two arms side by side."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli.filters import OneScaleOpt, OneVariantOpt, chosen
from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt, OutOpt
from studies.errors import StudyError

if TYPE_CHECKING:
    from studies.arms import Arm
    from sweeps.selection import Selected
    from sweeps.weights import Kept

MOST_ROWS = 24
MOST_NFE = 10_000


class Which(StrEnum):
    ema = "ema"
    online = "online"


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


class SolverName(StrEnum):
    jump = "jump"
    euler = "euler"


def sample(
    what: Annotated[
        list[str], typer.Argument(metavar="ARM", help="Arms that were run: patterns over study/panel/arm.")
    ],
    nfe: Annotated[str, typer.Option("--nfe", metavar="LIST", help="Function evaluations, a column each.")] = "1,2",
    solver: Annotated[SolverName, typer.Option("--solver", help="jump: steps of u; euler: steps of v.")] = (
        SolverName.jump
    ),
    epoch: Annotated[
        float | None, typer.Option("--epoch", help="From the root of the arm. Default: the last kept.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of training. Default: the first of each arm.")
    ] = None,
    latents: Annotated[int, typer.Option("--latents", help="Seed of latents and labels, the same for all arms.")] = 0,
    side: Annotated[int, typer.Option("--side", min=1, max=32, help="Samples along the side of a block.")] = 4,
    weights: Annotated[Which, typer.Option("--weights", help="EMA weights, or those in training.")] = Which.ema,
    device: Annotated[Device, typer.Option("--device", help="Where the networks are evaluated.")] = Device.cpu,
    scale: OneScaleOpt = None,
    variant: OneVariantOpt = None,
    out: OutOpt = Path("report"),
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Draw samples from checkpoints: a row an arm, a column a number of function evaluations, everywhere from the same
    latents and labels. Trains nothing, and measures nothing."""
    import pandas as pd

    from reports.samplegrid import save_grid
    from results.layout import Home
    from studies.cli.output import print_json
    from studies.cli.store import opened
    from sweeps.selection import select, stored_studies
    from sweeps.weights import kept_at

    numbers = _numbers(nfe)
    place = Home(home)
    with opened(place) as engine:
        selected = select(stored_studies(engine), chosen(what, scale, variant, None if seed is None else str(seed)))
    arms: dict[tuple[str, str, str], tuple[Selected, Arm]] = {}
    for one in selected:
        for arm in one.arms:
            arms.setdefault((one.stored.name, arm.panel, arm.name), (one, arm))
    if len(arms) > MOST_ROWS:
        raise StudyError(f"{len(arms)} arms match, and a picture has at most {MOST_ROWS} rows: name fewer")
    rows, places = {}, []
    for (name, panel, arm_name), (_, arm) in arms.items():
        kept = kept_at(place, arm, epoch, weights.value)
        label = f"{name}: {panel}/{arm_name}, epoch {kept.epoch:g}, seed {arm.seed}"
        rows[label] = [_pictures(kept, n, solver, latents, side, weights, device.value) for n in numbers]
        at: dict[str, Any] = {
            "study": arm.study,
            "scale": arm.scale,
            "variant": arm.variant,
            "panel": panel,
            "arm": arm_name,
        }
        at |= {"seed": arm.seed, "epoch": kept.epoch, "step": kept.step, "trajectory": kept.checkpoint.trajectory}
        places += [{**at, "nfe": n, "solver": solver.value, "weights": weights.value} for n in numbers]
    sizes = {pictures.shape[1:] for columns in rows.values() for pictures in columns}
    if len(sizes) > 1:
        raise StudyError(
            f"the samples of these arms differ in size ({', '.join(map(str, sorted(sizes)))}): name others"
        )
    caption = (
        f"The first {side * side} samples, none selected, everywhere from the same latents and labels (seed "
        f"{latents}); {weights.value} weights; solver {solver.value}."
    )
    files = save_grid(
        rows, [f"{n} NFE" for n in numbers], caption, pd.DataFrame(places), out, "samples", side=side,
        meaningless=any(one.stored.study.meaningless for one in selected),
    )  # fmt: skip
    if json:
        print_json({"files": [str(path) for path in files], "rows": places})
        return
    sys.stdout.write("".join(f"wrote {path}\n" for path in files))


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,5}", part) and 0 < int(part) <= MOST_NFE for part in parts):
        raise StudyError(f"--nfe {text}: write numbers of function evaluations from 1 to {MOST_NFE}, e.g. 1,2,4")
    return [int(part) for part in dict.fromkeys(parts)]


def _pictures(kept: Kept, nfe: int, solver: SolverName, latents: int, side: int, weights: Which, device: str) -> Any:
    from meanflow_core.evaluation.images import as_pictures
    from sweeps.device import missing_device
    from sweeps.weights import sample_arm

    data = kept.stage.trajectory.dynamics.data
    if missing := missing_device(device):
        raise StudyError(f"--device {device}: {missing}")
    samples = sample_arm(kept, side * side, nfe, solver.value, latents, weights.value, device)
    if samples.dim() != 4:
        raise StudyError(f"samples of the data '{data.short}' have shape {tuple(samples.shape[1:])} and are no images")
    return as_pictures(samples, data, device=device)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="An arm that was run: study/panel/arm.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another arm.")],
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="LABEL", help="Drawn. Default: the primary metric.")
    ] = None,
    nfe: Annotated[int | None, typer.Option("--nfe", min=1, help="Of the metric drawn.")] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", metavar="PATTERN", help="Of the arms, where they were run at several.")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option("--as", metavar="PATTERN", help="The variant, where there are several; '-': without one."),
    ] = None,
    b_scale: Annotated[
        str | None, typer.Option("--b-scale", metavar="PATTERN", help="Of B, where it is another.")
    ] = None,
    b_variant: Annotated[
        str | None, typer.Option("--b-as", metavar="PATTERN", help="Of B, where it is another; '-': without one.")
    ] = None,
    out: OutOpt = Path("report"),
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Print in what two arms are configured differently and by how much they differ at their ends, paired by seed, and
    draw their curves on one picture."""
    from reports.comparison import compare as compared
    from reports.comparison import save_comparison
    from results.layout import Home
    from studies.cli.onearm import side_of
    from studies.cli.output import print_json
    from studies.cli.store import opened
    from sweeps.differences import arm_differences

    place = Home(home)
    with opened(place) as engine:
        one, first = side_of(engine, place, a, scale, variant)
        two, second = side_of(
            engine, place, b, b_scale or scale, b_variant or variant, "--b-scale and, of a variant, --b-as"
        )
        found = compared(first, second)
    told = arm_differences(one, two)
    caption = (
        f"a: {first.name}; b: {second.name}. Mean, Student's 95 % band and single seeds. Runs {first.stored.run.run} "
        f"and {second.stored.run.run}."
    )
    stem = "_".join(["compare", *(re.sub(r"[^A-Za-z0-9.\-]+", "_", side.name) for side in (first, second))])
    files = save_comparison(found, out, stem, caption, metric, nfe)
    if json:
        table = found.table.astype(object).where(found.table.notna(), None).to_dict("records")
        about = {"a": first.name, "b": second.name, "differences": [d.to_json() for d in told]}
        print_json({**about, "ends": table, "files": [str(path) for path in files]})
        return
    _print(found.table, first.name, second.name, [d.in_words() for d in told])
    sys.stdout.write("".join(f"wrote {path}\n" for path in files))


def _print(table: Any, a: str, b: str, told: list[str]) -> None:
    from rich.table import Table

    from reports.text import number, span
    from studies.cli.output import console

    out = console()
    out.print(f"a  {a}\nb  {b}", markup=False, soft_wrap=True)
    lines = told or ["nothing: they train alike"]
    out.print("configured differently (a → b):", *(f"  {line}" for line in lines), sep="\n", markup=False)
    shown = Table("at the end", "NFE", "a", "b", "a − b", "in % of b", "95 % interval", "p", "seeds")
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        unit = "" if row["low_percent"] is None else "_percent"
        interval = None if row[f"low{unit}"] is None else (row[f"low{unit}"], row[f"high{unit}"])
        solver = "" if row["solver"] == "jump" else f" ({row['solver']})"
        shown.add_row(
            row["metric"], f"{row['nfe']}{solver}", number(row["a"]), number(row["b"]), number(row["difference"]),
            number(row["percent"]), span(interval, " %" * bool(unit)), number(row["p"]), str(row["n"]),
        )  # fmt: skip
    out.print(shown)
    out.print(
        "Paired by seed; Student's t, two-sided, without correction for their number: a look, not a verdict.",
        markup=False,
    )
