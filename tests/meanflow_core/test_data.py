"""Data sets: stateless batches, passes, scaling, labels, and latents on disk."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import meanflow_core.components  # noqa: F401  (registers the built-in components)
from meanflow_core.data import latentfiles
from meanflow_core.data.base import DataError, DataSet, Passes
from meanflow_core.data.digits import digits
from meanflow_core.registry import parse_spec
from meanflow_core.seeding import derived_seed, generator


def build(name: str, **params: Any) -> DataSet:
    data: DataSet = parse_spec("data", {"name": name, **params}).build()
    return data


def test_seeds_are_pure_and_distinct() -> None:
    assert derived_seed(0, "data", 3) == derived_seed(0, "data", 3) < 2**63
    names = [(s, p, i) for s in range(5) for p in ("data", "noise") for i in range(200)]
    assert len({derived_seed(*name) for name in names}) == len(names)
    # Pinned: changing the derivation changes every trajectory under its old key.
    assert derived_seed(0, "data", 0) == 2740297886984710817
    a, b = (torch.randn(4, generator=generator(1, "noise", 7)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, torch.randn(4, generator=generator(1, "noise", 8)))


@pytest.mark.parametrize("name", ["digits", "gmm", "gaussian"])
def test_a_batch_is_a_pure_function_of_seed_and_step(name: str) -> None:
    one, other = build(name), build(name)
    other.batch(5, 17, 32, "cpu")  # another history
    x, y = one.batch(0, 3, 32, "cpu")
    x2, y2 = other.batch(0, 3, 32, "cpu")
    assert torch.equal(x, x2)
    assert x.shape == (32, *one.shape)
    assert x.dtype == torch.float32
    if one.num_classes is None:
        assert y is None and y2 is None
    else:
        assert y is not None and y2 is not None and torch.equal(y, y2)
        assert y.dtype == torch.int64
        assert 0 <= int(y.min()) <= int(y.max()) < one.num_classes
    for different in (one.batch(1, 3, 32, "cpu"), one.batch(0, 4, 32, "cpu")):
        assert not torch.equal(x, different[0])


@pytest.mark.parametrize(("n", "batch"), [(10, 3), (10, 10), (7, 20), (1797, 256)])
def test_each_pass_covers_every_item_once(n: int, batch: int) -> None:
    passes = Passes(n)
    steps = -(-3 * n // batch)
    rows = torch.cat([passes.indices(0, step, batch) for step in range(steps)])
    assert len(rows) == steps * batch
    for k in range(3):
        assert rows[k * n : (k + 1) * n].sort().values.tolist() == list(range(n))
    if n > 5:
        assert not torch.equal(rows[:n], rows[n : 2 * n])
    # A later step needs no earlier one.
    assert torch.equal(Passes(n).indices(0, steps - 1, batch), rows[-batch:])


def test_digits_are_scaled_and_belong_to_their_labels() -> None:
    x, y = digits()
    assert x.shape == (1797, 1, 8, 8)
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)
    batch, labels = build("digits").batch(0, 0, 64, "cpu")
    assert labels is not None
    for image, label in zip(batch, labels, strict=True):
        assert label in y[(x == image).all((1, 2, 3))]


def test_digits_are_those_that_scikit_learn_loads() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x, y = digits()
    assert torch.equal(x.flatten(1), torch.from_numpy(pixels).float() / 8 - 1)
    assert torch.equal(y, torch.from_numpy(labels).long())


def test_gmm_has_the_digits_class_moments() -> None:
    """Means and frequencies exactly, and shrinkage keeps each class's mean variance."""
    data, (x, y) = build("gmm", shrinkage=0.3), digits()
    assert data.exact is not None
    torch.testing.assert_close(data.exact.weights, torch.bincount(y).double() / len(y))
    flat = x.double().flatten(1)
    torch.testing.assert_close(data.exact.means[3], flat[y == 3].mean(0))
    torch.testing.assert_close(data.exact._lam[3].mean(), flat[y == 3].var(0, correction=0).mean())
    assert float(data.exact._lam[3].min()) >= 0.3 * float(data.exact._lam[3].mean()) - 1e-9


def test_gmm_batches_come_from_their_class() -> None:
    data = build("gmm")
    x, y = data.batch(0, 0, 20_000, "cpu")
    assert y is not None and data.exact is not None
    found = x[y == 4].flatten(1).mean(0).double()
    spread = (data.exact._Q[4] ** 2 @ data.exact._lam[4]).sqrt() / int((y == 4).sum()) ** 0.5
    assert ((found - data.exact.means[4]).abs() < 5 * spread).all()


