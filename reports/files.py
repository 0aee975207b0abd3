"""A drawing as files: PNG, PDF, SVG, CSV. Equal drawings give equal bytes; none is ever half written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports.drawing import Drawing
from reports.page import DPI, style
from reports.published import published

# without dates and versions of programs
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": "meanflow-study", "Producer": None},
    "svg": {"Date": None, "Creator": "meanflow-study"},
}


def save_figure(drawing: Drawing, out_dir: Path, stem: str) -> list[Path]:
    """Write ``stem``.png, .pdf, .svg and .csv (exactly the points drawn) and return their paths."""
    with published(out_dir, stem) as folder, style():
        for kind, metadata in METADATA.items():
            drawing.figure.savefig(folder / f"{stem}.{kind}", format=kind, dpi=DPI, metadata=metadata)
        drawing.points.to_csv(folder / f"{stem}.csv", index=False, lineterminator="\n")
    return [out_dir / f"{stem}.{kind}" for kind in (*METADATA, "csv")]
