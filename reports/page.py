"""A figure as a page: axes and blocks of text stacked downwards, each as tall as it was measured to be.

Nothing can overlap or be cut off, because text is wrapped by its measured width and the page grows with it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.text import Text

DPI = 160
MARGIN = 0.15  # inches
LEADING = 1.35  # distance of lines, in font sizes


def style() -> AbstractContextManager[None]:
    """Matplotlib's settings while a page is drawn and saved, whatever the user's are."""
    rc: dict[Any, Any] = {
        "text.usetex": False,
        "font.family": ["DejaVu Sans"],
        "savefig.bbox": None,
        "svg.hashsalt": "meanflow-study",  # ids in the SVG, random otherwise
        "svg.fonttype": "path",
        "pdf.fonttype": 42,
    }
    return mpl.rc_context(rc)


@lru_cache(1000)  # measuring takes half of the time that a page takes, and a study's pages say much the same
def _wrapped(text: str, width: float, size: float, weight: str) -> tuple[str, ...]:
    canvas: Any = FigureCanvasAgg(Figure(figsize=(1, 1), dpi=DPI))
    font = FontProperties(size=size, weight=weight)
    limit = 0.98 * width * DPI  # other backends set text a little wider
    letters = int(limit / (0.55 * size * DPI / 72))  # about as many fit

    def fits(line: str) -> bool:
        return bool(canvas.get_renderer().get_text_width_height_descent(line, font, False)[0] <= limit)

    lines, rest = [], " ".join(text.split())
    while rest:
        ends = [i for i, letter in enumerate(rest) if letter == " "] + [len(rest)]
        end = _last_that_fits(rest, ends, letters, fits)
        if not end:  # not even one word
            end = _last_that_fits(rest, range(1, ends[0] + 1), letters, fits) or 1
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return tuple(lines) or ("",)


def _last_that_fits(text: str, ends: Sequence[int], about: int, fits: Callable[[str], bool]) -> int:
    """The last of rising ``ends`` up to which the text fits, tried from ``about`` on; 0 where none does."""
    n = bisect_right(ends, about)
    while n < len(ends) and fits(text[: ends[n]]):
        n += 1
    while n and not fits(text[: ends[n - 1]]):
        n -= 1
    return ends[n - 1] if n else 0


class Page:
    """A figure of fixed width that grows downwards; lengths are in inches, ``y`` is the depth used so far."""

    def __init__(self, width: float) -> None:
        self.figure = Figure(figsize=(width, 1.0), dpi=DPI)
        canvas: Any = FigureCanvasAgg(self.figure)
        self.renderer = canvas.get_renderer()
        self.width = width
        self.y = MARGIN
        self._placed: list[tuple[Text | Legend | Axes, float, float, float, float]] = []

    def wrap(self, text: str, width: float, size: float, weight: str = "normal") -> list[str]:
        """The text broken into lines no wider than ``width``; a longer word is broken too."""
        return list(_wrapped(text, width, size, weight))

    def text(
        self,
        words: str,
        *,
        x: float = MARGIN,
        width: float | None = None,
        size: float = 8.5,
        weight: str = "normal",
        colour: str = "black",
        hang: str = "",
    ) -> float:
        """Put wrapped text at the present depth, ``hang`` to its left, and return the depth where it ends."""
        indent = 0.24 if hang else 0.0
        width = self.width - x - MARGIN if width is None else width
        lines = self.wrap(words, width - indent, size, weight)
        font = FontProperties(size=size, weight=weight)
        for n, line in enumerate(lines):
            depth = self.y + (n + 0.8) * LEADING * size / 72  # of the baseline
            self._line(line, x + indent, depth, font, colour)
            if hang and n == 0:
                self._line(hang, x, depth, font, colour)
        return self.y + len(lines) * LEADING * size / 72

    def _line(self, words: str, x: float, depth: float, font: FontProperties, colour: str) -> None:
        artist = self.figure.text(0, 0, words, font=font, color=colour, parse_math=False)
        self._placed.append((artist, x, depth, 0, 0))

    def axes(self, x: float, width: float, height: float) -> Axes:
        """Axes whose frame starts at the present depth (labels lie outside it: leave room)."""
        axes = self.figure.add_axes((0, 0, 1, 1))
        self._placed.append((axes, x, self.y, width, height))
        return axes

    def legend(self, handles: Sequence[object], title: str) -> None:
        """A legend in as many columns as fit, at the present depth, which it moves on."""
        for columns in range(len(handles), 0, -1):
            legend = self.figure.legend(
                handles=handles, title=title, ncols=columns, loc="upper center", fontsize=8.5,
                title_fontsize=8.5, frameon=False, borderaxespad=0, borderpad=0, handlelength=2.2,
                columnspacing=1.4,
            )  # fmt: skip
            box = legend.get_window_extent(self.renderer)
            if box.width / DPI <= self.width - 2 * MARGIN or columns == 1:
                break
            legend.remove()
        self._placed.append((legend, self.width / 2, self.y, 0, 0))
        self.y += box.height / DPI

    def finish(self) -> Figure:
        """Fix the height and put everything in its place."""
        height = self.y + MARGIN
        self.figure.set_size_inches(self.width, height)
        for artist, x, y, w, h in self._placed:
            if isinstance(artist, Axes):
                artist.set_position((x / self.width, 1 - (y + h) / height, w / self.width, h / height))
            elif isinstance(artist, Legend):
                artist.set_bbox_to_anchor((x / self.width, 1 - y / height), self.figure.transFigure)
            else:
                artist.set_position((x / self.width, 1 - y / height))
        return self.figure
