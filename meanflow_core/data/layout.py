"""Data sets on disk, as `study data add` makes them: memory-mapped arrays, and what describes them. Torch-free.

A data set is a folder ``<data root>/<name>/`` with

    x.npy            uint8 (N, C, H, W), images of ``levels`` + 1 grey levels, or float32 (N, ...)
    y.npy            int64 (N,), 0 … number of classes − 1; only where there are classes
    meta.json        `Meta`: names of the classes, where the data come from, and sha256 and size of these files
    statistics.npz   mean (D,) and covariance (denominator N − 1) of the flattened x as trained on, float64, of the
                     covariance the upper triangle, row by row (``upper``), and the sha256 of the x.npy that they are
                     ``of``; only where N > D ≤ MOST_DIMENSIONS: of fewer samples the covariance is larger than they
                     are, and is computed when it is asked for

Its *fingerprint*, the first 20 hex digits of the sha256 of meta.json, stands in the study and so in every key.
Statistics, whose last bits depend on the processor, have no part in it. Of format 1, which is still read, they had:
statistics.npz is among the files of meta.json, and holds the whole ``covariance`` (D, D), for any N.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, model_validator

from meanflow_core.arrays import (
    CHUNK_BYTES,
    Array,
    ArrayFileError,
    bad_moments,
    not_finite,
    read_npy,
    read_npz,
    regular_size,
    rows_a_chunk,
    signature,
)
from meanflow_core.data.latentfiles import MOMENTS
from meanflow_core.sha import file_sha256
from meanflow_core.words import counted, there_is

DATA_ROOT = "STUDY_DATA"
MOST_DIMENSIONS = 4096  # a covariance of 128 MiB
CHECKED_BYTES = 2**31  # more than this is read by `study data check` alone
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,59}")
ASIDE = re.compile(rf"\.({NAME.pattern})\.\d+")  # what an attempt writes, until it is whole
X, Y, STATISTICS, META = "x.npy", "y.npy", "statistics.npz", "meta.json"
ANEW = "add the data set anew"


class LayoutError(ValueError):
    """A data set cannot be written or read; the message says which and why."""


class File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    bytes: int


class Meta(BaseModel):
    """What meta.json says. x as trained on is ``2·x/levels − 1`` of images, else the array itself; ``background`` is
    the colour, #rrggbb, upon which transparent pixels were laid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1, 2] = 2
    n: PositiveInt
    shape: tuple[PositiveInt, ...]
    levels: PositiveInt | None
    classes: tuple[str, ...] = ()
    source: str
    background: str | None = None
    files: dict[str, File]

    @model_validator(mode="after")
    def _files_fit(self) -> Self:
        if X not in self.files or bool(self.classes) != (Y in self.files):
            classes = counted(len(self.classes), "class", "classes")
            raise ValueError(f"it names the files {', '.join(self.files) or 'none'} for {classes}")
        return self


def data_root() -> Path:
    """``$STUDY_DATA``, else ``./study_data``."""
    return Path(os.environ.get(DATA_ROOT) or "study_data")


def names() -> list[str]:
    """The data sets under the data root, latents too, and those of which a part is missing."""
    held = {path.parent.name for part in (META, X, MOMENTS) for path in data_root().glob(f"*/{part}")}
    return sorted(name for name in held if NAME.fullmatch(name))


def folder_of(name: str) -> Path:
    """Raises: LayoutError for what is no name."""
    if not NAME.fullmatch(name):
        raise LayoutError(f"'{name}' is no name of a data set: letters, digits, '_', '-' and '.', at most 60 of them")
    return data_root() / name


def vacant(name: str) -> Path:
    """Where a new data set goes. Raises: LayoutError where one of that name is there, or it is no name."""
    folder = folder_of(name)
    if folder.exists():
        raise LayoutError(f"{folder} is there already; remove it, or give another name")
    return folder


