"""Data sets on disk, as `study data add` makes them: memory-mapped arrays, and what describes them. Torch-free.

A data set is a folder ``<data root>/<name>/`` with

    x.npy            uint8 (N, C, H, W), images of ``levels`` + 1 grey levels, or float32 (N, ...)
    y.npy            int64 (N,), 0 … number of classes − 1; only where there are classes
    statistics.npz   mean (D,) and covariance (D, D; denominator N − 1) of the flattened x as trained on, float64; only
                     for D up to MOST_DIMENSIONS
    meta.json        `Meta`: names of the classes, where the data come from, and sha256 and size of every file

Its *fingerprint*, the first 20 hex digits of the sha256 of meta.json, stands in the study and so in every key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from meanflow_core.sha import file_sha256
from meanflow_core.words import there_is

DATA_ROOT = "STUDY_DATA"
MOST_DIMENSIONS = 4096  # a covariance of 128 MiB
CHECKED_BYTES = 2**31  # more than this is hashed by `study data check` alone
CHUNK_BYTES = 2**26
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,59}")
X, Y, STATISTICS, META = "x.npy", "y.npy", "statistics.npz", "meta.json"

Array = np.ndarray[Any, np.dtype[Any]]


class LayoutError(ValueError):
    """A data set cannot be written or read; the message says which and why."""


class File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    bytes: int


class Meta(BaseModel):
    """What meta.json says. x as trained on is ``2·x/levels − 1`` of images, else the array itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    n: PositiveInt
    shape: tuple[PositiveInt, ...]
    levels: PositiveInt | None
    classes: tuple[str, ...] = ()
    source: str
    files: dict[str, File]


def data_root() -> Path:
    """``$STUDY_DATA``, else ``./study_data``."""
    return Path(os.environ.get(DATA_ROOT) or "study_data")


def names() -> list[str]:
    """The data sets under the data root."""
    return sorted(path.parent.name for path in data_root().glob(f"*/{META}") if NAME.fullmatch(path.parent.name))


def folder_of(name: str) -> Path:
    """Raises: LayoutError for what is no name."""
    if not NAME.fullmatch(name):
        raise LayoutError(f"'{name}' is no name of a data set: letters, digits, '_', '-' and '.', at most 60 of them")
    return data_root() / name


