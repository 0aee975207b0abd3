"""Figures of bars (Figs 4, 5), their truth versions, and other metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import BarContainer, ErrorbarContainer
from scipy import stats

from reports.bardata import COLUMNS
from reports.drawing import Drawing
from reports.errors import NothingToReport, ReportError
from reports.files import save_figure
from reports.versions import TRUTH, Version
from studies.figure import Bars
from studies.schema import ResolvedStudy

from .pictures import assert_nothing_cut_or_overlapping, texts
from .synthetic import corruption, draw_case, gap_restriction, task_affinity, v_then_u


def heights(drawing: Drawing) -> list[float]:
    """Of the bars, colour by colour."""
    return [bar.get_height() for c in drawing.figure.axes[0].containers if isinstance(c, BarContainer) for bar in c]


def changed(resolved: ResolvedStudy, **update: object) -> ResolvedStudy:
    assert resolved.figure is not None
    return resolved.model_copy(update={"figure": resolved.figure.model_copy(update=update)})


def test_bars_are_means_of_the_last_values() -> None:
    resolved, frame, protocols = gap_restriction()
    drawing = draw_case(resolved, frame, protocols)
    ends = frame[(frame["metric"] == "frechet_pixel") & (frame["stage"] == "u_finetune")]
    means = ends.groupby("arm")["value"].mean()
    gaps = ("01_03", "03_05", "05_07", "07_09")
    wanted = [means[f"{start}_{gap}"] for start in ("random", "pretrained") for gap in gaps]
    assert heights(drawing) == pytest.approx(wanted)
    whiskers = [c for c in drawing.figure.axes[0].containers if isinstance(c, ErrorbarContainer)]
    first = ends[ends["arm"] == "random_01_03"]["value"]
    interval = stats.t.interval(0.95, 5, first.mean(), stats.sem(first))
    segment = whiskers[0].lines[2][0].get_segments()[0]
    assert segment[:, 1] == pytest.approx(interval)
    assert drawing.figure.axes[0].get_yscale() == "linear" and drawing.missing == []


def test_csv_is_what_is_drawn(tmp_path: Path, real_png: None) -> None:
    resolved, frame, protocols = gap_restriction()
    drawing = draw_case(resolved, frame, protocols)
    files = save_figure(drawing, tmp_path, "fig")
    table = pd.read_csv(files[3])
    assert list(table.columns) == COLUMNS and table["value"].tolist() == drawing.points["value"].tolist()
    assert table.groupby("role")["arm"].nunique().to_dict() == {"bar": 8, "control": 2, "reference": 1}
    joined = table.merge(frame.drop_duplicates("evaluation"), on="evaluation", suffixes=("", "_stored"))
    assert len(joined) == len(table) == 66 and (joined["value"] == joined["value_stored"]).all()
    reference = table[table["role"] == "reference"]
    assert set(reference["stage"]) == {"v_pretrain"} and set(reference["arm"]) == {"v_pretrained"}


def test_every_seed_is_a_dot_and_lines_cross() -> None:
    drawing = draw_case(*gap_restriction(range(5)))
    ax = drawing.figure.axes[0]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == 8 and {len(line.get_xdata()) for line in dots} == {5}
    inside = np.array([line.get_xdata() for line in dots])
    assert np.ptp(np.diff(inside, axis=1)) < 1e-9  # a seed stands equally far aside in every bar
    said = texts(drawing)
    for part in (
        "v_pretrained (reference)", "continue_v (control)", "continue_meanflow (control)", "5 seeds behind every bar",
        "32-NFE (euler) Fréchet distance, pixel space", "gaps Δt of u-finetuning", "0.1–0.3", "v-pretrained",
        "Fig. 4, Sec. 4.2", "Control 'continue_v' (ours, not the paper's)", "Assumptions at this scale",
    ):  # fmt: skip
        assert part in said, part
    assert_nothing_cut_or_overlapping(drawing)


def test_average_over_the_last_stage() -> None:
    resolved, frame, protocols = task_affinity()
    drawing = draw_case(resolved, frame, protocols)
    points = drawing.points
    assert points.groupby("role").size().to_dict() == {"bar": 48, "ceiling": 48}
    assert set(points["n_points"]) == {8} and set(points["summary"]) == {"average"}
    own = frame[(frame["metric"] == "task_affinity[0.5,0.7]") & (frame["arm"] == "small_gap")]
    by_seed = own.groupby("seed")["value"].mean()
    bar = points[(points["metric"] == "task_affinity[0.5,0.7]") & (points["arm"] == "small_gap")]
    assert bar.set_index("seed")["value"].to_dict() == pytest.approx(by_seed.to_dict())
    assert list(dict.fromkeys(points["x"])) == ["0.1–0.3", "0.3–0.5", "0.5–0.7", "0.7–0.9"]
    assert heights(drawing)[2 * 4 + 2] == pytest.approx(by_seed.mean())
    ticks = [c for c in drawing.figure.axes[0].collections if len(c.get_paths()) == 1 and c.get_zorder() == 5]
    assert len(ticks) == 12
    assert "ceiling" in texts(drawing) and "cosine between gradients" in texts(drawing)
    assert drawing.figure.axes[0].get_yscale() == "linear"
    assert_nothing_cut_or_overlapping(drawing)


def test_a_seed_without_all_its_points_is_left_out() -> None:
    resolved, frame, protocols = task_affinity()
    lost = (frame["metric"] == "task_affinity[0.1,0.3]") & (frame["arm"] == "random") & (frame["seed"] == 2)
    frame.loc[lost & (frame["epoch"] == 20), "value"] = np.nan
    drawing = draw_case(resolved, frame, protocols)
    first = drawing.points[drawing.points["metric"] == "task_affinity[0.1,0.3]"]
    assert set(first[first["arm"] == "random"]["seed"]) == {0, 1, 3}
    assert drawing.missing == ["main random: 1 point (seed 2)"]
    said = texts(drawing)
    assert "1 of 768 points not measured" in said and "3 to 4 of 4 seeds a bar" in said


@pytest.mark.parametrize("scale, n", [("cpu", 1), ("cpu", 2), ("smoke", 1)])
def test_few_seeds_and_half_a_study(scale: str, n: int, tmp_path: Path) -> None:
    resolved, frame, protocols = gap_restriction(range(n), scale)
    frame.loc[frame["arm"].isin(["random_05_07", "pretrained_01_03", "continue_v"]), "value"] = np.nan
    drawing = draw_case(resolved, frame, protocols)
    assert len(save_figure(drawing, tmp_path, "fig")) == 4 and len(drawing.missing) == 3
    assert texts(drawing).count("MEANINGLESS") == (2 if scale == "smoke" else 0)
    assert ("One seed: no interval" in texts(drawing)) == (n == 1) != ("95 % interval" in texts(drawing))
    assert "continue_v (control)" not in texts(drawing)
    assert_nothing_cut_or_overlapping(drawing)


def test_logarithmic_only_beyond_a_decade() -> None:
    resolved, frame, protocols = gap_restriction(range(2))
    far = frame["arm"].str.endswith("07_09")
    drawing = draw_case(resolved, frame.assign(value=frame["value"].where(~far, 40 * frame["value"])), protocols)
    assert drawing.figure.axes[0].get_yscale() == "log" and "lengths of bars mean nothing" in texts(drawing)
    assert_nothing_cut_or_overlapping(drawing)
    negative = draw_case(resolved, frame.assign(value=-frame["value"]), protocols)
    assert negative.figure.axes[0].get_yscale() == "linear"


def test_what_cannot_be_drawn() -> None:
    resolved, frame, protocols = gap_restriction([0])
    with pytest.raises(NothingToReport, match=r"no measured point of frechet_pixel at 32 NFE.*study run obs_gap"):
        draw_case(resolved, frame.assign(value=np.nan), protocols)
    with pytest.raises(ReportError, match=r"random_01_03, random_03_05.* one and the same bar"):
        draw_case(changed(resolved, x="v_epochs"), frame, protocols)
    with pytest.raises(ReportError, match="arm 'random_01_03' of panel 'main' has no attribute 'mu'"):
        draw_case(changed(resolved, colour_by="mu"), frame, protocols)


def test_truth_versions() -> None:
    drawing = draw_case(*gap_restriction(), TRUTH)
    assert set(drawing.points["metric"]) == {"v_error"} and "Truth version: true error of v" in texts(drawing)
    assert_nothing_cut_or_overlapping(drawing)
    drawing = draw_case(*task_affinity(), TRUTH)
    metrics = [f"task_affinity_exact[{r}]" for r in ("0.1,0.3", "0.3,0.5", "0.5,0.7", "0.7,0.9")]
    assert list(dict.fromkeys(drawing.points["metric"])) == metrics and set(drawing.points["role"]) == {"bar"}
    assert "exact v and u as targets" in texts(drawing) and "0.5–0.7" in texts(drawing)
    assert_nothing_cut_or_overlapping(drawing)
    drawing = draw_case(*corruption(range(2), "truth"), TRUTH)
    assert set(drawing.points["metric"]) == {"u_error[1,1]"} and "true error of u, Δt = 1" in texts(drawing)


def test_other_metrics() -> None:
    case = gap_restriction(range(2))
    drawing = draw_case(*case, Version("other", "v_error"))
    assert set(drawing.points["metric"]) == {"v_error"} and "By another metric: true error of v" in texts(drawing)
    drawing = draw_case(*case, Version("other", "frechet_digits_cnn"))
    assert set(drawing.points["nfe"]) == {32}  # the figure's, since it is measured there
    with pytest.raises(ReportError, match=r"'frechet_pixel' at 4 NFE is not .*: frechet_pixel at 32 NFE \(euler\)"):
        draw_case(*case, Version("other", "frechet_pixel", 4))
    with pytest.raises(ReportError, match=r"'nope' is not among .*v_error at 1 NFE"):
        draw_case(*case, Version("other", "nope"))
    drawing = draw_case(*v_then_u(range(2)), Version("other", None, 32))
    assert set(drawing.points["nfe"]) == {32} and set(drawing.points["stage"]) == {"v_pretrain"}


def test_another_metric_by_its_ranges() -> None:
    case = task_affinity(range(2))
    drawing = draw_case(*case, Version("other", "u_error"))
    assert list(dict.fromkeys(drawing.points["x"])) == ["0.1–0.3", "0.3–0.5", "0.5–0.7", "0.7–0.9", "u_error[1,1]"]
    drawing = draw_case(*case, Version("other", "task_affinity_ceiling[0.1,0.3]"))
    assert list(dict.fromkeys(drawing.points["x"])) == ["0.1–0.3"]


@pytest.mark.parametrize(
    "version, suffix",
    [
        (Version(), ""),
        (TRUTH, "_truth"),
        (Version("other", "u_error[0.1,0.3]"), "_u_error_0.1-0.3"),
        (Version("other", "frechet_pixel", 32), "_frechet_pixel_32nfe"),
        (Version("other", None, 4), "_4nfe"),
        (Version("other", "../x/$y"), "_.._x_y"),
    ],
)
def test_names_of_files(version: Version, suffix: str) -> None:
    assert version.suffix == suffix and "/" not in version.suffix


def test_metrics_without_ranges_stand_side_by_side_under_their_own_names() -> None:
    resolved, frame, protocols = gap_restriction()
    figure = Bars(
        kind="bars", colour_by="arm", colour_label="arm", x_label="metric", nfe=32, solver="euler",
        metrics=("frechet_pixel", "frechet_digits_cnn"), metric_labels=("pixels", "features"),
    )  # fmt: skip
    drawing = draw_case(resolved.model_copy(update={"figure": figure}), frame, protocols)
    bars = drawing.points[drawing.points["role"] == "bar"]
    assert bars.groupby("x")["metric"].unique().map(list).to_dict() == {
        "pixels": ["frechet_pixel"],
        "features": ["frechet_digits_cnn"],
    }
    assert (bars.groupby(["x", "colour"])["seed"].nunique() == 6).all()