@pytest.mark.parametrize("name", ["digits", "gmm"])
def test_evaluation_labels_have_the_data_frequencies(name: str) -> None:
    labels = build(name).labels(50_000, generator(0, "labels"))
    assert labels is not None
    expected = torch.bincount(digits()[1]) / 1797
    torch.testing.assert_close(torch.bincount(labels) / 50_000, expected, atol=0.006, rtol=0)


def test_gaussian_is_what_its_parameters_say() -> None:
    data = build("gaussian", dim=4, mean=-2.0, std=3.0)
    x, _ = data.batch(0, 0, 50_000, "cpu")
    torch.testing.assert_close(x.mean(0), torch.full((4,), -2.0), atol=0.08, rtol=0)
    torch.testing.assert_close(x.T.cov(), 9 * torch.eye(4), atol=0.3, rtol=0)
    assert data.labels(3, generator(0, "labels")) is None


def write_latents(folder: Path, encoding: str = "mean+std", **changes: Any) -> None:
    """20 items of 2 flips of 1 channel of 2×2: mean i for item i, spread 0.5 in either encoding."""
    folder.mkdir(parents=True)
    moments = np.zeros((20, 2, 2, 2, 2), np.float16)
    moments[:, :, 0] = np.arange(20)[:, None, None, None]
    moments[:, 1] = np.nan  # mirror images are not read
    moments[:, 0, 1] = 0.5 if encoding == "mean+std" else 2 * np.log(0.5)
    files = {"moments": moments, "labels": np.arange(20) % 4, **changes}
    for name, array in files.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "meta.json").write_text(json.dumps({"format": 1, "moments": encoding, "scale": 0.25}))


def spoilt(item: int, half: int, value: float) -> np.ndarray[Any, Any]:
    """Moments as of `write_latents`, but for one value of the mean (half 0) or the spread (1) of an item."""
    moments = np.full((20, 1, 2, 2, 2), 0.5, np.float16)
    moments[0, 0, 1] = -0.0  # which is no standard deviation below 0
    moments[item, 0, half, 1, 1] = value
    return moments


SMALL: dict[str, Any] = {"dataset": "tiny", "channels": 1, "side": 2, "classes": 4, "scale": 0.25}


@pytest.mark.parametrize("encoding", ["mean+std", "mean+logvar"])
def test_latents_are_resampled_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    write_latents(tmp_path / "tiny", encoding)
    data = build("latents", **SMALL)
    assert data.preflight() == []
    draws = []
    for step in range(200):
        x, y = data.batch(0, step, 20, "cpu")
        assert y is not None
        item = data._passes.indices(0, step, 20)  # type: ignore[attr-defined]
        assert y.tolist() == (item % 4).tolist()
        draws.append((x / 0.25 - item.view(-1, 1, 1, 1)).flatten())
    noise = torch.cat(draws)
    assert abs(float(noise.std()) - 0.5) < 0.01
    assert abs(float(noise.mean())) < 0.02
    assert torch.equal(data.batch(0, 5, 20, "cpu")[0], build("latents", **SMALL).batch(0, 5, 20, "cpu")[0])
    assert data.reference_samples(8).shape == (8, 1, 2, 2)
    assert data.reference_samples(50_000).shape == (20, 1, 2, 2)


def test_latents_are_opened_lazily_and_travel_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    data = build("latents", **SMALL)
    assert len(pickle.dumps(data)) < 2000
    write_latents(tmp_path / "tiny")  # after building
    assert data.batch(0, 0, 4, "cpu")[0].isfinite().all()


def test_latents_without_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    write_latents(tmp_path / "tiny")
    (tmp_path / "tiny" / "labels.npy").unlink()
    data = build("latents", **{**SMALL, "classes": 1})
    assert data.num_classes is None
    assert data.preflight() == []
    assert data.batch(0, 0, 4, "cpu")[1] is None


def test_latents_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build("latents", **SMALL)
    monkeypatch.delenv("STUDY_DATA", raising=False)
    assert "STUDY_DATA is not set" in data.preflight()[0]
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    lines = data.preflight()
    assert len(lines) == 3
    assert f"{tmp_path / 'tiny' / 'moments.npy'}: float16 (N, 1 or 2 flips, 2, 2, 2)" in lines[0]
    with pytest.raises(DataError, match=r"meta\.json"):
        data.batch(0, 0, 4, "cpu")


