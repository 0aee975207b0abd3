"""Data sets on disk: room and locks, statistics old and new, and what is damaged in whichever file."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meanflow_core.arrays import Array, ArrayFileError, not_finite, read_npy
from meanflow_core.components import StoredParams
from meanflow_core.data import layout
from meanflow_core.data.base import DataError
from meanflow_core.data.layout import META, STATISTICS, LayoutError, Meta, X, Y, moments, scaled, write
from meanflow_core.data.stored import Stored
from meanflow_core.sha import file_sha256

RNG = np.random.default_rng(20261201)
IMAGES = RNG.integers(0, 256, (40, 1, 4, 4), np.uint8)
LABELS = np.arange(40) % 3


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def add(name: str = "pets", x: Array = IMAGES, **options: Any) -> tuple[Meta, str]:
    given: dict[str, Any] = {"labels": LABELS[: len(x)], "classes": "abc", "levels": 255, **options}
    return write(name, iter(np.array_split(x, 3)), len(x), "test", **given)


def sealed(folder: Path, change: Callable[[dict[str, Any]], object] = dict.copy) -> str:
    """Write meta.json with the checksums of what is there, as another program might."""
    meta = json.loads((folder / META).read_text())
    change(meta)
    meta["files"] = {
        path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name != META and (path.name != STATISTICS or meta["format"] == 1)
    }
    (folder / META).write_text(json.dumps(meta))
    return layout.fingerprint_of((folder / META).read_bytes())


def flat(x: Array, levels: int | None = 255) -> Array:
    return scaled(x, levels).reshape(len(x), -1).astype(np.float64)


def test_statistics_are_kept_where_they_are_smaller_than_the_samples(root: Path) -> None:
    """What is compared with is the same, to the bit, as of the whole covariance that older versions wrote."""
    meta, _ = add()
    whole = moments([flat(IMAGES)], 16)
    assert set(meta.files) == {X, Y}, "what depends on the processor has no part in the fingerprint"
    assert (root / "pets" / STATISTICS).is_file()
    found = layout.read_statistics("pets", meta)
    assert found is not None and all(map(np.array_equal, found, whole))
    few, _ = add("few", IMAGES[:16])
    assert not (root / "few" / STATISTICS).exists()
    found = layout.read_statistics("few", few)
    assert found is not None and all(map(np.array_equal, found, moments([flat(IMAGES[:16])], 16)))
    np.testing.assert_allclose(found[1], np.cov(flat(IMAGES[:16]).T), atol=1e-12)
    large, _ = add("large", RNG.integers(0, 256, (24, 3, 32, 32), np.uint8))
    assert sum(path.stat().st_size for path in (root / "large").iterdir()) < 80_000, "24 images of 3 kB; it was 73 MB"
    assert set(large.files) == {X, Y}
    (root / "pets" / STATISTICS).unlink()
    found = layout.read_statistics("pets", meta)
    assert found is not None and all(map(np.array_equal, found, whole)), "it can be computed again"
    assert layout.read_statistics("one", add("one", IMAGES[:1])[0]) is None


def test_a_data_set_of_an_older_version_is_read(root: Path) -> None:
    add()
    np.savez(root / "pets" / STATISTICS, **dict(zip(("mean", "covariance"), moments([flat(IMAGES)], 16), strict=True)))

    def old(meta: dict[str, Any]) -> None:
        del meta["background"]
        meta["format"] = 1

    fingerprint = sealed(root / "pets", old)
    data = Stored(StoredParams(dataset="pets", fingerprint=fingerprint))
    assert data.preflight() == layout.problems("pets", thorough=True) == []
    found = data.reference_moments()
    assert found is not None and torch.equal(found[1], torch.from_numpy(moments([flat(IMAGES)], 16)[1]))
    assert torch.equal(data.reference_samples(1), torch.from_numpy(IMAGES).float() * (2 / 255) - 1)


def test_the_background_stands_in_the_description(root: Path) -> None:
    assert layout.read_meta("pets")[0].background == "#ffffff" if add(background="#ffffff") else False


def test_a_disk_too_small_is_said_at_once_and_nothing_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    asked = []

    def batches() -> Any:
        for part in np.array_split(IMAGES, 4):
            asked.append(len(part))
            yield part

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LayoutError, match=r"No space left on device \(the samples take 0.0 MiB, .* MiB are free\)"):
        write("pets", batches(), 40, "test", levels=255)
    assert (asked, list(root.iterdir())) == ([10], [])

    def cannot(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "cannot")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    add()
    assert np.array_equal(np.load(root / "pets" / X), IMAGES)


def test_what_dead_attempts_left_is_removed_and_living_ones_are_left(root: Path) -> None:
    for name in (".pets.17", ".dogs.18", ".cats.19", ".cats.lock.20", ".other", "pets.21"):
        (root / name).mkdir(parents=True)
        (root / name / X).touch()
    (root / ".dogs.lock").touch()
    living = layout._locked(root / ".cats.lock")
    assert living is not None
    add()
    assert {path.name for path in root.iterdir()} == {"pets", ".cats.19", ".cats.lock", ".other", "pets.21"}
    with pytest.raises(LayoutError, match="another process is adding a data set 'cats'"):
        add("cats")
    living.close()
    add("cats")
    assert {path.name for path in root.iterdir()} == {"pets", "cats", ".other", "pets.21"}


def test_samples_of_another_kind_are_refused(root: Path) -> None:
    wide = IMAGES.repeat(2, axis=2)
    for batches, complaint in (
        ([IMAGES, wide], "samples 40 to 79 are uint8"),
        ([IMAGES, IMAGES.astype(np.float32)], "samples 40 to 79 are float32"),
        ([IMAGES] * 3, "more than the 80 samples"),
        ([flat(IMAGES), np.full((40, 16), np.inf)], "the first of them sample 40"),
    ):
        with pytest.raises(LayoutError, match=complaint):
            write("pets", iter(batches), 80, "test", levels=255)
    assert list(root.iterdir()) == []


def nan(folder: Path) -> None:
    x = RNG.normal(size=(40, 16)).astype(np.float32)
    x[7, 3] = np.nan
    np.save(folder / X, x)


def statistics(**arrays: Array) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / STATISTICS, of=np.array(file_sha256(folder / X)), **arrays)


UPPER = np.ones(136)
# What is done to the folder, and what is said of it; checksums are right, as if another program had written it.
WRITTEN_WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "x of another shape": (lambda folder: np.save(folder / X, IMAGES[:39]), "x.npy is uint8 (39, 1, 4, 4), and meta"),
    "x of another type": (lambda folder: np.save(folder / X, IMAGES.astype(np.int16)), "x.npy is int16"),
    "x of two arrays": (lambda folder: (folder / X).write_bytes((folder / X).read_bytes() * 2), "x.npy is damaged"),
    "labels too few": (lambda folder: np.save(folder / Y, LABELS[:39]), "y.npy is int64 (39,), and meta.json says"),
    "labels as floats": (lambda folder: np.save(folder / Y, LABELS * 1.0), "y.npy is float64"),
    "labels of no class": (lambda folder: np.save(folder / Y, LABELS + 1), "y.npy has labels outside 0 … 2"),
    "no moments": (statistics(a=UPPER), "statistics.npz has no mean and covariance"),
    "moments of another shape": (statistics(mean=np.ones(15), upper=UPPER), "statistics.npz has a mean (15,)"),
    "triangle": (statistics(mean=np.ones(16), upper=UPPER[1:]), "statistics.npz has an upper triangle (135,)"),
    "not finite": (statistics(mean=np.full(16, np.nan), upper=UPPER), "statistics.npz has moments that are not finite"),
    "below 0": (statistics(mean=np.ones(16), upper=-UPPER), "statistics.npz has variances below 0"),
    "of other samples": (
        lambda folder: np.savez(folder / STATISTICS, of=np.array("0" * 64), mean=np.ones(16), upper=UPPER),
        "statistics.npz is not of the x.npy beside it: remove it",
    ),
    "no numbers": (lambda folder: (folder / STATISTICS).write_bytes(b"PK\x03\x04"), "statistics.npz is damaged"),
}


@pytest.mark.parametrize("name", WRITTEN_WRONG)
def test_files_that_do_not_fit_their_description_are_named(name: str, root: Path) -> None:
    change, complaint = WRITTEN_WRONG[name]
    add()
    change(root / "pets")
    fingerprint = sealed(root / "pets")
    data = Stored(StoredParams(dataset="pets", fingerprint=fingerprint))
    (line,) = data.preflight()
    assert complaint in line and str(root / "pets") in line
    assert layout.problems("pets", thorough=True) == [line]


def test_values_that_are_unsuited_are_found_in_chunks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(x=RNG.normal(size=(40, 16)).astype(np.float32), levels=None)
    nan(root / "pets")
    (root / "pets" / STATISTICS).unlink()
    sealed(root / "pets")
    monkeypatch.setattr("meanflow_core.arrays.CHUNK_BYTES", 256)
    assert layout.problems("pets") == [f"{root / 'pets' / X}: sample 7 is not finite: add the data set anew"]
    add("grey", IMAGES, levels=16)
    assert ["above the 16 levels" in line for line in layout.problems("grey")] == [True]
    monkeypatch.setattr(layout, "CHECKED_BYTES", 100)
    (root / "pets" / "other").touch()
    sealed(root / "pets")
    assert layout.problems("pets") == [], "what is large is read by `study data check` alone"
    assert len(layout.problems("pets", thorough=True)) == 1
    data = Stored(StoredParams(dataset="pets", fingerprint=layout.read_meta("pets")[1]))
    with pytest.raises(DataError, match=r"x\.npy: sample 7 is not finite"):
        data.batch(0, 0, 40, "cpu")


WITHOUT_LABELS = json.dumps(
    {
        **{"format": 1, "n": 40, "shape": [1, 4, 4], "levels": 255, "classes": ["a"], "source": "test"},
        "files": {X: {"sha256": "0" * 64, "bytes": 768}},
    }
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "is not of `study data add`, or damaged"),
        (WITHOUT_LABELS, "is not of `study data add`, or damaged (it names the files x.npy for 1 class)"),
        ('{"format": 3}', "is not of `study data add`, or damaged"),
        ("{" * 1000, "is not of `study data add`, or damaged"),
        (None, "is missing"),
    ],
    ids=["list", "files", "later format", "cut short", "missing"],
)
def test_descriptions_that_are_damaged_are_named(text: str | None, complaint: str, root: Path) -> None:
    _, fingerprint = add()
    path = root / "pets" / META
    path.unlink() if text is None else path.write_text(text)
    assert layout.names() == ["pets"]
    (line,) = layout.problems("pets")
    assert line.startswith(f"{path} {complaint}")
    with pytest.raises(DataError, match=re.escape(complaint)):
        Stored(StoredParams(dataset="pets", fingerprint=fingerprint))


def test_what_was_found_is_remembered_until_a_file_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add()
    read = []
    monkeypatch.setattr(layout, "file_sha256", lambda path: read.append(path.name) or file_sha256(path))
    assert layout.problems("pets") == layout.problems("pets") == []
    assert sorted(read) == [X, Y]
    (root / "pets" / Y).write_bytes((root / "pets" / Y).read_bytes()[:-1] + b"\1")
    assert ["y.npy is damaged" in line for line in layout.problems("pets")] == [True]
    read.clear()
    assert layout.problems("pets", thorough=True) and read, "`study data check` reads again"


@pytest.mark.parametrize("file", [X, Y, STATISTICS, META])
def test_pipes_are_not_waited_for(file: str, root: Path) -> None:
    add()
    (root / "pets" / file).unlink()
    os.mkfifo(root / "pets" / file)
    assert ["is not a regular file" in line for line in layout.problems("pets")] == [True]


def test_half_precision_is_looked_through_by_its_bits() -> None:
    x = RNG.normal(size=(50, 3)).astype(np.float16)
    x[4] = [-0.0, 65504, -65504]
    assert not_finite(x) is None
    for bad in (np.nan, np.inf, -np.inf):
        x[31, 2] = bad
        assert not_finite(x) == not_finite(x.astype(">f2")) == not_finite(x.astype(float)) == 31


def test_an_array_file_is_one_whole_array(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.zeros((0, 3)))
    assert read_npy(tmp_path / "empty.npy").shape == (0, 3)
    with pytest.raises(ArrayFileError, match="is missing"):
        read_npy(tmp_path / "none.npy")
    with pytest.raises(ArrayFileError, match="is not a regular file"):
        read_npy(tmp_path)
