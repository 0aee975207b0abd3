"""Pictures drawn from checkpoints: a row an arm, a block of samples for every number of function evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from reports.axes import watermark
from reports.drawing import Drawing
from reports.files import save_figure
from reports.page import MARGIN, Page, style
from reports.pictures import Pictures, block

LABEL, GAP, BLOCK, NARROWEST = 1.6, 0.12, 1.9, 7.0  # inches


def save_grid(
    rows: Mapping[str, Sequence[Pictures]],
    heads: Sequence[str],
    caption: str,
    places: pd.DataFrame,
    out: Path,
    stem: str,
    *,
    side: int,
    meaningless: bool = False,
) -> list[Path]:
    """Write PNG, PDF, SVG and the CSV of ``places``.

    Args:
        rows: by label, an array of pictures (N, H, W, 1 or 3) a column, N ≥ side².
        heads: what the columns are called.
        side: pictures along a block's side.
    """
    with style():
        page = Page(max(NARROWEST, 2 * MARGIN + LABEL + len(heads) * (BLOCK + GAP)))
        left = [MARGIN + LABEL + i * (BLOCK + GAP) for i in range(len(heads))]
        page.y = max(page.text(head, x=x, width=BLOCK, size=9) for head, x in zip(heads, left, strict=True)) + 0.04
        for label, columns in rows.items():
            below = page.text(label, width=LABEL - GAP, size=8.5)
            height = 0.0
            for x, pictures in zip(left, columns, strict=True):
                image = block(pictures, side, side)
                height = BLOCK * image.shape[0] / image.shape[1]
                ax = page.axes(x, BLOCK, height)
                ax.imshow(image, interpolation="nearest", aspect="auto")
                ax.axis("off")
                if meaningless:
                    watermark(ax, 14)
            page.y = max(below, page.y + height) + GAP
        page.y = page.text(caption)
        figure = page.finish()
    return save_figure(Drawing(figure, places), out, stem)
