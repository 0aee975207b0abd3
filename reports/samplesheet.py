"""A sheet of a data set's samples, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from meanflow_core.arrays import Array
from meanflow_core.data.layout import Meta, open_labels, open_samples
from reports.errors import ReportError
from reports.pictures import block

PIXELS = 640  # about, of the picture's longer side: small images are enlarged by whole factors


def save_sheet(name: str, meta: Meta, rows: int, columns: int, out: Path) -> Path:
    """Draw up to ``rows`` of ``columns`` samples each, in their order; of data with classes, a row a class, the first
    rows. Where there are too few samples for that, rows are shorter, or end in white.

    Raises: ReportError where the picture cannot be written.
    """
    from PIL import Image

    x = open_samples(name, meta)
    chosen = _chosen(name, meta, rows, columns)
    there = chosen >= 0
    pixels = x[chosen[there]].transpose(0, 2, 3, 1).astype(np.float32)
    low, high = (0.0, float(meta.levels)) if meta.levels else (float(pixels.min()), float(pixels.max()))
    shown = np.full((chosen.size, *pixels.shape[1:]), 255, dtype=np.uint8)
    shown[there.ravel()] = np.round((pixels - low) * (255 / max(high - low, 1e-12)))
    sheet = block(shown, *chosen.shape)
    factor = max(1, PIXELS // max(sheet.shape[:2]))
    enlarged = sheet.repeat(factor, axis=0).repeat(factor, axis=1)
    try:
        Image.fromarray(enlarged).save(out)
    except (OSError, ValueError) as error:
        raise ReportError(f"{out} cannot be written: {error}") from None
    return out


def _chosen(name: str, meta: Meta, rows: int, columns: int) -> Array:
    """Indices of the samples shown, (rows, columns); −1 where there is none."""
    if meta.classes:
        labels = open_labels(name, meta)
        found = [np.flatnonzero(labels == label)[:columns] for label in np.unique(labels)[:rows]]
    else:
        found = [np.arange(at, min(meta.n, at + columns)) for at in range(0, min(meta.n, rows * columns), columns)]
    chosen = np.full((len(found), max(map(len, found))), -1)
    for row, one in zip(chosen, found, strict=True):
        row[: len(one)] = one
    return chosen
