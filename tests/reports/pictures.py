"""What a drawing says, and whether it is whole."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from reports.drawing import Drawing


def texts(figure: Drawing) -> str:
    """All words of a drawing."""
    return " ".join(text.get_text() for text in figure.figure.findobj(Text))


def assert_nothing_cut_or_overlapping(figure: Drawing) -> None:
    """Every text lies on the page, and no line of text touches another or the axes."""
    canvas = FigureCanvasAgg(figure.figure)
    figure.figure.draw_without_rendering()  # puts everything in its place
    renderer = canvas.get_renderer()
    page = figure.figure.bbox
    lines = [t.get_window_extent(renderer) for t in figure.figure.texts]
    frames = [ax.get_tightbbox(renderer) for ax in figure.figure.axes]
    frames += [legend.get_window_extent(renderer) for legend in figure.figure.legends]
    for box in (*lines, *frames):
        assert box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1
    for i, line in enumerate(lines):
        for other in [*lines[i + 1 :], *frames]:
            # glyph boxes of neighbouring lines may touch by a pixel
            gap_x = max(line.x0, other.x0) - min(line.x1, other.x1)
            gap_y = max(line.y0, other.y0) - min(line.y1, other.y1)
            assert gap_x > -1.5 or gap_y > -1.5, (line, other)
    for i, frame in enumerate(frames):
        assert not any(frame.overlaps(other) for other in frames[i + 1 :])
