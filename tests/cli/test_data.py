"""study data: what is added is trained on, shown and checked; what is damaged, changed or unsuited is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from meanflow_core.components import StoredParams
from meanflow_core.data import layout
from meanflow_core.data.digits import Digits
from meanflow_core.data.sources import read_source
from meanflow_core.data.stored import Stored
from meanflow_core.registry import parse_spec
from tests.homes import TINY, environment, study, succeeds

pytestmark = pytest.mark.slow  # whole commands that train

RNG = np.random.default_rng(20261128)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data root of this test, of its commands too (they run in ``tmp_path``)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STUDY_DATA", raising=False)
    return tmp_path / "study_data"


def images(n: int, *shape: int) -> layout.Array:
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8)


def image_folder(folder: Path, colour: bool = True, classes: tuple[str, ...] = ("cat", "dog"), n: int = 20) -> Path:
    for name in classes or ("",):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = images(1, 8, 8, 3)[0] if colour else images(1, 8, 8)[0]
            Image.fromarray(pixels).save(folder / name / f"{i:03}.png")
    return folder


def stored(name: str) -> Stored:
    _, fingerprint = layout.read_meta(name)
    return Stored(StoredParams(dataset=name, fingerprint=fingerprint))


def test_the_digits_are_the_same_by_way_of_the_layout() -> None:
    """Bitwise the built-in data set: every batch, the labels, what is compared with; moments up to rounding."""
    pixels, labels = load_digits(return_X_y=True)
    x = pixels.astype(np.uint8).reshape(-1, 1, 8, 8)
    layout.write("again", iter(np.array_split(x, 7)), len(x), "scikit-learn", labels, tuple("0123456789"), levels=16)
    ours, theirs = Digits(), stored("again")
    for step in (0, 14, 15, 1000):
        for a, b in zip(ours.batch(3, step, 128, "cpu"), theirs.batch(3, step, 128, "cpu"), strict=True):
            assert b is not None and torch.equal(a, b)
    assert torch.equal(ours.reference_samples(10), theirs.reference_samples(10))
    assert (theirs.shape, theirs.num_classes) == (ours.shape, ours.num_classes)
    flat = ours.x.flatten(1).double()
    moments = theirs.reference_moments()
    assert moments is not None
    torch.testing.assert_close(moments[0], flat.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments[1], flat.T.cov(), rtol=1e-10, atol=1e-12)
    A = torch.randn(5, 64, dtype=torch.float64)
    mapped = theirs.reference_moments(A)
    assert mapped is not None
    torch.testing.assert_close(mapped[1], (flat @ A.T).T.cov(), rtol=1e-9, atol=1e-9)


def test_a_study_trains_on_a_folder_of_images(tmp_path: Path, root: Path) -> None:
    image_folder(tmp_path / "pets")
    added = succeeds("data", "add", "pets", "pets", "--size", "4", cwd=tmp_path)
    assert "pets: 40 images of shape 3×4×4, 2 classes (from folder pets)" in added
    written = added.split("data: ")[1].strip()
    text = TINY.read_text().replace("data: digits", f"data: {written}")
    (tmp_path / "mine.yaml").write_text(text.replace("study: tiny", "study: pets"))
    succeeds("run", "mine.yaml", cwd=tmp_path)
    assert len(succeeds("results", "--study", "pets", cwd=tmp_path).splitlines()) > 10
    plan = json.loads(succeeds("plan", "mine.yaml", "--json", cwd=tmp_path))
    assert plan["cost"]["v_flops"] > 0, "the shape is known from meta.json"
    first = root / "pets" / "x.npy"
    damaged = bytearray(first.read_bytes())
    damaged[-1] ^= 1
    first.write_bytes(bytes(damaged))
    refused = study("run", "mine.yaml", "-o", "dynamics.batch_size=8", "--as", "more", cwd=tmp_path)
    assert refused.returncode == 2 and "x.npy is damaged" in refused.stderr, refused.stderr
    checked = study("data", "check", cwd=tmp_path)
    assert (checked.returncode, "x.npy is damaged" in checked.stdout) == (1, True)
    for path in (root / "pets").iterdir():
        path.unlink()
    (root / "pets").rmdir()
    succeeds("data", "add", "pets", "pets", "--size", "8", cwd=tmp_path)
    refused = study("run", "mine.yaml", "-o", "dynamics.batch_size=8", "--as", "more", cwd=tmp_path)
    assert refused.returncode == 2 and "and the study asks for" in refused.stderr, refused.stderr


def test_it_is_listed_shown_and_checked(tmp_path: Path) -> None:
    assert "there is no data set" in succeeds("data", "list", cwd=tmp_path)
    image_folder(tmp_path / "pets")
    image_folder(tmp_path / "grey", colour=False, classes=())
    for name in ("pets", "grey"):
        succeeds("data", "add", name, name, cwd=tmp_path)
    listed = json.loads(succeeds("data", "list", "--json", cwd=tmp_path))
    assert [(one["name"], one["shape"], one["classes"]) for one in listed] == [
        ("grey", [1, 8, 8], []),
        ("pets", [3, 8, 8], ["cat", "dog"]),
    ]
    assert "pets" in succeeds("data", "list", cwd=tmp_path)
    assert "classes: cat, dog" in succeeds("data", "show", "pets", cwd=tmp_path)
    with Image.open(tmp_path / "pets.png") as sheet:
        pixels = np.asarray(sheet)
    factor = pixels.shape[0] // 17
    small = pixels[::factor, ::factor]  # two classes of 8 pixels, and a gap
    shown = stored("pets")
    assert shown.y is not None
    cats = np.flatnonzero(shown.y.numpy() == 0)[:2]
    expected = np.load(layout.folder_of("pets") / "x.npy")[cats].transpose(0, 2, 3, 1)
    assert np.array_equal(small[:8, :8], expected[0]) and np.array_equal(small[:8, 9:17], expected[1])
    succeeds("data", "show", "grey", "--rows", "2", "--columns", "5", "--out", "g.png", cwd=tmp_path)
    assert "as it was added" in succeeds("data", "check", "pets", cwd=tmp_path)


def test_the_picture_shows_what_there_is(tmp_path: Path) -> None:
    """Of rows that are not full, and of floating-point values, too."""
    x, y = np.arange(1, 6, dtype=np.float32).repeat(64).reshape(5, 1, 8, 8), np.array([1, 1, 0, 1, 1])
    np.savez(tmp_path / "classes.npz", x=x, y=y)
    np.savez(tmp_path / "none.npz", x=(x * 50).astype(np.uint8))
    shown = {}
    for name, options in (("classes", ()), ("none", ("--columns", "3"))):
        succeeds("data", "add", name, f"{name}.npz", cwd=tmp_path)
        succeeds("data", "show", name, *options, cwd=tmp_path)
        with Image.open(tmp_path / f"{name}.png") as sheet:
            pixels = np.asarray(sheet)[..., 0]
        shown[name] = pixels[:: pixels.shape[0] // 17, :: pixels.shape[0] // 17][::9, ::9].tolist()
    assert shown == {"classes": [[128, 255, 255, 255], [0, 64, 191, 255]], "none": [[50, 100, 150], [200, 250, 255]]}


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (3, 8, 8), (8, 8, 1)])
def test_arrays_of_images(shape: tuple[int, ...], tmp_path: Path) -> None:
    x, y = images(50, *shape), RNG.integers(0, 3, 50)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    succeeds("data", "add", "mine", "x.npy", "--labels", "y.npy", cwd=tmp_path)
    data = stored("mine")
    assert data.shape == ((3 if 3 in shape else 1), 8, 8) and data.num_classes == 3
    first = data.rows(torch.arange(50), "cpu")
    expected = x if shape[0] == 3 else (x[..., None] if len(shape) == 2 else x).transpose(0, 3, 1, 2)
    torch.testing.assert_close(first, torch.from_numpy(expected.copy()).float() / 127.5 - 1)
    assert data.y is not None and torch.equal(data.y, torch.from_numpy(y))


def test_arrays_of_values_keep_their_values(tmp_path: Path) -> None:
    x = RNG.normal(size=(30, 5))
    np.savez(tmp_path / "held.npz", x=x, labels=np.arange(30) % 2)
    succeeds("data", "add", "values", "held.npz", cwd=tmp_path)
    data = stored("values")
    assert (data.shape, data.num_classes) == ((5,), 2)
    assert torch.equal(data.reference_samples(9), torch.from_numpy(x.astype(np.float32)))


def test_mnist_as_torchvision_keeps_it(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    x, y = images(40, 28, 28), (np.arange(40) % 10).astype(np.uint8)
    for prefix in ("train", "t10k"):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 40, 28, 28) + x.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 40) + y.tobytes())
    succeeds("data", "add", "mnist", ".", "--as", "mnist", "--split", "test", cwd=tmp_path)
    data = stored("mnist")
    assert (data.shape, data.num_classes, data.meta.source) == ((1, 28, 28), 10, "mnist, test split")
    assert data.meta.classes[:2] == ("0", "1")
    assert np.array_equal(np.load(data.folder / "x.npy")[:, 0], x)


def test_cifar10_as_torchvision_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are pickles: torchvision compares their checksums first, and nothing else is loaded."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    x = images(60, 3, 32, 32)
    sums = {}
    for i, (file, _) in enumerate([*CIFAR10.train_list, *CIFAR10.test_list]):
        content = pickle.dumps({"data": x[10 * i : 10 * i + 10].reshape(10, -1), "labels": list(range(10))})
        (folder / file).write_bytes(content)
        sums[file] = hashlib.md5(content).hexdigest()
    with pytest.raises(layout.LayoutError, match="holds no cifar10"):
        read_source(tmp_path, "cifar10", None, None, train=True)
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, name, [[file, sums[file]] for file, _ in getattr(CIFAR10, name)])
    meta = pickle.dumps({"label_names": list("abcdefghij")})
    (folder / CIFAR10.meta["filename"]).write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()})
    found = read_source(tmp_path, "cifar10", None, None, train=True)
    assert np.array_equal(np.concatenate(list(found.batches())), x[:50])
    assert (found.n, found.classes, found.levels) == (50, tuple("abcdefghij"), 255)


def test_large_dimensions_have_no_stored_covariance() -> None:
    x = images(4, 3, 40, 40)
    meta, _ = layout.write("large", iter([x]), 4, "test", levels=255)
    assert set(meta.files) == {layout.X}
    assert stored("large").reference_moments() is None


def test_a_copy_that_fails_leaves_nothing(root: Path) -> None:
    def broken() -> object:
        yield images(2, 1, 8, 8)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        layout.write("broken", broken(), 4, "test", levels=255)  # type: ignore[arg-type]
    with pytest.raises(layout.LayoutError, match="2 samples where 4 were announced"):
        layout.write("broken", iter([images(2, 1, 8, 8)]), 4, "test", levels=255)
    assert list(root.iterdir()) == []


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing there": (("add", "a", "nowhere"), "there is no file or folder nowhere"),
    "no images": (("add", "a", "empty"), "holds no images"),
    "no name": (("add", "../a", "pets"), "is no name of a data set"),
    "taken": (("add", "pets", "pets"), "is there already"),
    "sizes": (("add", "a", "sizes"), "bring all to one size with --size"),
    "no image": (("add", "a", "damaged"), "cannot be read as an image"),
    "loose": (("add", "a", "loose"), "belongs to no class"),
    "text": (("add", "a", "text.txt"), "neither a folder of images nor"),
    "pickled": (("add", "a", "pickled.npy"), "is damaged, or holds Python objects, which are never loaded"),
    "integers": (("add", "a", "integers.npy"), "images are uint8"),
    "one axis": (("add", "a", "one.npy"), "the array has shape (3,)"),
    "channels": (("add", "a", "channels.npy"), "with C 1 or 3"),
    "not finite": (("add", "a", "nan.npy"), "are not finite"),
    "labels": (("add", "a", "x.npy", "--labels", "one.npy"), "not integers (5,)"),
    "size of an array": (("add", "a", "x.npy", "--size", "4"), "which keeps its size"),
    "labels of a folder": (("add", "a", "pets", "--labels", "one.npy"), "its subfolders are the classes"),
    "split": (("add", "a", "x.npy", "--split", "test"), "only with --as"),
    "no background": (("add", "a", "pets", "--background", ""), "'' is no colour without transparency"),
    "background of mnist": (
        ("add", "a", "pets", "--as", "mnist", "--background", ""),
        "leave out --labels, --size and",
    ),
    "as": (("add", "a", "pets", "--as", "mnist"), "holds no mnist as torchvision keeps it"),
    "deep": (("add", "a", "deep"), "has more than 8 bits a channel"),
    "truncated": (("add", "a", "truncated.npz"), "is damaged, or holds no arrays of numbers"),
    "words": (("add", "a", "x.npy", "--labels", "words.npy"), "not integers (5,)"),
    "huge label": (("add", "a", "x.npy", "--labels", "huge.npy"), "labels outside 0"),
    "nothing in it": (("add", "a", "hollow.npy"), "has shape (5, 0)"),
    "old mnist": (("add", "a", "old", "--as", "mnist"), "would be read unchecked"),
    "garbage mnist": (("add", "a", "garbage", "--as", "mnist"), "holds no mnist as torchvision keeps it"),
    "show": (("show", "b"), "there is no data set 'b'"),
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    image_folder(folder / "pets")
    for name in ("empty", "sizes", "damaged", "loose/in"):
        (folder / name).mkdir(parents=True)
    for name, side in (("sizes/a.png", 8), ("sizes/b.png", 9), ("loose/a.png", 8), ("loose/in/b.png", 8)):
        Image.fromarray(images(1, side, side)[0]).save(folder / name)
    (folder / "damaged" / "a.png").write_bytes(b"no image")
    (folder / "deep").mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(folder / "deep" / "a.png")
    (folder / "old" / "MNIST" / "processed").mkdir(parents=True)
    raw = folder / "garbage" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"garbage that is no idx file")
    (folder / "text.txt").write_text("x")
    np.save(folder / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    arrays = {
        "integers": np.arange(6).reshape(3, 2),
        "one": np.zeros(3),
        "channels": images(5, 4, 4, 4),
        "nan": np.full((3, 2), np.nan),
        "x": images(5, 8, 8),
        "words": np.array(["a"] * 5),
        "huge": np.array([0, 1, 2, 3, 10**9]),
        "hollow": np.zeros((5, 0)),
    }
    np.savez(folder / "whole.npz", x=images(50, 8, 8))
    (folder / "truncated.npz").write_bytes((folder / "whole.npz").read_bytes()[:900])
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_unsuited_is_refused(name: str, material: Path, tmp_path: Path, root: Path) -> None:
    (tmp_path / "pets").symlink_to(material / "pets")
    for path in material.iterdir():
        if path.name != "pets":
            (tmp_path / path.name).symlink_to(path)
    image = images(4, 1, 8, 8)
    layout.write("pets", iter([image]), 4, "test", np.array([0, 0, 1, 1]), ("cat", "dog"), levels=255)
    args, said = REFUSED[name]
    done = study("data", *args, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert [path.name for path in root.iterdir()] == ["pets"]


def test_a_study_of_absent_data_is_refused_and_can_be_planned(tmp_path: Path) -> None:
    spec = {"name": "stored", "dataset": "far", "fingerprint": "0" * 20}
    assert parse_spec("data", spec).params.sample_shape() is None
    text = TINY.read_text().replace("data: digits", f"data: {json.dumps(spec)}")
    (tmp_path / "mine.yaml").write_text(text)
    assert json.loads(succeeds("plan", "mine.yaml", "--json", cwd=tmp_path))["cost"]["v_flops"] is None
    refused = study("run", "mine.yaml", cwd=tmp_path)
    assert refused.returncode == 2 and "there is no data set 'far'" in refused.stderr


def test_colour_is_kept_and_what_is_hidden_left_out(tmp_path: Path) -> None:
    """One grey image among coloured ones; a folder of thumbnails that some program left."""
    image_folder(tmp_path / "mixed", classes=("a",), n=3)
    Image.fromarray(images(1, 8, 8)[0]).save(tmp_path / "mixed" / "a" / "000.png")
    image_folder(tmp_path / "mixed" / ".thumbs", classes=("x",), n=2)
    succeeds("data", "add", "mixed", "mixed", cwd=tmp_path)
    data = stored("mixed")
    assert (data.shape, data.meta.classes, data.n) == ((3, 8, 8), ("a",), 3)


def test_what_was_taken_changed_and_left_out_is_said(tmp_path: Path, root: Path) -> None:
    image_folder(tmp_path / "pets", n=2)
    for name in ("a.txt", "b.txt", "c.heic", "d.json"):
        (tmp_path / "pets" / "cat" / name).touch()
    clear = np.dstack([images(1, 8, 8, 3)[0], np.zeros((8, 8), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "pets" / "dog" / "z.png")
    refused = study("data", "add", "pets", "pets", "--strict", cwd=tmp_path)
    assert refused.returncode == 2 and "--strict: nothing was added\n  - left out: 4 files of other" in refused.stderr
    assert list(root.iterdir()) == []
    lines = succeeds("data", "add", "pets", "pets", "--background", "black", cwd=tmp_path).splitlines()
    assert lines[:2] == [
        "pets: 5 images of shape 3×8×8, 2 classes (from folder pets)",
        "classes: cat (2), dog (3)",
    ]
    assert lines[2].startswith("values: 0 to 2") and lines[2].endswith("; 0 to 255 are trained on as −1 to 1")
    assert lines[3:5] == [
        "left out: 4 files of other types: cat/a.txt, cat/b.txt, cat/c.heic, …",
        "changed: 1 image with transparent pixels, laid on #000000: dog/z.png",
    ]
    assert json.loads(succeeds("data", "list", "--json", cwd=tmp_path))[0]["background"] == "#000000"

    np.savez(tmp_path / "one.npz", x=np.full((1, 5), 200.0), y=[0])
    done = study("data", "add", "one", "one.npz", cwd=tmp_path)
    assert "one: 1 sample of shape 5, 1 class (from array one.npz)" in done.stdout
    assert done.stderr.splitlines() == ["warning: there is one sample only", "warning: every value is 200"]
    refused = study("data", "add", "two", "one.npz", "--strict", cwd=tmp_path)
    assert refused.returncode == 2 and "nothing was added\n  - there is one sample only" in refused.stderr
    record = json.loads(study("data", "add", "two", "one.npz", "--json", cwd=tmp_path).stdout)
    assert record["warnings"] == ["there is one sample only", "every value is 200"]
    assert (record["left_out"], record["values"]["low"]) == ([], 200.0)
    assert sorted(path.name for path in root.iterdir()) == ["one", "pets", "two"]


def test_a_disk_that_is_too_small_is_one_line(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    np.save(tmp_path / "x.npy", images(5, 8, 8))
    monkeypatch.setattr(os, "posix_fallocate", full)
    refused = study("data", "add", "a", "x.npy", cwd=tmp_path)
    assert refused.returncode == 2 and "No space left on device (the samples take" in refused.stderr
    assert list(root.iterdir()) == []


def test_latents_are_checked_and_not_called_damaged_data_sets(tmp_path: Path, root: Path) -> None:
    latents = root / "small"
    latents.mkdir(parents=True)
    moments = np.full((6, 1, 2, 4, 4), 0.5, np.float16)
    (latents / "meta.json").write_text('{"format": 1, "moments": "mean+std", "scale": 1.0}')
    np.save(latents / "moments.npy", moments)
    np.save(latents / "labels.npy", np.arange(6) % 2)
    np.savez(latents / "reference.npz", mu=np.zeros(3), sigma=np.eye(3))
    listed = study("data", "list", cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "small: latents, which `study data check small` looks at\n")
    assert succeeds("data", "check", cwd=tmp_path) == "small: nothing is wrong with these latents\n"
    assert "holds latents" in study("data", "show", "small", cwd=tmp_path).stderr

    spec = {"name": "latents", "dataset": "small", "channels": 1, "side": 4, "classes": 2, "scale": 1.0}
    text = TINY.read_text().replace("data: digits", f"data: {json.dumps(spec)}")
    (tmp_path / "mine.yaml").write_text(text.replace("study: tiny", "study: mine"))
    env = environment(STUDY_DATA=str(root))
    assert study("check", "mine.yaml", cwd=tmp_path, env=env).returncode == 0
    moments[3, 0, 1] = -1
    np.save(latents / "moments.npy", moments)
    np.savez(latents / "reference.npz", mu=np.zeros(3), sigma=np.full((3, 3), np.nan))
    wrong = f"{latents / 'moments.npy'}: item 3 has a standard deviation below 0"
    checked = study("check", "mine.yaml", cwd=tmp_path, env=env)
    assert checked.returncode == 2 and wrong in checked.stderr
    refused = study("run", "mine.yaml", cwd=tmp_path, env=env)
    assert refused.returncode == 2 and f"  - {wrong}\n" in refused.stderr
    found = study("data", "check", cwd=tmp_path, env=env)
    assert found.returncode == 1 and found.stdout.splitlines() == [
        f"small: {wrong}",
        f"small: {latents / 'reference.npz'} has moments that are not finite",
    ]


def test_what_is_damaged_is_said_and_does_not_hide_the_rest(tmp_path: Path, root: Path) -> None:
    for name in ("one", "two"):
        layout.write(name, iter([images(4, 1, 8, 8)]), 4, "test", levels=255)
    (root / "one" / "meta.json").write_text("{")
    (root / ".two.1").mkdir()
    (root / ".two.1" / "meta.json").write_text("{")
    done = study("data", "list", cwd=tmp_path)
    assert (done.returncode, "two" in done.stdout, "one" in done.stderr) == (0, True, True)
    x = root / "two" / "x.npy"
    x.write_bytes(x.read_bytes()[:100])
    refused = study("data", "show", "two", "--rows", "2", "--columns", "2", cwd=tmp_path)
    assert (refused.returncode, "x.npy is damaged" in refused.stderr) == (2, True), refused.stderr