def read_meta(name: str) -> tuple[Meta, str]:
    """(meta, fingerprint). Raises: LayoutError where there is no such data set, or what is there is none."""
    folder = folder_of(name)
    try:
        text = (folder / META).read_bytes()
        return Meta.model_validate_json(text), fingerprint_of(text)
    except FileNotFoundError:
        raise LayoutError(
            f"there is no data set '{name}' in {data_root()}{there_is(name, names())}; `study data add {name} SOURCE` "
            f"makes one, and {DATA_ROOT} names the folder that holds them"
        ) from None
    except OSError as error:
        raise LayoutError(f"{folder / META} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise LayoutError(f"{folder / META} is not of `study data add`, or damaged ({said})") from None


def open_array(name: str, file: str, *, mapped: bool = False) -> Array:
    """``x.npy`` or ``y.npy`` of a data set. Raises: LayoutError where it is missing or damaged."""
    path = folder_of(name) / file
    try:
        held: Array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        return held
    except (OSError, ValueError, EOFError) as error:
        said = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise LayoutError(f"{path} {said}: add the data set anew") from None


def fingerprint_of(meta: bytes) -> str:
    return hashlib.sha256(meta).hexdigest()[:20]


def write(
    name: str,
    items: Iterable[Array],
    n: int,
    source: str,
    labels: Sequence[int] | Array | None = None,
    classes: Sequence[str] = (),
    levels: int | None = None,
) -> tuple[Meta, str]:
    """Write a new data set, aside first and then by a rename, so that it is there whole or not at all.

    Args:
        items: batches (B, *shape) of altogether n samples, uint8 with ``levels`` or float32 without.
    Returns: (meta, fingerprint).
    Raises: LayoutError where one of that name is there, or the samples are unsuited.
    """
    folder = folder_of(name)
    if folder.exists():
        raise LayoutError(f"{folder} is there already; remove it, or give another name")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        x = _write_samples(aside / X, items, n)
        if labels is not None:
            np.save(aside / Y, _checked(np.asarray(labels), n, len(classes)))
        if (dimensions := int(np.prod(x.shape[1:]))) <= MOST_DIMENSIONS and n > 1:
            mean, covariance = moments(_chunks(x, levels), dimensions)
            np.savez(aside / STATISTICS, mean=mean, covariance=covariance)
        paths = sorted(aside.iterdir())
        written = {path.name: File(sha256=file_sha256(path), bytes=path.stat().st_size) for path in paths}
        meta = Meta(n=n, shape=x.shape[1:], levels=levels, classes=tuple(classes), source=source, files=written)
        text = json.dumps(meta.model_dump(mode="json"), indent=1).encode()
        (aside / META).write_bytes(text)
        aside.rename(folder)
    except OSError as error:
        said = f"{folder} cannot be written: {error.strerror or error}"
        raise LayoutError(f"{said}; {DATA_ROOT} names the folder that holds data sets") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return meta, fingerprint_of(text)


def _write_samples(path: Path, items: Iterable[Array], n: int) -> Array:
    x: Array | None = None
    at = 0
    for batch in items:
        if x is None:
            x = np.lib.format.open_memmap(path, mode="w+", dtype=batch.dtype, shape=(n, *batch.shape[1:]))
        if not np.isfinite(batch).all():
            raise LayoutError(f"some of samples {at} to {at + len(batch) - 1} are not finite")
        x[at : at + len(batch)] = batch
        at += len(batch)
    if x is None or at != n:
        raise LayoutError(f"{at} samples where {n} were announced")
    x.flush()  # type: ignore[attr-defined]
    return x


def _checked(labels: Array, n: int, classes: int) -> Array:
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise LayoutError(f"the labels are {labels.dtype} {labels.shape}, not integers ({n},)")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise LayoutError(f"there are labels outside 0 … {classes - 1}")
    return labels.astype(np.int64)


def scaled(x: Array, levels: int | None) -> Array:
    """x as trained on, in x's float type or float32: ``2·x/levels − 1`` of images."""
    return x if levels is None else x.astype(np.float32) * np.float32(2 / levels) - np.float32(1)


def _chunks(x: Array, levels: int | None) -> Iterator[Array]:
    step = max(1, CHUNK_BYTES // (8 * int(np.prod(x.shape[1:]))))
    for at in range(0, len(x), step):
        yield scaled(x[at : at + step], levels).reshape(min(step, len(x) - at), -1).astype(np.float64)


def moments(chunks: Iterable[Array], dimensions: int) -> tuple[Array, Array]:
    """Mean and covariance (denominator N − 1), chunk by chunk (Chan's update), float64."""
    n, mean, scatter = 0, np.zeros(dimensions), np.zeros((dimensions, dimensions))
    for chunk in chunks:
        m, own = len(chunk), chunk.mean(0)
        centred, shift = chunk - own, own - mean
        scatter += centred.T @ centred + np.outer(shift, shift) * (n * m / (n + m))
        mean += shift * (m / (n + m))
        n += m
    return mean, scatter / (n - 1)


def problems(name: str, fingerprint: str | None = None, *, thorough: bool = False) -> list[str]:
    """What is wrong with a data set, in words; empty if nothing is.

    Args:
        fingerprint: what it should have.
        thorough: hash every file, however large.
    """
    try:
        meta, found = read_meta(name)
    except LayoutError as error:
        return [str(error)]
    folder = folder_of(name)
    if fingerprint not in (None, found):
        return [f"the data set '{name}' in {data_root()} has fingerprint {found}, and the study asks for {fingerprint}"]
    wrong = []
    for file, said in meta.files.items():
        path = folder / file
        if not path.is_file():
            wrong.append(f"{path} is missing")
        elif path.stat().st_size != said.bytes:
            wrong.append(f"{path} has {path.stat().st_size} bytes, not the {said.bytes} that {META} says")
        elif (thorough or said.bytes <= CHECKED_BYTES) and file_sha256(path) != said.sha256:
            wrong.append(f"{path} is damaged: its sha256 is not that of {META}; add the data set anew")
    return wrong
