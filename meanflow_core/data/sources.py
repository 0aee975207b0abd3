"""What `study data add` reads: folders of images, arrays, and torchvision's CIFAR-10 and MNIST on disk. No pickle is
loaded but CIFAR-10's own files, after torchvision has compared their checksums with the published ones; of MNIST only
the raw files are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from meanflow_core.arrays import CHUNK_BYTES, Array, ArrayFileError, read_npy, read_npz
from meanflow_core.data.account import Account, shown
from meanflow_core.data.folders import BACKGROUND, read_folder
from meanflow_core.data.layout import LayoutError
from meanflow_core.data.source import BATCH, EIGHT_BITS, Source
from meanflow_core.words import counted

MOST_CLASSES = 100_000
TORCHVISION = ("cifar10", "mnist")
SAMPLES, LABELS = ("x", "images"), ("y", "labels")  # what arrays in an .npz file are called


def read_source(
    path: Path,
    kind: str | None,
    labels: Path | None,
    size: int | None,
    train: bool,
    background: str | None = None,
    account: Account | None = None,
) -> Source:
    """The samples that a path holds.

    Args:
        kind: ``cifar10``, ``mnist``, or None for a folder of images or an array, whichever it is.
        labels: of an array, a file with its labels.
        size: of images, the side to which they are brought: scaled by their shorter side, then cut in the middle.
        train: of CIFAR-10 and MNIST, whether the training split.
        background: of a folder, the colour upon which transparent pixels are laid; None is white.
        account: is filled with what is left out, changed and doubted: now, and while batches are read.
    Raises: LayoutError that says what is wrong with which file.
    """
    account = Account() if account is None else account
    try:
        return _read(path, kind, labels, size, train, background, account)
    except ArrayFileError as error:
        raise LayoutError(shown(str(error))) from None


def _read(
    path: Path,
    kind: str | None,
    labels: Path | None,
    size: int | None,
    train: bool,
    background: str | None,
    account: Account,
) -> Source:
    if kind in TORCHVISION:
        return _torchvision(path, kind, train)
    if path.is_dir():
        if labels is not None:
            raise LayoutError(f"{shown(path)} is a folder: its subfolders are the classes; --labels goes with an array")
        return read_folder(path, size, BACKGROUND if background is None else background, account)
    if path.suffix.lower() not in {".npy", ".npz"}:
        raise LayoutError(f"{shown(path)} is neither a folder of images nor a .npy or .npz file")
    if size is not None:
        raise LayoutError(f"{shown(path)} is an array, which keeps its size; --size goes with a folder of images")
    if background is not None:
        raise LayoutError(f"{shown(path)} is an array, which has no transparent pixels; leave out --background")
    return _array(path, labels, account)


def _array(path: Path, labels: Path | None, account: Account) -> Source:
    """An .npy file; or an .npz file with ``x`` (or ``images``) and, perhaps, ``y`` (or ``labels``)."""
    held = _held(path, (*SAMPLES, *(LABELS if labels is None else ())), account)
    x = _named(held, SAMPLES, path)
    y = next((held[name] for name in LABELS if name in held), None)
    if labels is not None:
        y = _named(_held(labels, LABELS, account), LABELS, labels)
    if x.ndim < 2 or not x.size:
        raise LayoutError(f"{shown(path)}: samples stand along the first axis, and the array has shape {x.shape}")
    _doubt_shape(x, path, account)
    if x.dtype == np.uint8:
        x, levels = _channels_first(x, path), EIGHT_BITS
    elif np.issubdtype(x.dtype, np.floating):
        levels = None
        if x.dtype.itemsize > 4:
            account.add(
                "changed", f"array of {x.dtype} kept as float32", f"arrays of {x.dtype} kept as float32", path.name
            )
    else:
        raise LayoutError(f"{shown(path)} is {x.dtype}: images are uint8, values are floating-point numbers")
    classes = () if y is None else _classes(y, len(x), labels or path, account)
    batch = max(1, min(BATCH, CHUNK_BYTES // x[:1].nbytes))

    def batches() -> Iterator[Array]:
        for at in range(0, len(x), batch):
            part = x[at : at + batch]
            yield np.ascontiguousarray(part) if levels else _single(part, at, path)

    numbers = None if y is None else y.astype(np.int64)
    return Source(batches, len(x), f"array {shown(path.name)}", numbers, classes, levels)


def _single(values: Array, at: int, path: Path) -> Array:
    """float32. Raises: LayoutError where a number is too large for it."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.array_equal(np.isfinite(single), np.isfinite(values)):
        raise LayoutError(
            f"{shown(path)}: some of samples {at} to {at + len(values) - 1} hold numbers too large for float32"
        )
    return single


def _doubt_shape(x: Array, path: Path, account: Account) -> None:
    """Warn where it is not plain which axis is which."""
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] in (1, 3):
        account.warn(f"{shown(path)} has shape {x.shape}, which was read as (N, C, H, W), not as (N, H, W, C)")
    if x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] in (3, 4):
        account.warn(
            f"{shown(path)} has shape {x.shape}, which was read as {counted(len(x), 'grey image')} of "
            f"{x.shape[1]}×{x.shape[2]}; one image in colour would be (1, H, W, C)"
        )
    if x.dtype != np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        account.warn(
            f"{shown(path)} has shape {x.shape}, and values keep their axes: networks for images read (C, H, W), so "
            "transpose it if its channels come last"
        )


def _classes(y: Array, n: int, path: Path, account: Account) -> tuple[str, ...]:
    """Names of the classes, which are numbered from 0. Raises: LayoutError for what are no labels of n samples."""
    if y.shape != (n,) or not np.issubdtype(y.dtype, np.integer):
        raise LayoutError(f"{shown(path)}: the labels are {y.dtype} {y.shape}, not integers ({n},)")
    if not 0 <= y.min() <= y.max() < MOST_CLASSES:
        raise LayoutError(
            f"{shown(path)}: there are labels outside 0 … {MOST_CLASSES - 1} (from {y.min()} to {y.max()})"
        )
    absent = np.flatnonzero(np.bincount(y.astype(np.int64)) == 0)
    if len(absent):
        some = ", ".join(map(str, absent[:3])) + (", …" if len(absent) > 3 else "")
        empty = f"{counted(len(absent), 'class', 'classes')} of {int(y.max()) + 1:,}"
        account.warn(
            f"{shown(path)}: no sample has label {some} ({empty}), and a network keeps a place for every class: number "
            "those that there are without gaps"
        )
    return tuple(map(str, range(int(y.max()) + 1)))


def _held(path: Path, wanted: Sequence[str], account: Account) -> dict[str, Array]:
    """The arrays of a file that are wanted, by name; of an .npy file, one under the first name. Of several that mean
    the same the first counts; the others are left out. Raises: ArrayFileError."""
    if path.suffix.lower() != ".npz":
        return {wanted[0]: read_npy(path, mapped=True)}
    held, names = read_npz(path, wanted)
    taken = [next((name for name in same if name in held), None) for same in (SAMPLES, LABELS)]
    for name in names:
        if name not in taken:
            account.add("left out", "array of an .npz file", "arrays of an .npz file", f"{name} in {path.name}")
    return {name: held[name] for name in taken if name is not None}


def _named(arrays: dict[str, Array], names: Sequence[str], path: Path) -> Array:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise LayoutError(f"{shown(path)} has no array '{names[0]}' (nor '{names[1]}')")


def _channels_first(x: Array, path: Path) -> Array:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) → (N, C, H, W), where C is 1 or 3."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)
    raise LayoutError(
        f"{shown(path)} has shape {x.shape}: images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3"
    )


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
