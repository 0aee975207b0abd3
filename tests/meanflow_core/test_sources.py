"""What becomes of a source: nothing is changed or left out of it in silence, and what is unsuited is refused."""

from __future__ import annotations

import os
import pickle
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from meanflow_core.arrays import Array
from meanflow_core.data.account import Account, shown
from meanflow_core.data.layout import LayoutError
from meanflow_core.data.sources import read_source
from meanflow_core.words import counted

RNG = np.random.default_rng(20261130)
GREY, COLOUR = RNG.integers(0, 256, (8, 8), np.uint8), RNG.integers(0, 256, (8, 8, 3), np.uint8)


def read(path: Path, **options: Any) -> tuple[Array, Account]:
    """All samples, and what is said of them."""
    account = Account()
    given = {"kind": None, "labels": None, "size": None, "train": True, **options}
    source = read_source(path, account=account, **given)
    batches = account.measured(source.batches(), images=source.levels is not None)
    return np.concatenate(list(batches)), account


def save(path: Path, pixels: Array, mode: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def said(account: Account) -> str:
    return "\n".join(f"{group}: {line}" for group in ("left out", "changed", "warning") for line in account.said(group))


def deep_png(path: Path) -> None:
    """Colour in 16 bits a channel, which Pillow opens as RGB."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in COLOUR)
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def half(path: Path) -> None:
    save(path, RNG.integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


REFUSED_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "deep.png": (deep_png, "more than 8 bits a channel (PNG, mode RGB)"),
    "grey16.png": (lambda path: save(path, GREY.astype(np.uint16)), "more than 8 bits a channel (PNG, mode I;16)"),
    "big_endian.tif": (lambda path: save(path, GREY.astype(">u2")), "more than 8 bits a channel (TIFF"),
    "float.tif": (lambda path: save(path, GREY.astype(np.float32)), "more than 8 bits a channel (TIFF, mode F)"),
    "deep.ppm": (lambda path: path.write_bytes(b"P6 8 8 65535\n" + COLOUR.astype(">u2").tobytes()), "(PPM, mode RGB)"),
    "deep.pgm": (lambda path: path.write_bytes(b"P5 8 8 65535\n" + GREY.astype(">u2").tobytes()), "(PPM, mode I)"),
    **{f"half.{kind}": (half, "cannot be read as an image") for kind in ("jpg", "png", "webp", "bmp", "tif", "gif")},
    "program.png": (lambda path: save(path, COLOUR, format="EPS"), "cannot identify image file"),
    "bomb.png": (lambda path: save(path, GREY), "exceeds limit"),
}


@pytest.mark.parametrize("name", REFUSED_IMAGES)
def test_images_that_would_be_changed_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands first: that an image is unsuited is found of each."""
    save(tmp_path / "a.png", COLOUR)
    make, complaint = REFUSED_IMAGES[name]
    make(tmp_path / name)
    if name == "bomb.png":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(LayoutError) as refused:
        read(tmp_path)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_that_are_too_deep_are_counted(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"{name}.png", GREY.astype(np.uint16))
    with pytest.raises(LayoutError, match=r"a\.png has more than 8 bits .*, and so have 2 others: convert"):
        read(tmp_path)


def test_images_of_every_kind_keep_their_pixels(tmp_path: Path) -> None:
    """Lossless formats; of grey ones in grey alone, and of animations the first frame."""
    save(tmp_path / "grey" / "a.PNG", GREY)
    save(tmp_path / "grey" / "b.tif", GREY)
    save(tmp_path / "grey" / "c.png", np.dstack([GREY, np.full_like(GREY, 255)]))
    (tmp_path / "grey" / "d.pgm").write_bytes(b"P5 8 8 255\n" + GREY.tobytes())
    x, account = read(tmp_path / "grey")
    assert np.array_equal(x, np.broadcast_to(GREY, (4, 1, 8, 8)))
    assert said(account) == ""
    save(tmp_path / "bits" / "a.png", (GREY > 127).astype(np.uint8) * 255, "1")
    assert np.array_equal(read(tmp_path / "bits")[0][0, 0], (GREY > 127) * np.uint8(255))

    few = COLOUR & 0xC0  # 64 colours, which fit a palette
    more = [Image.fromarray(few[::-1].copy()), Image.fromarray(few.transpose(1, 0, 2).copy())]
    folder = tmp_path / "colour"
    for name in ("a.gif", "b.png", "c.tiff", "d.webp"):
        save(folder / name, few, save_all=True, append_images=more, lossless=True)
    save(folder / "e.png", few, "P")
    save(folder / "f.png", GREY)
    x, account = read(folder)
    assert np.array_equal(x[:4], np.broadcast_to(few.transpose(2, 0, 1), (4, 3, 8, 8)))
    assert np.array_equal(x[4], np.asarray(Image.open(folder / "e.png").convert("RGB")).transpose(2, 0, 1))
    assert said(account).splitlines() == [
        "left out: 8 further frames of images: a.gif, b.png, c.tiff, …",
        "changed: 1 grey image in three equal channels: f.png",
    ]


def grey_png(path: Path, bits: int) -> None:
    """8 × 8 pixels of grey, all of the largest value but the first, which is 1."""
    row = b"\xff" * bits
    rows = b"\0" + bytes([1 << 8 - bits | 0xFF >> bits]) + row[1:] + (b"\0" + row) * 7
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def test_values_that_are_scaled_are_counted(tmp_path: Path) -> None:
    pixels = np.full((8, 8), 100, np.uint8)
    for name, largest in (("a", 100), ("b", 255), ("c", 200)):
        (tmp_path / f"{name}.pgm").write_bytes(f"P5 8 8 {largest}\n".encode() + pixels.tobytes())
    (tmp_path / "d.pgm").write_text("P2 8 8 100\n" + " ".join(map(str, pixels.ravel())))
    for bits in (1, 2, 4):
        grey_png(tmp_path / f"e{bits}.png", bits)
    x, account = read(tmp_path)
    assert x[:, 0, 0, 0].tolist() == [255, 100, 128, 255, 255, 85, 17] and (x[4:, 0, 0, 1:] == 255).all()
    counted_ = "5 images of fewer than 256 levels, scaled to 0 to 255"
    assert [line.partition(":")[0] for line in account.said("changed")] == [counted_]


def test_what_is_transparent_lies_on_the_background(tmp_path: Path) -> None:
    clear = np.zeros_like(GREY)
    clear[0, 0] = 255
    save(tmp_path / "c" / "a.png", np.dstack([COLOUR, clear]))
    x, account = read(tmp_path / "c")
    assert x[0, :, 0, 0].tolist() == COLOUR[0, 0].tolist() and (x.reshape(3, -1)[:, 1:] == 255).all()
    assert account.said("changed") == ["1 image with transparent pixels, laid on #ffffff: a.png"]
    assert (read(tmp_path / "c", background="#102030")[0][0, :, 5, 5] == [16, 32, 48]).all()
    save(tmp_path / "g" / "a.png", np.dstack([GREY, clear]))
    save(tmp_path / "g" / "b.png", np.zeros_like(GREY), transparency=0)
    assert read(tmp_path / "g", background="#808080")[0].shape == (2, 1, 8, 8)
    assert (read(tmp_path / "g", background="red")[0][1, :, 0, 0] == [255, 0, 0]).all(), "red is not made grey"
    assert read_source(tmp_path / "c", None, None, None, True, "black").background == "#000000"
    for colour in ("no colour", "#11223344", "", " "):
        with pytest.raises(LayoutError, match="is no colour without transparency"):
            read(tmp_path / "c", background=colour)


def test_what_is_done_to_images_is_said(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    tall = RNG.integers(0, 256, (4, 8, 3), np.uint8)
    save(tmp_path / "a.png", tall, exif=turned)
    save(tmp_path / "b.png", np.rot90(tall, -1).copy())
    x, account = read(tmp_path)
    assert np.array_equal(x[0], x[1])
    assert said(account) == "changed: 1 image turned as its EXIF says: a.png"
    save(tmp_path / "c.jpg", COLOUR, "CMYK")
    with pytest.raises(LayoutError, match=r"c.jpg has 8×8 pixels, and a.png 8×4: bring all to one size"):
        read(tmp_path)
    assert said(read(tmp_path, size=8)[1]).splitlines() == [
        "changed: 2 images cut to a square: a.png, b.png",
        "changed: 1 image turned as its EXIF says: a.png",
        "warning: 1 image was converted from CMYK without a colour profile: c.jpg",
        "warning: 2 images were enlarged: a.png, b.png",
    ]


def test_every_file_of_a_folder_is_accounted_for(tmp_path: Path) -> None:
    """Links are followed, into circles no further; pipes are not opened; what is left out is counted and named."""
    root, elsewhere = tmp_path / "pets", tmp_path / "elsewhere"
    save(root / "cat" / "a.png", COLOUR)
    save(elsewhere / "b.png", COLOUR)
    save(root / ".thumbs" / "t.png", COLOUR)
    (root / "dog").symlink_to(elsewhere)
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
    (root / "cat" / "c.png").symlink_to(elsewhere / "b.png")
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "empty").mkdir()
    for name in ("1.txt", "2.heic", "3", "4.json"):
        (root / "empty" / name).touch()
    account = read(root)[1]
    source = read_source(root, None, None, None, True)
    assert (source.n, source.classes, source.said) == (3, ("cat", "dog"), "folder pets")
    assert source.labels is not None and source.labels.tolist() == [0, 0, 1]
    assert sorted(account.said("left out")) == [
        "1 hidden file or folder: .thumbs",
        "1 link that leads nowhere: cat/gone.png",
        "1 link to a folder that it lies in: cat/up",
        "1 pipe, socket or device: cat/pipe.png",
        "1 subfolder without an image: empty",
        "4 files of other types: empty/1.txt, empty/2.heic, empty/3, …",
    ]
    assert account.record()["left_out"][0] == {"what": "hidden files and folders", "n": 1, "first": [".thumbs"]}
    for path in root.rglob("*.png"):
        path.unlink()
    (root / "dog").unlink()
    with pytest.raises(LayoutError, match=r"holds no images(.|\n)*files of other types"):
        read(root)


def test_names_of_classes(tmp_path: Path) -> None:
    accent = unicodedata.normalize("NFD", "café")
    for folder in ("Cat", "cat", "café", accent, os.fsdecode(b"\xe9t\xe9"), "two\nlines"):
        save(tmp_path / folder / "a.png", COLOUR)
    account = Account()
    source = read_source(tmp_path, None, None, None, True, account=account)
    assert source.classes == ("Cat", accent, "café", "cat", "two\\nlines", "\\xe9t\\xe9")
    warnings = said(account)
    assert "hardly told apart: 'Cat', 'cat'" in warnings
    assert f"hardly told apart: '{accent}', 'café'" in warnings
    assert "2 classes are named with escapes" in warnings
    save(tmp_path / "\\xe9t\\xe9" / "a.png", COLOUR)
    with pytest.raises(LayoutError, match="two classes would be called"):
        read(tmp_path)


def test_words() -> None:
    assert [counted(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert counted(2, "class", "classes") == "2 classes"
    assert shown(os.fsdecode(b"a\xff\x1b[1m")) == "a\\xff\\x1b[1m"


X = RNG.normal(size=(20, 5))
IMAGES = RNG.integers(0, 256, (20, 8, 8), np.uint8)

DOUBTED: dict[str, tuple[dict[str, Array], str]] = {
    "gaps": ({"x": IMAGES, "y": np.array([0, 3] * 10)}, "no sample has label 1, 2 (2 classes of 4)"),
    "one gap": ({"x": IMAGES, "y": np.array([0, 2] * 10)}, "no sample has label 1 (1 class of 3)"),
    "bytes as floats": ({"x": IMAGES.astype(np.float32)}, "whole numbers from 0 to 255"),
    "wide": ({"x": X * 100}, "standard deviation of"),
    "narrow": ({"x": X / 1000}, "standard deviation of"),
    "one sample": ({"x": IMAGES[:1]}, "there is one sample only"),
    "zeros": ({"x": np.zeros_like(X)}, "every value is 0"),
    "black": ({"x": IMAGES & 1}, "all but black"),
    "either way": ({"x": IMAGES[:, None, :, :1]}, "read as (N, C, H, W), not as (N, H, W, C)"),
    "one image": ({"x": COLOUR}, "8 grey images of 8×3"),
    "channels last": ({"x": RNG.normal(size=(4, 8, 8, 3))}, "values keep their axes"),
    "more arrays": ({"x": X, "x_test": X, "z": X}, "left out: 2 arrays of an .npz file: x_test in a.npz, z in a.npz"),
    "both names": ({"x": X, "images": X}, "left out: 1 array of an .npz file: images in a.npz"),
    "double": ({"x": X}, "changed: 1 array of float64 kept as float32: a.npz"),
}


@pytest.mark.parametrize("name", DOUBTED)
def test_arrays_that_look_wrong_are_taken_with_a_word(name: str, tmp_path: Path) -> None:
    arrays, complaint = DOUBTED[name]
    np.savez(tmp_path / "a.npz", **arrays)
    x, account = read(tmp_path / "a.npz")
    assert x.size == arrays["x"].size
    assert complaint in said(account)
    assert account.doubts() or complaint.startswith("changed")


def test_arrays_that_look_right_are_taken_without(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.NPZ.npz", images=IMAGES, labels=np.arange(20) % 3)
    (tmp_path / "a.NPZ.npz").rename(tmp_path / "a.NPZ")
    assert said(read(tmp_path / "a.NPZ")[1]) == ""
    np.save(tmp_path / "a.npy", X.astype(">f4"))
    x, account = read(tmp_path / "a.npy")
    assert (said(account), x.dtype) == ("", np.float32)
    found = account.record()["values"]
    expected = {"low": x.min(), "high": x.max(), "mean": x.mean(dtype=float), "std": x.std(dtype=float)}
    assert found == pytest.approx(expected)
    few = Account()
    list(few.measured(iter([IMAGES]), images=True))
    np.testing.assert_allclose((few.values.mean, few.values.std), (IMAGES.mean(), IMAGES.std()))


def twice(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, X)
        np.save(file, X)


def short(path: Path) -> None:
    np.save(path, X)
    path.write_bytes(path.read_bytes()[:-1])


OBJECTS = "is damaged, or holds Python objects, which are never loaded"
REFUSED_ARRAYS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "two arrays": ("a.npy", twice, "bytes follow its array"),
    "short": ("a.npy", short, "is damaged"),
    "pipe": ("a.npy", os.mkfifo, "is not a regular file"),
    "pickle": ("a.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), OBJECTS),
    "objects in a record": ("a.npy", lambda path: np.save(path, np.zeros(2, [("a", "O")])), OBJECTS),
    "a bare pickle": ("a.npy", lambda path: path.write_bytes(pickle.dumps([1])), OBJECTS),
    "anything": ("a.npz", lambda path: path.write_bytes(b"nonsense" * 99), OBJECTS),
    "pickle in npz": ("a.npz", lambda path: np.savez(path, x=np.array([{}])), OBJECTS),
    "nothing": ("a.npy", Path.touch, "is damaged, or holds no arrays of numbers (No data left in file)"),
    "huge": ("a.npy", lambda path: np.save(path, np.full((2, 2), 1e300)), "too large for float32"),
    "nonsense": ("a.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x05\x00(((\n\n"), "is damaged"),
    "torch": ("a.pt", lambda path: path.write_bytes(b"PK"), "neither a folder of images nor"),
    "complex": ("a.npy", lambda path: np.save(path, X * 1j), "is complex128"),
    "logical": ("a.npy", lambda path: np.save(path, X > 0), "is bool"),
    "no samples": ("a.npz", lambda path: np.savez(path, z=X), "has no array 'x' (nor 'images')"),
}


@pytest.mark.parametrize("name", REFUSED_ARRAYS)
def test_arrays_that_are_unsuited_are_refused(name: str, tmp_path: Path) -> None:
    file, make, complaint = REFUSED_ARRAYS[name]
    make(tmp_path / file)
    with pytest.raises(LayoutError) as refused:
        read(tmp_path / file)
    assert complaint in str(refused.value)
    assert str(tmp_path / file) in str(refused.value)
    assert "pickle" not in str(refused.value), "NumPy's advice is not ours"


@pytest.mark.parametrize("kind", ["uint64", "int8", ">i4"])
def test_labels_of_any_whole_number(kind: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, y=(np.arange(20) % 3).astype(kind))
    source = read_source(tmp_path / "a.npz", None, None, None, True)
    assert source.labels is not None and source.labels.dtype == np.int64
    assert (source.labels.tolist(), source.classes) == ([i % 3 for i in range(20)], ("0", "1", "2"))


@pytest.mark.parametrize("labels", [np.arange(19), np.arange(20.0), np.arange(20)[:, None], np.arange(20) - 1, X > 0])
def test_labels_that_are_none_are_refused(labels: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "y.npy", labels)
    with pytest.raises(LayoutError, match=r"y\.npy: .*labels"):
        read(tmp_path / "x.npy", labels=tmp_path / "y.npy")
