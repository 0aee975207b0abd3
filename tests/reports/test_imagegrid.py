"""Figures of kind ``images``: the right pictures in the right places, and what is said where some are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.build import build_figure
from reports.drawing import Drawing, Subject
from reports.errors import NothingToReport, ReportError
from reports.figures import draw, truth_measured
from reports.files import save_figure
from reports.pictures import block, read_pictures
from reports.versions import Version
from results.layout import Home
from results.store import open_store
from studies.loader import load_source, resolve
from tests.homes import succeeds

from .pictures import assert_nothing_cut_or_overlapping, texts
from .quick import save_quickly
from .synthetic import FakeRun, measured

STUDY = Path(__file__).parent.parent / "assets" / "pictures.yaml"


def shades(subject: Subject) -> dict[str, int]:
    """The grey of every pixel of an evaluation's pictures, so that a drawing shows which stands where."""
    return {evaluation: 10 * i for i, evaluation in enumerate(subject.artefacts)}


def made(folder: Path, shape: tuple[int, ...] = (6, 8, 8, 1), figure: dict[str, Any] | None = None) -> Subject:
    """The study's subject with pictures of one shade each."""
    resolved = resolve(load_source(str(STUDY)), "cpu")
    if figure:
        assert resolved.figure is not None
        resolved = resolved.model_copy(update={"figure": resolved.figure.model_copy(update=figure)})
    frame, protocols = measured(resolved, lambda arm, point: 40.0)
    files = {}
    for evaluation in frame["evaluation"][frame["metric"] == "images"].unique():
        files[evaluation] = folder / f"images-{evaluation}.npy"
    subject = Subject(resolved, frame, protocols, FakeRun(), command="study run mine.yaml", artefacts=files)
    for evaluation, shade in shades(subject).items():
        np.save(files[evaluation], np.full(shape, shade, np.uint8))
    return subject


def images_of(drawing: Drawing) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(image.get_array()) for ax in drawing.figure.axes for image in ax.images]


def test_block() -> None:
    pictures = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    found = block(pictures, 2, 3)
    assert found.shape == (2 * 8 + 1, 3 * 8 + 2, 3)
    assert [int(found[y, x, 0]) for y in (0, 9) for x in (0, 9, 18)] == list(range(6))
    assert (found[8] == 255).all() and (found[:, 8] == 255).all()
    colours = np.zeros((1, 4, 4, 3), np.uint8)
    colours[..., 2] = 7
    assert block(colours, 1, 1)[0, 0].tolist() == [0, 0, 7]
    with pytest.raises(ValueError, match="2 × 4 images asked for, and 6 given"):
        block(pictures, 2, 4)


def test_rows_are_arms_and_columns_epochs(tmp_path: Path, real_files: None) -> None:
    subject = made(tmp_path)
    drawing = draw(subject)
    assert_nothing_cut_or_overlapping(drawing)
    table = pd.read_csv(save_figure(drawing, tmp_path / "out", "grid")[3])
    assert set(table["seed"]) == {0} and set(table["metric"]) == {"images"}
    arms = table.groupby("row")["arm"].unique().map(list).to_dict()
    assert arms == {1: ["joint"], 2: ["v_only"], 3: ["short"]}
    assert table.groupby("column")["epoch"].unique().map(list).to_dict() == {1: [0.0], 2: [2.0], 3: [4.0]}
    assert table.groupby("row").size().to_dict() == {1: 3, 2: 3, 3: 2}
    shown = [int(image[0, 0, 0]) for image in images_of(drawing)]
    assert shown == [shades(subject)[evaluation] for evaluation in table["evaluation"]] and len(set(shown)) == 8
    said = texts(drawing)
    for words in ("epoch 0", "epoch 4", "joint, 50% of v", "v_only, 100% of v", "Half as long (control)",
                  "the first 6 samples at 1 NFE", "Training seed 0.", "half of the epochs"):  # fmt: skip
        assert words in said
    assert said.count("MEANINGLESS") == 1 + 8
    assert drawing.missing == []


