"""A sheet of a data set's samples, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from meanflow_core.arrays import Array
from meanflow_core.data.layout import Meta, open_labels, open_samples
from meanflow_core.words import counted
from reports.errors import ReportError
from reports.pictures import block

PIXELS = 640  # about, of the picture's longer side: small images are enlarged by whole factors


def save_sheet(name: str, meta: Meta, rows: int, columns: int, out: Path) -> Path:
    """Draw ``rows`` of ``columns`` samples each, in their order; of data with classes, a row a class, the first rows.

    Raises: ReportError where there are too few samples, or the picture cannot be written.
    """
    from PIL import Image

    x = open_samples(name, meta)
    chosen = _chosen(name, meta, rows, columns)
    pixels = x[chosen].transpose(0, 2, 3, 1).astype(np.float32)
    low, high = (0.0, float(meta.levels)) if meta.levels else (float(pixels.min()), float(pixels.max()))
    bytes_ = np.round((pixels - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    sheet = block(bytes_, len(chosen) // columns, columns)
    factor = max(1, PIXELS // max(sheet.shape[:2]))
    enlarged = sheet.repeat(factor, axis=0).repeat(factor, axis=1)
    try:
        Image.fromarray(enlarged).save(out)
    except (OSError, ValueError) as error:
        raise ReportError(f"{out} cannot be written: {error}") from None
    return out


def _chosen(name: str, meta: Meta, rows: int, columns: int) -> Array:
    """Indices of the samples shown, row by row."""
    if not meta.classes:
        full = min(rows, meta.n // columns)
        if not full:
            has = counted(meta.n, "sample")
            raise ReportError(f"'{name}' has {has}, fewer than a row of {columns}: give --columns")
        return np.arange(full * columns)
    labels = open_labels(name, meta)
    found = [np.flatnonzero(labels == label)[:columns] for label in range(min(rows, len(meta.classes)))]
    for label, one in enumerate(found):
        if len(one) < columns:
            few = f"class '{meta.classes[label]}' of '{name}' has {counted(len(one), 'sample')}"
            raise ReportError(f"{few}, fewer than a row of {columns}: give --columns")
    return np.concatenate(found)
