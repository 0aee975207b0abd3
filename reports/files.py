"""A drawing as files: PNG, PDF, SVG, CSV. Equal drawings give equal bytes; none is ever half written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from reports.drawing import Drawing
from reports.page import DPI, style

# without dates and versions of programs
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": "meanflow-study", "Producer": None},
    "svg": {"Date": None, "Creator": "meanflow-study"},
}


def save_figure(drawing: Drawing, out_dir: Path, stem: str) -> list[Path]:
    """Write ``stem``.png, .pdf, .svg and .csv (exactly the points drawn) and return their paths."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{stem}-", dir=out_dir) as folder:
        written = []
        with style():
            for kind, metadata in METADATA.items():
                written.append(Path(folder) / f"{stem}.{kind}")
                drawing.figure.savefig(written[-1], format=kind, dpi=DPI, metadata=metadata)
        written.append(Path(folder) / f"{stem}.csv")
        drawing.points.to_csv(written[-1], index=False, lineterminator="\n")
        for path in written:
            path.replace(out_dir / path.name)
    return [out_dir / path.name for path in written]