def test_the_first_seed_that_is_there(tmp_path: Path) -> None:
    subject = made(tmp_path)
    subject.frame.loc[subject.frame["seed"] == 0, "value"] = np.nan
    late = (subject.frame["seed"] == 1) & (subject.frame["epoch"] == 4) & (subject.frame["arm"] == "joint")
    subject.frame.loc[late, "value"] = np.nan
    drawing = draw(subject)
    assert_nothing_cut_or_overlapping(drawing)
    assert set(drawing.points["seed"]) == {1} and len(images_of(drawing)) == 7
    assert drawing.missing == ["digits joint: 1 point (seed 1)"]
    said = texts(drawing)
    assert "Training seed 1." in said and "not measured" in said and "1 of 8 points not measured" in said
    subject.frame["value"] = np.nan
    with pytest.raises(NothingToReport, match=r"no measured point of images at 1 NFE yet: .*`study run mine\.yaml`"):
        draw(subject)


def test_many_epochs_stand_in_several_bands(tmp_path: Path) -> None:
    subject = made(tmp_path, (6, 4, 4, 3))
    more = [subject.frame]
    for i in range(1, 6):
        more.append(subject.frame.assign(epoch=subject.frame["epoch"] + 6 * i))
        more[-1]["stage_epoch"] = more[-1]["epoch"]
    drawing = draw(replace(subject, frame=pd.concat(more, ignore_index=True)))
    assert_nothing_cut_or_overlapping(drawing)
    assert len(images_of(drawing)) == 6 * 8 and drawing.points["column"].max() == 18


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is damaged"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00nonsense"), "is damaged"),
        (lambda path: np.save(path, np.array([{}], dtype=object)), "is damaged"),
        (lambda path: np.save(path, np.zeros((6, 8, 8, 1))), "holds no images of 8 bits"),
        (lambda path: np.save(path, np.zeros((6, 8, 8), np.uint8)), r"array of shape \(6, 8, 8\)"),
        (lambda path: np.save(path, np.zeros((6, 8, 8, 2), np.uint8)), r"array of shape \(6, 8, 8, 2\)"),
    ],
)
def test_spoilt_files(tmp_path: Path, spoil: Callable[[Path], None], words: str) -> None:
    subject = made(tmp_path)
    path = next(iter(subject.artefacts.values()))
    spoil(path)
    with pytest.raises(ReportError, match=words) as error:
        draw(subject)
    for said in (str(path), f"move the folder {path.parent} out", "`study db rebuild` and `study run mine.yaml`"):
        assert said in str(error.value)


def test_an_archive_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.savez(tmp_path / "images.npz", a=np.zeros((1, 8, 8, 1), np.uint8))
    (tmp_path / "images.npz").rename(path)
    with pytest.raises(ReportError, match="is damaged, or holds no arrays of numbers"):
        read_pictures(path, "study run")


def test_too_few_and_of_two_sizes(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"9 images asked for|3 × 3 images asked for, and 6 given.*'samples'"):
        draw(made(tmp_path, figure={"rows": 3}))
    subject = made(tmp_path)
    np.save(next(iter(subject.artefacts.values())), np.zeros((6, 16, 16, 1), np.uint8))
    with pytest.raises(ReportError, match="differ in size"):
        draw(subject)


def test_other_metrics_show_no_pictures(tmp_path: Path) -> None:
    subject = made(tmp_path)
    assert not truth_measured(subject)
    with pytest.raises(ReportError, match="the metric 'frechet_pixel' keeps none"):
        draw(replace(subject, version=Version("other", "frechet_pixel")))
    with pytest.raises(ReportError, match="'images' at 2 NFE is not among"):
        draw(replace(subject, version=Version("other", None, 2)))
    assert len(images_of(draw(replace(subject, version=Version("other", "images"))))) == 8


def test_from_a_real_run(tmp_path: Path, real_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line, end to end: the latents' own picture at epoch 0 is the same for all arms of a seed."""
    save_quickly(monkeypatch)
    home = Home(tmp_path / "home")
    succeeds("run", STUDY, home=home.root)
    out = tmp_path / "out"
    said = succeeds("report", STUDY, "--out", out, home=home.root)
    assert "missing" not in said and {path.suffix for path in out.iterdir()} == {".png", ".pdf", ".svg", ".csv"}
    report = build_figure(open_store(home.store_url), home, study="pictures", out=tmp_path / "again")
    assert [path.read_bytes() for path in report.files] == [(out / path.name).read_bytes() for path in report.files]
    table = pd.read_csv(report.files[3])
    start = table[table["epoch"] == 0]
    assert len(start) == 3 and start["value"].nunique() == 1
    assert table[table["epoch"] > 0]["value"].nunique() == 5
