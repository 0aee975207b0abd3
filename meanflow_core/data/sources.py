"""What `study data add` reads: folders of images, arrays, and torchvision's CIFAR-10 and MNIST on disk. No pickle is
loaded but CIFAR-10's own files, after torchvision has compared their checksums with the published ones; of MNIST only
the raw files are read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meanflow_core.data.layout import Array, LayoutError

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"}
BATCH = 1024
EIGHT_BITS = 255
MOST_CLASSES = 100_000
TORCHVISION = ("cifar10", "mnist")


@dataclass(frozen=True)
class Source:
    """Samples to be written (`meanflow_core.data.layout.write`): ``batches()`` gives all n, in order."""

    batches: Callable[[], Iterator[Array]]
    n: int
    said: str
    labels: Array | None = None
    classes: tuple[str, ...] = ()
    levels: int | None = None


def read_source(path: Path, kind: str | None, labels: Path | None, size: int | None, train: bool) -> Source:
    """The samples that a path holds.

    Args:
        kind: ``cifar10``, ``mnist``, or None for a folder of images or an array, whichever it is.
        labels: of an array, a file with its labels.
        size: of images, the side to which they are brought: scaled by their shorter side, then cut in the middle.
        train: of CIFAR-10 and MNIST, whether the training split.
    Raises: LayoutError that says what is wrong with which file.
    """
    if kind in TORCHVISION:
        return _torchvision(path, kind, train)
    if path.is_dir():
        if labels is not None:
            raise LayoutError(f"{path} is a folder: its subfolders are the classes; --labels goes with an array")
        return _folder(path, size)
    if path.suffix not in {".npy", ".npz"}:
        raise LayoutError(f"{path} is neither a folder of images nor a .npy or .npz file")
    if size is not None:
        raise LayoutError(f"{path} is an array, which keeps its size; --size goes with a folder of images")
    return _array(path, labels)


def _folder(root: Path, size: int | None) -> Source:
    """``root/<class>/*.png``, or ``root/*.png`` without classes."""
    every = (p for p in root.rglob("*") if p.suffix.lower() in IMAGES)
    found = sorted(p for p in every if not any(part.startswith(".") for part in p.relative_to(root).parts))
    if not found:
        raise LayoutError(f"{root} holds no images ({', '.join(sorted(IMAGES))})")
    classes = sorted({p.relative_to(root).parts[0] for p in found if p.parent != root})
    if classes and any(p.parent == root for p in found):
        loose = next(p for p in found if p.parent == root)
        raise LayoutError(f"{loose} belongs to no class: either all images lie in subfolders, or none does")
    mode = "L" if all(_is_grey(p) for p in found) else "RGB"
    first = _image(found[0], size, mode)

    def batches() -> Iterator[Array]:
        for at in range(0, len(found), BATCH):
            batch = [_image(p, size, mode) for p in found[at : at + BATCH]]
            for p, image in zip(found[at:], batch, strict=False):
                if image.shape != first.shape:
                    raise LayoutError(
                        f"{p} has {image.shape[1]}×{image.shape[2]} pixels, and {found[0].name} "
                        f"{first.shape[1]}×{first.shape[2]}: bring all to one size with --size"
                    )
            yield np.stack(batch)

    labels = np.array([classes.index(p.relative_to(root).parts[0]) for p in found]) if classes else None
    return Source(batches, len(found), f"folder {root.name}", labels, tuple(classes), EIGHT_BITS)


def _is_grey(path: Path) -> bool:
    """Whether an image has no colour, by its header. Raises: LayoutError where it has more than 8 bits a channel."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            mode = opened.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise LayoutError(f"{path} cannot be read as an image: {error}") from None
    if mode.startswith(("I", "F")):
        raise LayoutError(f"{path} has more than 8 bits a pixel (mode {mode}): convert it, or add an array of values")
    return mode in {"1", "L", "LA", "La"}


def _image(path: Path, size: int | None, mode: str) -> Array:
    """(C, H, W) uint8, grey (``mode`` L) or in colour (RGB)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert(mode)
            if size is not None:
                image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
            pixels = np.asarray(image, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise LayoutError(f"{path} cannot be read as an image: {error}") from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _array(path: Path, labels: Path | None) -> Source:
    """An .npy file; or an .npz file with ``x`` (or ``images``) and, perhaps, ``y`` (or ``labels``)."""
    held = _load(path)
    if isinstance(held, dict):
        x = _named(held, ("x", "images"), path)
        y = next((held[name] for name in ("y", "labels") if name in held), None)
    else:
        x, y = held, None
    if labels is not None:
        read = _load(labels)
        y = _named(read, ("y", "labels"), labels) if isinstance(read, dict) else read
    if x.ndim < 2 or not x.size:
        raise LayoutError(f"{path}: samples stand along the first axis, and the array has shape {x.shape}")
    if x.dtype == np.uint8:
        x, levels = _channels_first(x, path), EIGHT_BITS
    elif np.issubdtype(x.dtype, np.floating):
        levels = None
    else:
        raise LayoutError(f"{path} is {x.dtype}: images are uint8, values are floating-point numbers")
    classes = () if y is None else _classes(y, len(x), labels or path)

    def batches() -> Iterator[Array]:
        for at in range(0, len(x), BATCH):
            batch = x[at : at + BATCH]
            yield np.ascontiguousarray(batch if levels else batch.astype(np.float32))

    return Source(batches, len(x), f"array {path.name}", y, classes, levels)


def _classes(y: Array, n: int, path: Path) -> tuple[str, ...]:
    """Names of the classes, which are numbered from 0. Raises: LayoutError for what are no labels of n samples."""
    if y.shape != (n,) or not np.issubdtype(y.dtype, np.integer):
        raise LayoutError(f"{path}: the labels are {y.dtype} {y.shape}, not integers ({n},)")
    if not 0 <= y.min() <= y.max() < MOST_CLASSES:
        raise LayoutError(f"{path}: there are labels outside 0 … {MOST_CLASSES - 1} (from {y.min()} to {y.max()})")
    return tuple(map(str, range(int(y.max()) + 1)))


def _load(path: Path) -> Array | dict[str, Array]:
    try:
        held: Any = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        return {name: held[name] for name in held.files} if hasattr(held, "files") else held
    except FileNotFoundError:
        raise LayoutError(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LayoutError(f"{path} cannot be read as arrays of numbers: {error}") from None


def _named(arrays: dict[str, Array], names: Sequence[str], path: Path) -> Array:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise LayoutError(f"{path} has no array '{names[0]}' (it has: {', '.join(arrays) or 'none'})")


def _channels_first(x: Array, path: Path) -> Array:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) → (N, C, H, W), where C is 1 or 3."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)
    raise LayoutError(f"{path} has shape {x.shape}: images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3")


def _torchvision(root: Path, kind: str, train: bool) -> Source:
    from torchvision import datasets

    made = {"cifar10": datasets.CIFAR10, "mnist": datasets.MNIST}[kind]
    if kind == "mnist" and (root / "MNIST" / "processed").exists():
        old = root / "MNIST" / "processed"
        raise LayoutError(f"{old} holds files of an old torchvision, which would be read unchecked: move it away")
    try:
        held = made(str(root), train=train, download=False)
    except (RuntimeError, OSError, ValueError, AssertionError, LookupError, TypeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LayoutError(f"{root} holds no {kind} as torchvision keeps it ({said})") from None
    pixels = np.asarray(held.data, dtype=np.uint8)
    x = pixels[:, None] if kind == "mnist" else pixels.transpose(0, 3, 1, 2)
    classes = tuple(name.partition(" - ")[0] for name in held.classes)

    def batches() -> Iterator[Array]:
        for at in range(0, len(x), BATCH):
            yield np.ascontiguousarray(x[at : at + BATCH])

    split = "training" if train else "test"
    return Source(batches, len(x), f"{kind}, {split} split", np.asarray(held.targets), classes, EIGHT_BITS)
