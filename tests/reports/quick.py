"""Figures saved in no time, for tests of what is written where; how they look as files is tested in `test_figure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

DPI = 30


def save_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG is drawn with few dots, which takes a tenth of the time; a PDF or SVG is only its place."""
    savefig = Figure.savefig

    def quick(figure: Figure, path: Path, *, format: str, **options: Any) -> None:
        if format == "png":
            savefig(figure, path, format=format, **{**options, "dpi": DPI})
        else:
            path.write_bytes(format.encode())

    monkeypatch.setattr(Figure, "savefig", quick)
