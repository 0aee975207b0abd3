"""Curves with a reference arm (Figs 1, 6): its line, stars, speed-ups in the box, and figures of some panels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from reports.arrivals import arrivals, seeds_by_epochs
from reports.claims import judge
from reports.drawing import Drawing, Subject
from reports.errors import ReportError
from reports.figures import draw, of_number
from reports.frames import points, readings
from reports.text import ratio
from studies.claim import Claim
from studies.figure import Curves

from .pictures import assert_nothing_cut_or_overlapping, texts
from .synthetic import Case, FakeRun, corruption, draw_case, v_then_u


def with_reference(case: Case, arm: str, **more: object) -> Case:
    resolved, frame, protocols = case
    assert isinstance(resolved.figure, Curves)
    update = {"figure": resolved.figure.model_copy(update={"reference": arm, **more})}
    return resolved.model_copy(update=update), frame, protocols


def box(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def stars(ax: Axes) -> list[tuple[float, float]]:
    return [(float(s.get_xdata()[0]), float(s.get_ydata()[0])) for s in ax.lines if s.get_marker() == "*"]


def test_seeds_by_epochs_is_a_pivot() -> None:
    one = "panel == 'plain' and arm == 'sigma1.92' and metric == 'frechet_pixel' and nfe == 1"
    rows = corruption(range(3))[1].query(one)
    rows = rows.sample(frac=1, random_state=0).iloc[4:]  # in any order, and not all
    wanted = rows.pivot(index="seed", columns="epoch", values="value").sort_index(axis=1)
    epochs, values = seeds_by_epochs(rows)
    assert np.isnan(values).sum() == 4 and epochs.tolist() == wanted.columns.tolist()
    np.testing.assert_array_equal(values, wanted)
    with pytest.raises(ValueError, match="a seed has two points at one epoch"):
        seeds_by_epochs(pd.concat([rows, rows.iloc[:1]]))


def test_stars_stand_where_mean_curves_reach_the_end_of_the_reference() -> None:
    resolved, frame, protocols = with_reference(corruption(range(5)), "sigma1.92")
    drawing = draw_case(resolved, frame, protocols)
    rows = frame[frame["metric"].eq("frechet_pixel") & frame["nfe"].eq(1)]
    for ax, panel in zip(drawing.figure.axes[:2], ("adaptive", "plain"), strict=True):
        mean = rows[rows["panel"] == panel].pivot_table(index="epoch", columns="arm", values="value")
        level = mean["sigma1.92"].iloc[-1]
        assert level in {float(line.get_ydata()[0]) for line in ax.lines if list(line.get_xdata()) == [0, 1]}
        expected = []
        for arm in ("sigma0", "sigma0.64"):
            fine = np.linspace(0, 80, 800_001)
            expected.append(fine[(np.interp(fine, mean.index, mean[arm]) <= level).argmax()])
        found = stars(ax)
        assert [x for x, _ in found] == pytest.approx(expected, abs=1e-3), "worse arms have none"
        assert {y for _, y in found} == {level}
    assert drawing.points.equals(draw_case(*corruption(range(5))).points), "the numbers behind it are the same"


def test_the_box_says_what_the_claim_finds() -> None:
    case = with_reference(corruption(range(5)), "sigma6.4")
    claim = Claim(id="c", text="t", where="w", panel="plain", test="speedup", arms=("sigma0", "sigma6.4"))
    study = case[0].model_copy(update={"claims": (claim,)})
    (verdict,) = judge(study, case[1], case[2], run=FakeRun(), time="t")
    speedup = verdict.primary.speedup
    assert speedup is not None
    drawing = draw_case(*case)
    adaptive, plain = (box(ax) for ax in drawing.figure.axes[:2])
    assert plain[0] == f"σ = 0 (the paper's k = 0): {ratio(speedup.ratio, speedup.interval)}"
    assert len(plain) == 3 and len(adaptive) == 4 and adaptive[3].startswith("no_v (control): 0.")
    assert [box(ax) for ax in drawing.figure.axes[2:]] == [[], []], "the lower row says nothing twice"
    said = texts(drawing)
    for words in (
        "final value of σ = 6.4 (the paper's k = 0.1)",
        "speed-up over σ = 6.4",
        "First crossings come early",
    ):
        assert words in said, words
    assert_nothing_cut_or_overlapping(drawing)


def test_without_a_reference_nothing_is_marked() -> None:
    drawing = draw_case(*corruption(range(2)))
    assert not any(stars(ax) or box(ax) for ax in drawing.figure.axes) and "speed-up" not in texts(drawing).lower()


def test_half_a_study_and_one_seed() -> None:
    resolved, frame, protocols = with_reference(corruption(range(3)), "sigma6.4")
    here = frame["panel"] == "adaptive"
    frame.loc[here & (frame["arm"] == "sigma0") & (frame["seed"] == 1) & (frame["epoch"] == 50), "value"] = np.nan
    frame.loc[~here & (frame["arm"] == "sigma6.4") & (frame["epoch"] > 30), "value"] = np.nan
    drawing = draw_case(resolved, frame, protocols)
    adaptive, plain = drawing.figure.axes[:2]
    assert box(adaptive)[0].endswith("] (2 of 3 seeds)") and not box(adaptive)[1].endswith("seeds)")
    assert box(plain) == [] == stars(plain) and len(stars(adaptive)) == 3, "no end of what is half measured"
    assert_nothing_cut_or_overlapping(drawing)
    one = draw_case(*with_reference(corruption([0], "smoke"), "sigma6.4"))
    assert "[" not in "".join(box(one.figure.axes[0])) and "×" in box(one.figure.axes[0])[0]
    nothing = frame.assign(value=frame["value"].where(frame["arm"] != "sigma6.4"))
    assert not any(box(ax) for ax in draw_case(resolved, nothing, protocols).figure.axes)


def test_arms_that_cannot_be_compared_are_drawn_without_a_speedup() -> None:
    """Of unequal length: `v0` trains u for 80 epochs, the others for less, so they begin later."""
    resolved, frame, protocols = v_then_u(range(2))
    found = points(frame, readings(resolved, frame, protocols)[0])
    there = arrivals(found[found["panel"].eq("bottom") & found["stage"].eq("u_finetune")], "v0")
    assert there is not None and {arm.speedup for arm in there.arms if arm.arm != "joint"} == {None}
    assert arrivals(found, "v99") is None
    assert draw_case(*with_reference((resolved, frame, protocols), "v0"))


def part(number: int | None, **more: object) -> tuple[Drawing, str]:
    case = with_reference(corruption(range(2)), "sigma6.4", **more)
    subject, suffix = of_number(Subject(*case, FakeRun()), number)
    return draw(subject), suffix


def test_a_figure_of_some_panels() -> None:
    drawing, suffix = part(3, panels_of={3: ("plain",)})
    assert suffix == "figure3" and set(drawing.points["panel"]) == {"plain"}
    said = texts(drawing)
    assert "no adaptive weight" in said and "as in the paper" not in said and "no_v" not in said
    assert len(drawing.figure.axes) == 2 and "After Fig. 3," in said
    assert_nothing_cut_or_overlapping(drawing)
    for number, more in ((6, {"panels_of": {3: ("plain",)}}), (3, {}), (None, {})):
        drawing, suffix = part(number, **more)
        assert suffix == "" and set(drawing.points["panel"]) == {"adaptive", "plain"}
    with pytest.raises(ReportError, match=r"figure 3 needs the panel 'xl'.*scale 'cpu' has: adaptive, plain"):
        part(3, panels_of={3: ("xl",)})


def test_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reports.build import build_figure
    from results.layout import Home

    from .test_build import ENGINE, Store, names

    made = with_reference(corruption(range(2)), "sigma6.4", panels_of={3: ("plain",)})
    Store(monkeypatch, made=made)
    asked = {"study": "obs_v_corruption", "out": tmp_path}
    report = build_figure(ENGINE, Home(tmp_path / "home"), figure=3, **asked)  # type: ignore[arg-type]
    assert names(report.files) == ["obs_v_corruption_cpu_figure3"]
    assert set(pd.read_csv(report.files[3])["panel"]) == {"plain"}
    report = build_figure(ENGINE, Home(tmp_path / "home"), figure=6, **asked)  # type: ignore[arg-type]
    assert names(report.files) == ["obs_v_corruption_cpu"]
