"""Files of pre-encoded latents: what they are, and what is wrong with them. Torch-free.

A data set is a folder ``$STUDY_DATA/<dataset>/`` with

    moments.npy   float16 (N, F, 2·channels, side, side): the posterior's mean, then its std or log variance,
                  of the image (flip 0) and, where F = 2, of its mirror image. Only flip 0 is read: MeanFlow
                  trains on latents without flips.
    labels.npy    integers (N,), 0 … classes − 1; not needed where classes = 1
    meta.json     {"format": 1, "moments": "mean+std" | "mean+logvar", "scale": 0.18215, ...} and what else
                  tells where the moments come from (sha256 of the VAE, image transform, sha256 of the arrays)
    reference.npz mu (2048,) and sigma (2048, 2048), or ref_mu and ref_sigma: mean and covariance of Inception's
                  features of the images; only where FID is measured
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meanflow_core.arrays import (
    CHUNK_BYTES,
    Array,
    ArrayFileError,
    all_finite,
    bad_moments,
    read_npy,
    read_npz,
    regular_size,
    signature,
)

if TYPE_CHECKING:
    from meanflow_core.components import LatentsParams

DATA_ROOT = "STUDY_DATA"
ENCODINGS = ("mean+std", "mean+logvar")
MOMENTS, LABELS, META, REFERENCE = "moments.npy", "labels.npy", "meta.json", "reference.npz"
FEATURES = 2048  # of Inception
STATISTICS_KEYS = (("mu", "sigma"), ("ref_mu", "ref_sigma"))  # ADM's names, and those of the MeanFlow code in JAX
SCANNED_BYTES = 2**31  # of larger arrays a part is read, in chunks all over it, unless one asks for all
SAMPLED_CHUNKS = 8
MINUS_ZERO = 0x8000  # the bits of −0 in half precision; greater ones are of numbers below 0
HIGHEST_LOGVAR = 176.0  # exp(logvar/2) is then the largest standard deviation that float32 holds


class LatentsError(ValueError):
    """Files are no latents; the message says which and why."""


class LatentsMeta(NamedTuple):
    """What meta.json says, and its sha256; ``scale`` is None where it says none."""

    logvar: bool
    scale: float | None
    sha256: str


def folder_of(dataset: str) -> Path | None:
    """``$STUDY_DATA/<dataset>``; None where STUDY_DATA is not set."""
    root = os.environ.get(DATA_ROOT)
    return Path(root) / dataset if root else None


def are_latents(folder: Path) -> bool:
    """Whether a folder is meant to hold latents, rather than what `study data add` writes."""
    return (folder / MOMENTS).exists()


def read_meta(folder: Path) -> LatentsMeta:
    """Raises: LatentsError."""
    path = folder / META
    try:
        regular_size(path)
        text = path.read_bytes()
        held = json.loads(text)
    except ArrayFileError as error:
        raise LatentsError(str(error)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise LatentsError(f"{path} is damaged, or no JSON ({error})") from None
    if not isinstance(held, dict):
        raise LatentsError(f'{path} holds no {{"format": 1, "moments": ..., "scale": ...}}')
    if held.get("format", 1) != 1:
        raise LatentsError(f"{path}: format {held['format']!r}, where 1 is known")
    if held.get("moments") not in ENCODINGS:
        raise LatentsError(f"{path}: 'moments' must be one of {', '.join(ENCODINGS)}")
    scale = held.get("scale")
    if not (scale is None or (isinstance(scale, int | float) and scale > 0)):
        raise LatentsError(f"{path}: scale {scale!r} is no positive number")
    return LatentsMeta(held["moments"] == "mean+logvar", scale, hashlib.sha256(text).hexdigest())


def open_moments(folder: Path, params: LatentsParams | None = None) -> Array:
    """(N, F, 2·channels, side, side) float16, memory-mapped. Raises: LatentsError where it is anything else."""
    path = folder / MOMENTS
    moments = _read(path, mapped=True)
    if params is None:
        item, fits = "(2·channels, side, side)", moments.ndim == 5 and moments.shape[2] % 2 == 0
    else:
        shape = (2 * params.channels, params.side, params.side)
        item, fits = f"*{shape}", moments.shape[2:] == shape
    if moments.ndim != 5 or moments.shape[1] not in (1, 2) or not fits:
        raise LatentsError(f"{path} has shape {moments.shape}, not (N, 1 or 2, {item})")
    if moments.dtype != np.float16:
        raise LatentsError(f"{path} is {moments.dtype}, not float16")
    if not moments.size:
        raise LatentsError(f"{path} has shape {moments.shape}: it holds nothing")
    return moments


def open_labels(folder: Path, n: int, classes: int | None) -> Array:
    """(n,) int64, in memory. Raises: LatentsError where they are no labels of n items, or of more classes."""
    path = folder / LABELS
    labels = _read(path)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise LatentsError(f"{path} is {labels.dtype} {labels.shape}, not integers ({n},)")
    if labels.min() < 0 or (classes is not None and labels.max() >= classes):
        last = "…" if classes is None else f"… {classes - 1}"
        raise LatentsError(f"{path} has labels outside 0 {last} (from {labels.min()} to {labels.max()})")
    return labels.astype(np.int64)


def read_reference(path: Path) -> tuple[Array, Array]:
    """Mean (d,) and covariance (d, d), float64, from an .npz with mu and sigma or ref_mu and ref_sigma.

    Raises: ArrayFileError if it has neither pair, is damaged, or holds what are no moments.
    """
    held, names = read_npz(path, (name for pair in STATISTICS_KEYS for name in pair))
    for mu, sigma in STATISTICS_KEYS:
        if mu in held and sigma in held:
            if said := bad_moments(held[mu], held[sigma]):
                raise ArrayFileError(path, said)
            return held[mu].astype(np.float64), held[sigma].astype(np.float64)
    raise ArrayFileError(path, f"holds {', '.join(names) or 'nothing'}; need mu and sigma, or ref_mu and ref_sigma")


def reference_problems(folder: Path) -> tuple[str, ...]:
    """What is wrong with statistics of Inception's features that are there; empty if nothing is, or there are none.
    Remembered as long as the file is the same."""
    path = folder / REFERENCE
    return _reference_problems(path, signature(path)) if path.exists() else ()


@lru_cache(16)
def _reference_problems(path: Path, _: object) -> tuple[str, ...]:
    try:
        mu, _sigma = read_reference(path)
    except ArrayFileError as error:
        return (str(error),)
    return () if len(mu) == FEATURES else (f"{path} has statistics of {len(mu)} features, not {FEATURES}",)


def problems(folder: Path, params: LatentsParams | None, *, thorough: bool = False) -> list[str]:
    """What is wrong with latents that are there; empty if nothing is. A process remembers what it found in
    the moments as long as the file does not change, unless it is to be thorough.

    Args:
        params: what a study expects; None for what any study would.
        thorough: read all of the moments, however large, and the reference's statistics, where there are any.
    """
    found = list(_problems(folder, params, thorough))
    if thorough and (folder / REFERENCE).exists():
        try:
            read_reference(folder / REFERENCE)
        except ArrayFileError as error:
            found.append(str(error))
    return found


def _problems(folder: Path, params: LatentsParams | None, thorough: bool) -> Iterator[str]:
    meta = moments = None
    try:
        meta = read_meta(folder)
        if params is not None:
            yield from _disagreements(folder / META, meta, params)
    except LatentsError as error:
        yield str(error)
    try:
        moments = open_moments(folder, params)
        if (folder / LABELS).exists() if params is None else params.class_count() is not None:
            open_labels(folder, len(moments), params.classes if params else None)
    except LatentsError as error:
        yield str(error)
    if meta is not None and moments is not None:
        path = folder / MOMENTS
        found = _scan(path, meta.logvar, True) if thorough else _scan_once(path, meta.logvar, signature(path))
        if found is not None:
            yield f"{path}: {found}"


def _disagreements(path: Path, meta: LatentsMeta, params: LatentsParams) -> Iterator[str]:
    if params.fingerprint not in (None, meta.sha256):
        yield f"{path} has sha256 {meta.sha256}, the study asks for {params.fingerprint}"
    if meta.scale not in (None, params.scale):
        yield f"{path}: scale {meta.scale} where the study has {params.scale}"


def item_problem(items: Array, logvar: bool, indices: Array) -> str | None:
    """What is wrong with items (B, 2·channels, side, side) float16 of these indices; None if nothing is."""
    half = items.shape[1] // 2
    mean, spread = items[:, :half], items[:, half:]
    # By bits, since NumPy's half precision is ten times slower: as integers positive numbers keep their order.
    wide = spread.view(np.int16).max() > np.float16(HIGHEST_LOGVAR).view(np.int16) if logvar else False
    negative = False if logvar else (spread.view(np.uint16) > MINUS_ZERO).any()
    if all_finite(items) and not wide and not negative:
        return None
    with np.errstate(invalid="ignore"):
        faults = [
            (~np.isfinite(mean), "a mean that is not finite"),
            (~np.isfinite(spread), f"a {'log variance' if logvar else 'standard deviation'} that is not finite"),
            (spread > HIGHEST_LOGVAR, f"a log variance above {HIGHEST_LOGVAR:g}")
            if logvar
            else (spread < 0, "a standard deviation below 0"),
        ]
    for where, what in faults:
        if where.any():
            return f"item {indices[np.flatnonzero(where.reshape(len(items), -1).any(axis=1))[0]]} has {what}"
    return None


@lru_cache(16)
def _scan_once(path: Path, logvar: bool, _: object) -> str | None:
    return _scan(path, logvar, False)


def _scan(path: Path, logvar: bool, thorough: bool) -> str | None:
    """What is wrong with the items of flip 0: of all, or of chunks all over a large array."""
    moments = _read(path, mapped=True)
    item = moments[0, 0].nbytes
    step = max(1, CHUNK_BYTES // item)
    starts = range(0, len(moments), step)
    if not thorough and len(moments) * item > SCANNED_BYTES:
        starts = [starts[i] for i in np.linspace(0, len(starts) - 1, SAMPLED_CHUNKS).astype(int)]  # type: ignore[assignment]
    for at in starts:
        items = np.asarray(moments[at : at + step, 0])
        if found := item_problem(items, logvar, np.arange(at, at + len(items))):
            return found
    return None


def _read(path: Path, *, mapped: bool = False) -> Array:
    try:
        return read_npy(path, mapped=mapped)
    except ArrayFileError as error:
        raise LatentsError(str(error)) from None
