from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.font_manager import FontProperties
from PIL import Image

from reports import words
from reports.curves import CSV_COLUMNS
from reports.drawing import Drawing
from reports.errors import NothingToReport, ReportError
from reports.files import save_figure
from reports.frames import Reading
from reports.page import DPI, Page

from .pictures import assert_nothing_cut_or_overlapping, texts
from .synthetic import corruption, draw_case
from .synthetic import v_then_u as case


def drawing(seeds: int = 4, scale: str = "cpu") -> Drawing:
    return draw_case(*case(range(seeds), scale=scale))


def test_files_and_their_bytes(tmp_path: Path, real_files: None) -> None:
    """Files are whole, and equal drawings give equal bytes, whatever the user's settings are."""
    drawn = drawing(2, "smoke")
    files = save_figure(drawn, tmp_path / "new", "fig")
    assert [f.name for f in files] == ["fig.png", "fig.pdf", "fig.svg", "fig.csv"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(files)  # no temporary file is left
    with Image.open(files[0]) as image:
        assert image.width == 1600 and image.height > 1000
        assert len(np.unique(np.asarray(image.convert("L")))) > 100
    table = pd.read_csv(files[3])
    assert list(table.columns) == CSV_COLUMNS
    assert table["value"].tolist() == drawn.points["value"].tolist()
    with mpl.rc_context({"font.size": 10.0, "svg.hashsalt": None}):
        again = save_figure(drawing(2, "smoke"), tmp_path / "again", "fig")
    for one, other in zip(files, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_csv_is_what_is_drawn() -> None:
    resolved, frame, protocols = case(range(3))
    drawn = draw_case(resolved, frame, protocols)
    wanted = frame[(frame["metric"] == "frechet_pixel") & (frame["nfe"] == 1)]
    assert len(drawn.points) == len(wanted) and set(drawn.points["nfe"]) == {1}
    assert set(drawn.points["evaluation"]) == set(wanted["evaluation"])
    # the mean at the end of arm v20 in panel b, read off the axes
    ends = drawn.points[drawn.points["panel"].eq("bottom") & drawn.points["arm"].eq("v20")]
    mean = ends[ends["epoch"] == 80]["value"].mean()
    lasts = [line.get_ydata()[-1] for line in drawn.figure.axes[1].lines if line.get_linewidth() > 1.5]
    assert any(np.isclose(last, mean) for last in lasts)
    # one polyline of single seeds for each stage of each arm
    assert {len(c.get_segments()) for c in drawn.figure.axes[1].collections if hasattr(c, "get_segments")} == {3}


def test_saving_replaces_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {f: f.read_bytes() for f in save_figure(drawing(2), tmp_path, "fig")}
    broken = drawing(3)
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_figure(broken, tmp_path, "fig")
    assert {f: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_caption_says_what_is_missing() -> None:
    resolved, frame, protocols = case(range(4))
    lost = (frame["arm"] == "v20") & (frame["panel"] == "top") & frame["seed"].isin([1, 2])
    frame.loc[lost & (frame["stage_epoch"] >= 30), "value"] = np.nan
    drawn = draw_case(resolved, frame, protocols)
    assert drawn.missing == ["top v20: 8 points (seeds 1–2)"]
    said = texts(drawn)
    assert "8 of 420 points not measured: top v20: 8 points (seeds 1–2)." in said
    assert "2 to 4 of 4 seeds a point" in said
    assert_nothing_cut_or_overlapping(drawn)


def test_half_finished_study(tmp_path: Path) -> None:
    resolved, frame, protocols = case(range(3))
    frame.loc[(frame["panel"] == "bottom") | (frame["seed"] > 0) | (frame["epoch"] > 10), "value"] = np.nan
    drawn = draw_case(resolved, frame, protocols)
    assert len(save_figure(drawn, tmp_path, "fig")) == 4 and len(drawn.missing) == 11
    assert_nothing_cut_or_overlapping(drawn)


def test_everything_that_must_be_said_is_said() -> None:
    drawn = drawing()
    said = texts(drawn)
    for part in (
        "1-NFE Fréchet distance, pixel space", "epochs from the root (40 steps each)",
        "4 seeds behind every point",
        "5000 samples", "EMA weights", "20261120T120501-1a2b3c of 2026-11-20", "Fig. 2, Sec. 4.1, App. A",
        "mlp (width", "joint (control)", "ordinary MeanFlow training", "Assumptions at this scale",
    ):  # fmt: skip
        assert part in said, part
    resolved = case([0])[0]
    for assumption in (*resolved.assumptions, *resolved.scale_assumptions):
        assert " ".join(assumption.split()[:4]) in said
    assert "MEANINGLESS" not in said
    assert_nothing_cut_or_overlapping(drawn)


def test_the_floor_is_a_line_within_the_axes() -> None:
    resolved, frame, protocols = case(range(2))
    floored = {key: {**p, "floor": 1e-3 if p["label"] == "frechet_pixel" else 7.0} for key, p in protocols.items()}
    drawn = draw_case(resolved, frame, floored)
    assert "Dotted: the floor, 0.001, which as many samples of the data's own law score." in texts(drawn)
    assert all(ax.get_ylim()[0] < 1e-3 for ax in drawn.figure.axes[:2])
    assert "floor" not in texts(draw_case(resolved, frame, protocols))
    assert_nothing_cut_or_overlapping(drawn)


def test_meaningless_is_said_loudly() -> None:
    drawn = drawing(1, "smoke")
    assert texts(drawn).count("MEANINGLESS") == 5  # on four axes and in the heading
    assert "One seed: no interval" in texts(drawn)
    assert_nothing_cut_or_overlapping(drawn)


def test_layout_holds_at_any_length() -> None:
    resolved, frame, protocols = case(range(2))
    long = "word $x^ a_very_long_word_" + "x" * 300 + " " + "many more words " * 60
    update = {
        "title": long,
        "assumptions": (long,) * 5,
        "scale_assumptions": (),
        "panels": {k: p.model_copy(update={"title": long}) for k, p in resolved.panels.items()},
    }
    assert_nothing_cut_or_overlapping(draw_case(resolved.model_copy(update=update), frame, protocols))


def test_one_panel_and_many_arms() -> None:
    resolved, frame, protocols = case(range(2))
    top = resolved.model_copy(update={"panels": {"top": resolved.panels["top"]}})
    rows = frame[frame["panel"] == "top"]
    many = [
        rows[rows["arm"] == "v20"].assign(arm=f"v{n}", attributes=[{"v_epochs": n}] * (rows["arm"] == "v20").sum())
        for n in range(30)
    ]
    drawn = draw_case(top, pd.concat(many), protocols)
    assert len(drawn.figure.axes) == 2
    assert_nothing_cut_or_overlapping(drawn)


def test_small_ranges_are_linear() -> None:
    resolved, frame, protocols = case(range(2))
    drawn = draw_case(resolved, frame.assign(value=frame["value"] % 3 - 1), protocols)
    assert [ax.get_yscale() for ax in drawn.figure.axes] == ["linear", "linear"]
    assert_nothing_cut_or_overlapping(drawn)


def test_legend_is_labelled_by_attributes() -> None:
    resolved, frame, protocols = corruption(range(2))
    said = texts(draw_case(resolved, frame, protocols))
    assert "σ = 0.64 (the paper's k = 0.01)" in said and "no_v (control)" in said
    assert "dashed: earlier stages" not in said
    wrong = resolved.figure.model_copy(update={"label": "{mu}"})  # type: ignore[union-attr]
    with pytest.raises(ReportError, match=r"'\{mu\}' does not fit an arm with sigma 0, k 0"):
        draw_case(resolved.model_copy(update={"figure": wrong}), frame, protocols)


def test_nothing_measured() -> None:
    resolved, frame, protocols = case([0])
    with pytest.raises(NothingToReport, match=r"no measured point.*study run obs_v_then_u --scale cpu"):
        draw_case(resolved, frame.assign(value=np.nan), protocols)
    with pytest.raises(ReportError, match="declares no figure"):
        draw_case(resolved.model_copy(update={"figure": None}), frame, protocols)


@pytest.mark.parametrize(
    "metric, nfe, solver, said",
    [
        ("frechet_pixel", 1, "jump", "1-NFE Fréchet distance, pixel space"),
        ("frechet_pixel", 32, "euler", "32-NFE (euler) Fréchet distance, pixel space"),
        ("kid_digits_cnn", 1, "jump", "1-NFE kernel distance (KID), digits-CNN features"),
        ("frechet_coarse", 1, "jump", "1-NFE Fréchet distance, block means"),
        ("v_error", 1, "jump", "true error of v (relative)"),
        ("u_error[0.1,0.3]", 1, "jump", "true error of u, Δt from 0.1 to 0.3 (relative)"),
        ("u_error[1,1]", 1, "jump", "true error of u, Δt = 1 (relative)"),
        ("task_affinity[0.1,0.3]", 1, "jump", "task affinity of the v- and u-loss (cosine), Δt from 0.1 to 0.3"),
        ("mine", 1, "jump", "mine"),
    ],
)
def test_metric_words(metric: str, nfe: int, solver: str, said: str) -> None:
    assert words.metric_words(Reading("k", metric, nfe, solver, 10, "ema")) == said


def test_ranges_and_wrapping() -> None:
    assert words.ranges([7, 0, 1, 2, 3]) == "0–3, 7"
    assert Page(4).wrap("a b c", 3, 8) == ["a b c"]
    assert Page(4).wrap("", 3, 8) == [""]
    lines = Page(4).wrap("x" * 200 + " y", 1, 8)
    assert len(lines) > 5 and "".join(lines).replace(" ", "") == "x" * 200 + "y"


def test_lines_hold_as_much_as_fits() -> None:
    """Against a loop over words, and over the letters of one that is longer than a line."""
    text = "of narrow illi and WIDE MWMW words, " * 8 + "x^$_" * 60 + " and the rest" * 5
    font = FontProperties(size=8)

    def fits(line: str) -> bool:
        return bool(Page(4).renderer.get_text_width_height_descent(line, font, False)[0] <= 0.98 * 2 * DPI)

    expected = [""]
    for word in text.split():
        if fits(joined := f"{expected[-1]} {word}".strip()):
            expected[-1] = joined
            continue
        expected.append("")
        for letter in word:
            if not fits(expected[-1] + letter):
                expected.append("")
            expected[-1] += letter
    assert Page(4).wrap(text, 2, 8) == expected