@pytest.mark.parametrize(
    ("changes", "params", "complaint"),
    [
        ({"moments": np.zeros((20, 2, 8, 2, 2), np.float16)}, {}, "has shape"),
        ({"moments": np.zeros((20, 2, 2, 2, 2), np.float32)}, {}, "not float16"),
        ({"labels": np.arange(19)}, {}, "not integers"),
        ({"labels": np.full(20, 4)}, {}, "outside 0 … 3"),
        ({}, {"scale": 0.5}, "scale 0.25 where the study has 0.5"),
        ({}, {"fingerprint": "0" * 64}, "the study asks for 000"),
        ({"moments": np.zeros((0, 1, 2, 2, 2), np.float16)}, {}, "it holds nothing"),
        ({"moments": spoilt(11, 0, np.nan)}, {}, "moments.npy: item 11 has a mean that is not finite"),
        ({"moments": spoilt(12, 1, np.inf)}, {}, "moments.npy: item 12 has a standard deviation that is not finite"),
        ({"moments": spoilt(13, 1, -0.5)}, {}, "moments.npy: item 13 has a standard deviation below 0"),
    ],
)
def test_latents_are_checked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    params: dict[str, Any],
    complaint: str,
) -> None:
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    write_latents(tmp_path / "tiny", **changes)
    data = build("latents", **{**SMALL, **params})
    assert any(complaint in line for line in data.preflight())
    with pytest.raises(DataError):
        data.batch(0, 0, 4, "cpu")


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("moments.npy", lambda path: path.write_bytes(path.read_bytes()[:-2]), "moments.npy is damaged"),
        ("moments.npy", lambda path: path.write_bytes(path.read_bytes() * 2), "moments.npy is damaged"),
        ("moments.npy", lambda path: (path.unlink(), os.mkfifo(path)), "moments.npy is not a regular file"),
        ("labels.npy", lambda path: path.write_bytes(b"nonsense"), "labels.npy is damaged"),
        ("labels.npy", lambda path: np.save(path, np.array([{}] * 20), allow_pickle=True), "labels.npy is damaged"),
        ("meta.json", lambda path: path.write_text("{"), "meta.json is damaged, or no JSON"),
        ("meta.json", lambda path: path.write_text("[]"), "meta.json holds no"),
        ("meta.json", lambda path: path.write_text('{"moments": "mean"}'), "'moments' must be one of mean+std"),
        (
            "meta.json",
            lambda path: path.write_text('{"moments": "mean+std", "scale": "1"}'),
            "scale '1' is no",
        ),
        (
            "meta.json",
            lambda path: path.write_text('{"moments": "mean+std", "format": 2}'),
            "format 2, where",
        ),
    ],
)
def test_latents_that_are_damaged_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, change: Callable[[Path], object], complaint: str
) -> None:
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    write_latents(tmp_path / "tiny")
    change(tmp_path / "tiny" / file)
    data = build("latents", **SMALL)
    (line,) = data.preflight()
    assert line.startswith(str(tmp_path / "tiny" / file)) and complaint in line
    assert line in latentfiles.problems(tmp_path / "tiny", None, thorough=True)


def test_large_latents_are_read_in_part_before_training_and_whole_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the part misses is found when an item is drawn; nothing is read twice as long as no file changes."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    monkeypatch.setattr(latentfiles, "SCANNED_BYTES", 10)
    monkeypatch.setattr(latentfiles, "CHUNK_BYTES", 16)  # one item
    monkeypatch.setattr(latentfiles, "SAMPLED_CHUNKS", 3)
    scanned = []
    look = latentfiles.item_problem
    monkeypatch.setattr(latentfiles, "item_problem", lambda *of: (scanned.append(of[2][0]), look(*of))[1])
    write_latents(tmp_path / "tiny", moments=spoilt(11, 0, np.nan))
    data = build("latents", **SMALL)
    assert data.preflight() == data.preflight() == []
    assert scanned == [0, 9, 19]
    complaint = "moments.npy: item 11 has a mean that is not finite"
    assert complaint in latentfiles.problems(tmp_path / "tiny", None, thorough=True)[0]
    with pytest.raises(DataError, match=complaint):
        data.batch(0, 0, 20, "cpu")
    write_latents(tmp_path / "wide", "mean+logvar", moments=spoilt(3, 1, 177))
    assert "log variance above 176" in latentfiles.problems(tmp_path / "wide", None, thorough=True)[0]