def read_meta(name: str) -> tuple[Meta, str]:
    """(meta, fingerprint). Raises: LayoutError where there is no such data set, or what is there is none."""
    folder = folder_of(name)
    try:
        if (folder / META).exists() and not (folder / META).is_file():
            raise LayoutError(f"{folder / META} is not a regular file")
        text = (folder / META).read_bytes()
        return Meta.model_validate_json(text), fingerprint_of(text)
    except FileNotFoundError:
        if (folder / X).exists():
            raise LayoutError(f"{folder / META} is missing: {ANEW}") from None
        raise LayoutError(
            f"there is no data set '{name}' in {data_root()}{there_is(name, names())}; `study data add {name} SOURCE` "
            f"makes one, and {DATA_ROOT} names the folder that holds them"
        ) from None
    except OSError as error:
        raise LayoutError(f"{folder / META} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        said = ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])
        raise LayoutError(f"{folder / META} is not of `study data add`, or damaged ({said})") from None


def open_samples(name: str, meta: Meta) -> Array:
    """x, memory-mapped. Raises: LayoutError where it is missing, damaged, or not what ``meta`` says."""
    return _opened(folder_of(name) / X, np.dtype(np.uint8 if meta.levels else np.float32), (meta.n, *meta.shape))


def open_labels(name: str, meta: Meta) -> Array:
    """y, in memory, of data with classes. Raises: LayoutError as for x, and for labels of no class."""
    path = folder_of(name) / Y
    y = _opened(path, np.dtype(np.int64), (meta.n,))
    if not 0 <= y.min() <= y.max() < len(meta.classes):
        raise LayoutError(f"{path} has labels outside 0 … {len(meta.classes) - 1}: {ANEW}")
    return np.array(y)


def _opened(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    try:
        held = read_npy(path, mapped=True)
    except ArrayFileError as error:
        raise LayoutError(f"{error}: {ANEW}") from None
    if held.dtype != dtype or held.shape != shape:
        raise LayoutError(f"{path} is {held.dtype} {held.shape}, and {META} says {dtype} {shape}: {ANEW}")
    return held


def read_statistics(name: str, meta: Meta) -> tuple[Array, Array] | None:
    """Mean (D,) and covariance (D, D) of the flattened x as trained on, float64; None for more than MOST_DIMENSIONS, or
    a single sample. Raises: LayoutError where the file that holds them is missing, damaged, or unsuited."""
    dimensions, path = int(np.prod(meta.shape)), folder_of(name) / STATISTICS
    if STATISTICS not in meta.files and not path.exists():
        if dimensions > MOST_DIMENSIONS or meta.n < 2:
            return None
        return moments(_chunks(open_samples(name, meta), meta.levels), dimensions)
    remedy = ANEW if STATISTICS in meta.files else "remove it, and it is computed when it is asked for"
    try:
        held, _ = read_npz(path, ("mean", "covariance", "upper", "of"))
    except ArrayFileError as error:
        raise LayoutError(f"{error}: {remedy}") from None
    if "mean" not in held or not {"covariance", "upper"} & set(held):
        raise LayoutError(f"{path} has no mean and covariance: {remedy}")
    if STATISTICS not in meta.files and str(held.get("of")) != meta.files[X].sha256:
        raise LayoutError(f"{path} is not of the {X} beside it: {remedy}")
    if "covariance" in held:
        covariance = held["covariance"]
    elif held["upper"].shape == (dimensions * (dimensions + 1) // 2,):
        triangle = _upper(dimensions)
        covariance = np.zeros((dimensions, dimensions), held["upper"].dtype)
        covariance[triangle] = held["upper"]
        covariance.T[triangle] = held["upper"]
    else:
        raise LayoutError(
            f"{path} has an upper triangle {held['upper'].shape}, not of {dimensions} dimensions: {remedy}"
        )
    if said := bad_moments(held["mean"], covariance, dimensions):
        raise LayoutError(f"{path} {said}: {remedy}")
    return held["mean"], covariance


def _upper(dimensions: int) -> Array:
    """Where the upper triangle of a matrix is, its diagonal included."""
    return np.tri(dimensions, dtype=bool).T


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
    background: str | None = None,
) -> tuple[Meta, str]:
    """Write a new data set, aside first and then by a rename, so that it is there whole or not at all. What attempts
    that were killed have left in the data root is removed.

    Args:
        items: batches (B, *shape) of altogether n samples, uint8 with ``levels`` or float32 without.
    Returns: (meta, fingerprint).
    Raises: LayoutError where one of that name is there or being written, the samples are unsuited, or the disk is too
        small, which is said before the second batch is asked for.
    """
    folder = folder_of(name)
    if (labels is None) != (not classes):
        raise LayoutError("labels go with the names of their classes, and these with labels")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(name):
            vacant(name)
            _clear_dead(name)
            try:
                aside.mkdir()
                _write_samples(aside / X, items, n)
                if labels is not None:
                    np.save(aside / Y, _checked(np.asarray(labels), n, len(classes)))
                paths = sorted(aside.iterdir())
                written = {path.name: File(sha256=file_sha256(path), bytes=path.stat().st_size) for path in paths}
                x = read_npy(aside / X, mapped=True)
                if n > (dimensions := int(np.prod(x.shape[1:]))) <= MOST_DIMENSIONS:
                    mean, covariance = moments(_chunks(x, levels), dimensions)
                    upper = covariance[_upper(dimensions)]
                    np.savez(aside / STATISTICS, mean=mean, upper=upper, of=np.array(written[X].sha256))
                meta = Meta(
                    n=n, shape=x.shape[1:], levels=levels, classes=tuple(classes), source=source,
                    background=background, files=written,
                )  # fmt: skip
                text = json.dumps(meta.model_dump(mode="json"), indent=1).encode()
                (aside / META).write_bytes(text)
                aside.rename(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        said = f"{folder} cannot be written: {error.strerror or error}"
        raise LayoutError(f"{said}; {DATA_ROOT} names the folder that holds data sets") from error
    return meta, fingerprint_of(text)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Inside, no other process writes a data set of this name: a lock that the system takes back when its holder dies.
    Raises: LayoutError where another one does."""
    path = data_root() / f".{name}.lock"
    file = _locked(path)
    if file is None:
        raise LayoutError(f"another process is adding a data set '{name}' to {data_root()}")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _locked(path: Path) -> IO[bytes] | None:
    """The lock file, locked and open; None where a process that lives holds it."""
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()  # whoever held it has removed it meanwhile: others lock a new one


def _clear_dead(locked: str) -> None:
    """Remove what attempts at adding data sets left when they were killed: of the name ``locked`` all, of others that
    of which no process holds the lock."""
    for path in data_root().glob(".*"):
        match = ASIDE.fullmatch(path.name)
        if match is None or not path.is_dir():
            continue
        if match[1] == locked:
            shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            with _alone(match[1]):
                shutil.rmtree(path, ignore_errors=True)
        except (LayoutError, OSError):
            continue  # it is being written, or it is not ours


def _write_samples(path: Path, items: Iterable[Array], n: int) -> None:
    """Room for all is taken with the first batch, and nothing is written through a map: a full disk is an OSError."""
    first: Array | None = None
    at = 0
    with path.open("wb") as file:
        for batch in items:
            if first is None:
                first = batch[:0]
                header = {"descr": batch.dtype.str, "fortran_order": False, "shape": (n, *batch.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
                _reserve(file, n * batch[:1].nbytes)
            if batch.shape[1:] != first.shape[1:] or batch.dtype != first.dtype:
                raise LayoutError(
                    f"samples {at} to {at + len(batch) - 1} are {batch.dtype} {batch.shape[1:]}, and the first "
                    f"{first.dtype} {first.shape[1:]}"
                )
            if (bad := not_finite(batch) if batch.dtype != np.uint8 else None) is not None:
                raise LayoutError(f"some samples are not finite, the first of them sample {at + bad}")
            at += len(batch)
            if at > n:
                raise LayoutError(f"more than the {n} samples that were announced")
            file.write(np.ascontiguousarray(batch).data)
    if at != n or first is None:
        raise LayoutError(f"{counted(at, 'sample')} where {n} were announced")


def _reserve(file: IO[bytes], size: int) -> None:
    """Take the room for ``size`` more bytes. Raises: OSError where the disk has less."""
    file.flush()
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), file.tell(), size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(Path(file.name).parent).free
                said = f"{error.strerror} (the samples take {size / 2**20:,.1f} MiB, {free / 2**20:,.1f} MiB are free)"
                raise OSError(error.errno, said) from None
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system that cannot
                raise


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
    """What is wrong with a data set; empty if nothing is. A process remembers what it found as long as no
    file changes, unless it is to be thorough.

    Args:
        fingerprint: what it should have.
        thorough: read every file, however large.
    """
    try:
        meta, found = read_meta(name)
    except LayoutError as error:
        return [str(error)]
    if fingerprint not in (None, found):
        return [f"the data set '{name}' in {data_root()} has fingerprint {found}, and the study asks for {fingerprint}"]
    if thorough:
        return _problems(name, meta, thorough)
    files = sorted({*meta.files, STATISTICS})
    return list(_problems_once(name, found, tuple(signature(folder_of(name) / file) for file in files)))


@lru_cache(64)
def _problems_once(name: str, fingerprint: str, files: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(_problems(name, read_meta(name)[0], thorough=False))


def _problems(name: str, meta: Meta, thorough: bool) -> list[str]:
    folder = folder_of(name)
    if damaged := [line for file, said in meta.files.items() for line in _damage(folder / file, said, thorough)]:
        return damaged
    # What follows finds nothing in what `write` has made: another program may have written the folder.
    wrong = [_complaint(lambda: _scan(name, meta, thorough))]
    if (folder / STATISTICS).exists() and wrong == [None]:  # statistics are compared with x
        wrong.append(_complaint(lambda: read_statistics(name, meta)))
    if meta.classes:
        wrong.append(_complaint(lambda: open_labels(name, meta)))
    return [said for said in wrong if said is not None]


def _damage(path: Path, said: File, thorough: bool) -> Iterator[str]:
    """Whether a file is the one of which meta.json speaks."""
    try:
        size = regular_size(path)
        if size != said.bytes:
            yield f"{path} has {size} bytes, not the {said.bytes} that {META} says: {ANEW}"
        elif (thorough or size <= CHECKED_BYTES) and file_sha256(path) != said.sha256:
            yield f"{path} is damaged: its sha256 is not that of {META}; {ANEW}"
    except ArrayFileError as error:
        yield f"{error}: {ANEW}"
    except OSError as error:
        yield f"{path} cannot be read: {error.strerror}"


def _scan(name: str, meta: Meta, thorough: bool) -> None:
    """Raises: LayoutError where x is not what ``meta`` says, or, where it is small or read thoroughly, has values that
    are not finite or above its levels."""
    x, path = open_samples(name, meta), folder_of(name) / X
    if x.nbytes > CHECKED_BYTES and not thorough:
        return
    if meta.levels is None and (bad := not_finite(x)) is not None:
        raise LayoutError(f"{path}: sample {bad} is not finite: {ANEW}")
    if meta.levels is not None and meta.levels < np.iinfo(x.dtype).max:
        step = rows_a_chunk(x)
        if (most := max(int(x[at : at + step].max()) for at in range(0, len(x), step))) > meta.levels:
            raise LayoutError(f"{path} has a value of {most}, above the {meta.levels} levels of {META}: {ANEW}")


def _complaint(reader: Callable[[], object]) -> str | None:
    try:
        reader()
    except LayoutError as error:
        return str(error)
    return None
