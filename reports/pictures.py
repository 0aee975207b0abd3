"""Pictures that evaluations have kept beside their value (see `results.layout.TrajectoryDir.artefact`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from meanflow_core.arrays import ArrayFileError, read_npy
from reports.errors import ReportError

Pictures = np.ndarray[Any, np.dtype[np.uint8]]


def read_pictures(path: Path, command: str) -> Pictures:
    """Images (N, H, W, 1 or 3) of 8 bits. ``command`` is what measures them again.

    Raises: ReportError where the file is missing or no such images.
    """
    try:
        pictures: Pictures = read_npy(path)
    except ArrayFileError as error:
        raise _spoilt(path, error.reason, command) from None
    if pictures.dtype != np.uint8:
        raise _spoilt(path, "holds no images of 8 bits", command)
    if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3) or not pictures.size:
        raise _spoilt(path, f"holds an array of shape {pictures.shape} instead of images", command)
    return pictures


def _spoilt(path: Path, what: str, command: str) -> ReportError:
    return ReportError(
        f"{path} {what}, but the evaluation that it belongs to counts as measured. To measure it again, move the "
        f"folder {path.parent} out of the home, then run `study db rebuild` and `{command}`"
    )


def block(pictures: Pictures, rows: int, columns: int) -> Pictures:
    """The first rows · columns images side by side, with white between them: (height, width, 3).

    Raises: ValueError for fewer images.
    """
    n, h, w = pictures.shape[:3]
    if n < rows * columns:
        raise ValueError(f"{rows} × {columns} images asked for, and {n} given")
    gap = max(1, h // 16)
    out = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, dtype=np.uint8)
    for i in range(rows * columns):
        y, x = (h + gap) * (i // columns), (w + gap) * (i % columns)
        out[y : y + h, x : x + w] = pictures[i]  # a grey image fills all three channels
    return out
