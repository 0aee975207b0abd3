"""Figures saved in no time, for tests of what is written where; how they look as files is tested in `test_figure`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

DPI = 30


def save_quickly(monkeypatch: pytest.MonkeyPatch, drawn: Sequence[str] = ("png",)) -> None:
    """Only files of these kinds are ``drawn``, a PNG with few dots, which takes a tenth of the time; of the others the
    PNG is laid out, and all hold no more than the figure's caption."""
    savefig = Figure.savefig

    def quick(figure: Figure, path: Path, *, format: str, **options: Any) -> None:
        if format in drawn:
            savefig(figure, path, format=format, **({**options, "dpi": DPI} if format == "png" else options))
            return
        if format == "png":
            figure.draw_without_rendering()
        path.write_text(f"{format}: {figure.get_label()}", encoding="utf-8")

    monkeypatch.setattr(Figure, "savefig", quick)
