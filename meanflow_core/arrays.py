"""Array files that somebody else may have written, cut short or damaged. No pickle is loaded. Torch-free."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CHUNK_BYTES = 2**26

Array = np.ndarray[Any, np.dtype[Any]]


class ArrayFileError(ValueError):
    """A file holds no such arrays. ``path`` is the file, ``reason`` what is wrong with it, and the message both."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path, self.reason = path, reason


def read_npy(path: Path, *, mapped: bool = False) -> Array:
    """The array of an .npy file, mapped or in memory.

    Raises: ArrayFileError where there is no file, or anything but one whole array is in it: two arrays saved one after
    the other would be read as the first.
    """
    size = regular_size(path)
    with _damage_of(path):
        x: np.memmap[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)  # of a short file it fails here
        if not isinstance(x, np.memmap):
            raise ValueError("several arrays, as of an .npz file")
        if size != (end := x.offset + x.nbytes):
            raise ValueError(f"{size - end} bytes follow its array")
    return x if mapped else np.array(x)


def read_npz(path: Path, wanted: Iterable[str]) -> tuple[dict[str, Array], list[str]]:
    """Those of the arrays of an .npz file that are wanted and there, in memory, and the names of all that it holds.

    Raises: ArrayFileError where there is no file, or what is wanted in it is damaged (zip files have checksums).
    """
    regular_size(path)
    with _damage_of(path):
        held = np.load(path, allow_pickle=False)
        if not hasattr(held, "files"):
            raise ValueError("one array, as of an .npy file")
        with held:
            return {name: held[name] for name in wanted if name in held.files}, list(held.files)


def regular_size(path: Path) -> int:
    """Bytes of a regular file. Raises: ArrayFileError where there is none; of a pipe one would wait for ever."""
    try:
        info = path.stat()
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise ArrayFileError(path, reason) from None
    if not stat.S_ISREG(info.st_mode):
        raise ArrayFileError(path, "is not a regular file")
    return info.st_size


def signature(path: Path) -> tuple[str, int, int, int, int] | None:
    """What changes when a file is written to or replaced: a key for what was found in it. None where there is none."""
    try:
        info = path.stat()
    except OSError:
        return None
    return str(path.absolute()), info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def rows_a_chunk(x: Array) -> int:
    """How many rows of an array are worked on at a time: about 64 MiB, and at least one."""
    return max(1, CHUNK_BYTES // max(1, x[:1].nbytes))


def not_finite(x: Array) -> int | None:
    """The first index along the first axis at which an array of floating-point numbers is not finite, else None."""
    step = rows_a_chunk(x)
    for at in range(0, len(x), step):
        chunk = x[at : at + step]
        if not all_finite(chunk):
            return at + int(np.flatnonzero(~np.isfinite(chunk.reshape(len(chunk), -1)).all(axis=1))[0])
    return None


def all_finite(x: Array) -> bool:
    """Whether all of an array is finite. Of half precision, for which NumPy's own is slow, by the exponent's bits."""
    if not x.size:
        return True
    if x.dtype == np.float16:
        return bool((x.view(np.uint16) & 0x7FFF).max() < 0x7C00)
    return bool(np.isfinite(x).all())


def bad_moments(mean: Array, covariance: Array, dimensions: int | None = None) -> str | None:
    """What is wrong with a mean (d,) and covariance (d, d); None if nothing is."""
    d = mean.size if dimensions is None else dimensions
    if mean.shape != (d,) or covariance.shape != (d, d):
        return f"has a mean {mean.shape} and a covariance {covariance.shape}, not ({d},) and ({d}, {d})"
    if not all(np.issubdtype(x.dtype, np.floating) for x in (mean, covariance)):
        return f"has a mean of {mean.dtype} and a covariance of {covariance.dtype}, not floating-point numbers"
    if not (all_finite(mean) and all_finite(covariance)):
        return "has moments that are not finite"
    if (covariance.diagonal() < 0).any():
        return "has variances below 0"
    return None


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # NumPy, zipfile, zlib, tokenize and struct: each has errors of its own
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        if any(word in said.lower() for word in ("pickle", "object")):  # NumPy says how to load it all the same
            raise ArrayFileError(path, "is damaged, or holds Python objects, which are never loaded") from None
        raise ArrayFileError(path, f"is damaged, or holds no arrays of numbers ({said})") from None
