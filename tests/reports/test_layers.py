from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from reports.drawing import Drawing, Subject
from reports.files import save_figure
from reports.layers import COLUMNS, draw_layers, layer_order, layer_points
from studies.figure import Bars

from .pictures import assert_nothing_cut_or_overlapping, texts
from .synthetic import Case, FakeRun, layer_rows, task_affinity


def drawing(case: Case, logged: pd.DataFrame) -> Drawing | None:
    subject = Subject(*case, FakeRun())
    figure = subject.study.figure
    assert isinstance(figure, Bars)
    return draw_layers(subject, figure, layer_points(subject, figure), logged)


def test_cells_are_means_over_seeds_of_means_over_steps(tmp_path: Path, real_png: None) -> None:
    case = task_affinity(range(3))
    frame, logged = case[1], layer_rows(case[1])
    pic = drawing(case, logged)
    assert pic is not None
    table = pd.read_csv(save_figure(pic, tmp_path, "layers")[3])
    assert list(table.columns) == COLUMNS and len(table) == 3 * 4 * 8
    assert set(table["seeds"]) == {3} and set(table["steps"]) == {8}
    points = frame[(frame["metric"] == "task_affinity[0.3,0.5]") & (frame["arm"] == "v_pretrained")]
    names = "layer/" + points["protocol"] + "/blocks.2"
    wanted = points.assign(name=names)[["trajectory", "step", "name"]].merge(logged)
    cell = table[(table["arm"] == "v_pretrained") & (table["x"] == "0.3–0.5") & (table["layer"] == "blocks.2")]
    assert len(wanted) == 24 and cell["value"].item() == pytest.approx(wanted["value"].mean())


def test_it_is_whole_and_in_order() -> None:
    case = task_affinity(range(2), "smoke")
    pic = drawing(case, layer_rows(case[1]))
    assert pic is not None
    assert_nothing_cut_or_overlapping(pic)
    said = texts(pic)
    assert said.count("MEANINGLESS") == 4 and "By layer: " in said and "40 epochs of u, Δt in 0.1–0.3" in said
    assert "mean over 2 seeds of the mean over 2 steps" in said
    rows = [label.get_text() for label in pic.figure.axes[0].get_yticklabels()]
    assert rows == ["condition", "input", "blocks.0", "blocks.2", "blocks.10", "modulation", "norm", "output"]
    limits = {image.get_clim() for ax in pic.figure.axes for image in ax.images}
    assert all(low == -high for low, high in limits)  # white is 0
    assert f"{pic.points['value'].iloc[0]:.2f}".replace("-", "−") in said


def test_long_labels_stand_upright() -> None:
    resolved, frame, protocols = task_affinity(range(2))
    figure = resolved.figure
    assert isinstance(figure, Bars)
    long = figure.model_copy(update={"metric_labels": tuple(f"a rather long label {i}" for i in range(4))})
    case = (resolved.model_copy(update={"figure": long}), frame, protocols)
    pic = drawing(case, layer_rows(frame))
    assert pic is not None
    assert_nothing_cut_or_overlapping(pic)


def test_nothing_logged() -> None:
    case = task_affinity([0])
    logged = layer_rows(case[1])
    assert drawing(case, logged[logged["name"] == "loss"]) is None
    assert drawing(case, logged.iloc[:0].astype({"name": object})) is None


def test_order_is_natural_between_ends() -> None:
    layers = ["output", "blocks.11", "x_embedder", "blocks.2", "embed", "final_layer", "input", "condition"]
    order = ["condition", "embed", "input", "blocks.2", "blocks.11", "x_embedder", "output", "final_layer"]
    assert layer_order(layers) == order
