"""Figures of levels (Table 4 as a picture): places, intervals, lines across, and the paper's values beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from scipy import stats

from reports.errors import NothingToReport, ReportError
from reports.figures import truth_measured
from reports.files import save_figure
from reports.levels import COLUMNS, with_roles
from reports.versions import TRUTH, Version
from studies.cli.sweeping import choose_sweep
from studies.figure import Levels
from studies.loader import load_source, resolve

from .pictures import assert_nothing_cut_or_overlapping, texts
from .sweeps import LIKE_TABLE_4, SWEEP, tiny_sweep
from .synthetic import FakeRun, Subject, draw_case, measured, noisy

TRUTHS = (
    "truth=v_error", "dynamics.data=gmm",
    "measure=[{metric: {name: frechet, features: pixel}, every_epochs: 2}, {metric: v_error}]",
)  # fmt: skip


def means(ax: Axes) -> dict[float, float]:
    """Where the large dots stand."""
    return {float(line.get_xdata()[0]): float(line.get_ydata()[0]) for line in ax.lines if line.get_markersize() == 7}


def across(ax: Axes) -> set[float]:
    """The heights of the lines that cross the axes."""
    return {float(line.get_ydata()[0]) for line in ax.lines if list(line.get_xdata()) == [0, 1]}


def test_levels_are_means_of_the_last_values_at_their_places() -> None:
    resolved, frame, protocols = tiny_sweep()
    drawing = draw_case(resolved, frame, protocols)
    ends = frame[frame["epoch"] == 4]
    for ax, panel in zip(drawing.figure.axes, ("wide", "narrow"), strict=True):
        own = ends[ends["panel"] == panel]
        mean = own.groupby("arm")["value"].mean()
        assert means(ax) == pytest.approx({lr: mean[f"tuned_lr{lr:g}"] for lr in (0.0005, 0.002, 0.008)})
        assert sorted(across(ax)) == pytest.approx(sorted([mean["plain"], mean[f"v_only_{panel}"]]))
        assert ax.get_xscale() == "log" and ax.get_yscale() == "linear"
        first = own["value"][own["arm"] == "tuned_lr0.0005"]
        bars = [c for c in ax.containers if isinstance(c, ErrorbarContainer)]
        interval = stats.t.interval(0.95, 5, first.mean(), stats.sem(first))
        assert bars[0].lines[2][0].get_segments()[0][:, 1] == pytest.approx(interval)
    assert drawing.missing == []
    assert_nothing_cut_or_overlapping(drawing)


def test_csv_is_what_is_drawn_and_all_is_said(tmp_path: Path, real_png: None) -> None:
    resolved, frame, protocols = tiny_sweep(range(3))
    drawing = draw_case(resolved, frame, protocols)
    table = pd.read_csv(save_figure(drawing, tmp_path, "fig")[3])
    assert list(table.columns) == COLUMNS and len(table) == 2 * 5 * 3
    assert table.groupby("role")["arm"].nunique().to_dict() == {"control": 2, "level": 3, "reference": 1}
    joined = table.merge(frame.drop_duplicates("evaluation"), on="evaluation", suffixes=("", "_stored"))
    assert len(joined) == len(table) and (joined["value"] == joined["value_stored"]).all()
    assert set(table["x"].dropna()) == {0.0005, 0.002, 0.008} and table["x"][table["role"] != "level"].isna().all()
    said = texts(drawing)
    for part in ("learning rate", "plain (reference)", "v alone (control)", "3 seeds behind every dot and line",
                 "Control 'v_only_narrow' (ours", "(a) width 16", "0.0005"):  # fmt: skip
        assert part in said, part
    assert said.count("v alone (control)") == 1, "controls called alike stand once in the legend"
    assert "paper's distances" not in said


def test_the_papers_values_stand_beside() -> None:
    resolved, frame, protocols = tiny_sweep(range(3), LIKE_TABLE_4, best=1.0)
    drawing = draw_case(resolved, frame, protocols)
    *ours, paper = drawing.figure.axes
    assert len(ours) == 2 and "The paper, Table 4: FID (1-NFE)" in texts(drawing)
    (curve,) = [line for line in paper.lines if line.get_marker() == "D"]
    assert dict(zip(curve.get_xdata(), curve.get_ydata(), strict=True)) == {0.5: 11.16, 1: 10.2, 2: 11.44, 3: 11.99}
    assert across(paper) == {11.58}
    assert "another scale" in texts(drawing)
    rows = drawing.points[drawing.points["panel"] == "paper"]
    assert rows.groupby("role").size().to_dict() == {"level": 4, "reference": 1} and rows["evaluation"].isna().all()
    assert_nothing_cut_or_overlapping(drawing)
    one = frame[frame["panel"] == "wide"]
    alone = resolved.model_copy(update={"panels": {"wide": resolved.panels["wide"]}, "as_in_paper": True})
    drawing = draw_case(alone, one, protocols)
    assert len(drawing.figure.axes) == 2 and "another scale" not in texts(drawing)
    assert_nothing_cut_or_overlapping(drawing)
    other = draw_case(resolved, frame, protocols, Version("other", "frechet_pixel"))
    assert len(other.figure.axes) == 2, "only the declared figure is the paper's"


def test_the_papers_levels_stand_beside_another_grid() -> None:
    resolved, _ = choose_sweep("k_schedule", "cpu", "0-1", ["space.schedule_power=[0.25, 4]"], "wide")
    made = measured(resolved, lambda arm, p: noisy(arm, p, 0.02) * (2.0 if arm.name == "k4" else 1.0))
    drawing = draw_case(resolved, *made)
    *ours, paper = drawing.figure.axes
    (curve,) = [line for line in paper.lines if line.get_marker() == "D"]
    assert dict(zip(curve.get_xdata(), curve.get_ydata(), strict=True)) == {0.5: 11.16, 1: 10.2, 2: 11.44, 3: 11.99}
    assert across(paper) == {11.58}
    for ax in drawing.figure.axes:
        assert list(ax.get_xticks()) == [0.25, 0.5, 1, 2, 3, 4]
        low, high = ax.get_xlim()
        assert low < 0.25 and high > 4
    drawn = drawing.points[(drawing.points["role"] == "level") & (drawing.points["panel"] != "paper")]
    assert set(drawn["arm"]) == {"k0.25", "k4"} and len(ours) == 2
    assert_nothing_cut_or_overlapping(drawing)


@pytest.mark.parametrize("seeds, meaningless", [(1, False), (2, True)])
def test_few_seeds_and_half_a_study(seeds: int, meaningless: bool, tmp_path: Path) -> None:
    resolved, frame, protocols = tiny_sweep(range(seeds), LIKE_TABLE_4, best=1.0)
    frame.loc[frame["arm"].isin(["k2", "v_only_wide"]) & (frame["panel"] == "wide"), "value"] = np.nan
    drawing = draw_case(resolved.model_copy(update={"meaningless": meaningless}), frame, protocols)
    assert len(save_figure(drawing, tmp_path, "fig")) == 4
    assert drawing.missing == [f"wide {arm}: {seeds} point{'s' * (seeds > 1)} (seed{'s 0–1' if seeds > 1 else ' 0'})"
                               for arm in ("k2", "v_only_wide")]  # fmt: skip
    assert ("One seed: no interval" in texts(drawing)) == (seeds == 1) != ("95 % interval" in texts(drawing))
    assert texts(drawing).count("MEANINGLESS") == 3 * meaningless, "the heading and our axes, not the paper's"
    assert_nothing_cut_or_overlapping(drawing)


def test_several_arms_at_one_place_are_not_joined() -> None:
    overrides = ("claims=[]", "constants.mean=0.1", "sweep.space.mean=[-0.4, 0.4]",
                 'sweep.arm_name="lr{lr:g}_{mean:g}"',
                 "stages.0.time_sampler={name: logit_normal, mean: $mean}")  # fmt: skip
    drawing = draw_case(*tiny_sweep(range(2), overrides))
    lines = [line for ax in drawing.figure.axes for line in ax.lines if len(line.get_xdata()) == 3]
    assert lines == [] and len(drawing.points[drawing.points["role"] == "level"]) == 2 * 2 * 6
    joined = draw_case(*tiny_sweep(range(2)))
    assert len([line for ax in joined.figure.axes for line in ax.lines if len(line.get_xdata()) == 3]) == 2


def test_truth_version() -> None:
    resolved = resolve(load_source(str(SWEEP)), "cpu", TRUTHS, [0, 1])
    frame, protocols = measured(resolved, lambda arm, point: noisy(arm, point, 0.1))
    assert truth_measured(Subject(resolved, frame, protocols, FakeRun()))
    drawing = draw_case(resolved, frame, protocols, TRUTH)
    assert set(drawing.points["metric"]) == {"v_error"} and "Truth version: true error of v" in texts(drawing)
    assert set(draw_case(resolved, frame, protocols).points["metric"]) == {"frechet_pixel"}
    assert not truth_measured(Subject(*tiny_sweep([0]), FakeRun()))


def test_what_cannot_be_drawn() -> None:
    resolved, frame, protocols = tiny_sweep([0])
    with pytest.raises(NothingToReport, match=r"no measured point of frechet_pixel at 1 NFE.*study run tiny_sweep"):
        draw_case(resolved, frame.assign(value=np.nan), protocols)
    figure = Levels(kind="levels", x="method", x_label="x")
    with pytest.raises(ReportError, match=r"'method' of arm 'plain' is no number but 'plain'"):
        with_roles(figure, frame)
    negative = frame.assign(attributes=[{"lr": -1.0} if a.get("lr") else a for a in frame["attributes"]])
    with pytest.raises(ReportError, match=r"'lr' of arm 'tuned_lr0.0005' is no positive number"):
        draw_case(resolved, negative, protocols)
