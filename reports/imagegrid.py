"""The figure kind ``images``: samples from the same latents, a row an arm, a column an epoch (Fig. 7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from reports import captions
from reports.axes import panel_title, watermark
from reports.curves import CSV_COLUMNS
from reports.drawing import Drawing, Subject, compose
from reports.errors import ReportError
from reports.frames import Reading, find, planned_seeds, points, readings
from reports.page import MARGIN, Page
from reports.pictures import Pictures, block, read_pictures
from reports.versions import label_of
from reports.words import missing_arms, missing_words
from studies.figure import Images

LABEL, GAP, BETWEEN = 1.3, 0.12, 0.2  # inches: room for an arm's label, between blocks, between panels
NARROWEST, WIDEST = 0.9, 2.0  # inches, of a block
EMPTY = "0.94"


@dataclass(frozen=True)
class Grid:
    """The points that stand in the figure, measured or not, and the block of images of each evaluation measured."""

    subject: Subject
    figure: Images
    rows: pd.DataFrame
    blocks: dict[str, Pictures]

    @property
    def height(self) -> float:
        """Of a block, in widths."""
        h, w, _ = next(iter(self.blocks.values())).shape
        return float(h / w)


def draw_images(subject: Subject, figure: Images) -> Drawing:
    """Draw the pictures that a study's evaluations have kept, of the first of its seeds that has any.

    Raises: NothingToReport where none is measured yet; ReportError.
    """
    study = subject.study
    reading = _reading(subject, figure)
    rows = points(subject.frame, reading).drop_duplicates(["panel", "arm", "seed", "epoch"])
    there = set(rows["seed"][rows["value"].notna()])
    seed = next((seed for seed in planned_seeds(study, subject.frame) if seed in there), None)
    if seed is None:
        raise subject.nothing_of([reading])
    rows = rows[rows["seed"] == seed].reset_index(drop=True)
    drawn = rows[rows["value"].notna()].reset_index(drop=True)
    grid = Grid(subject, figure, rows, _blocks(subject, figure, drawn))
    heading = captions.heading(study, [reading], subject.version, subject.variant)
    caption = captions.caption(study, [reading], subject.run, list(_how_to_read(grid, reading, seed)))
    drawing = compose(study, heading, lambda page: _panels(page, grid), caption, missing_words(rows))
    return Drawing(drawing, _places(rows, drawn), missing_arms(rows))


def _reading(subject: Subject, figure: Images) -> Reading:
    """The metric shown, at the number of function evaluations asked for. Raises: ReportError."""
    study, version = subject.study, subject.version
    metric = version.metric or figure.metric
    found = readings(study, subject.frame, subject.protocols)
    reading = find(found, metric, version.nfe or (figure.nfe if version.metric is None else None))
    if not any(m.metric.params.pictures for m in study.measure if m.metric_label == metric):
        raise ReportError(f"the figure of '{study.study}' shows pictures, and the metric '{metric}' keeps none")
    return reading


def _blocks(subject: Subject, figure: Images, drawn: pd.DataFrame) -> dict[str, Pictures]:
    """The block of every evaluation. Raises: ReportError where images are missing, too few, or of different sizes."""
    found = {}
    for evaluation in drawn["evaluation"]:
        path = subject.artefacts[evaluation]
        pictures = read_pictures(path, subject.command)
        try:
            found[evaluation] = block(pictures, figure.rows, figure.columns)
        except ValueError as error:
            raise ReportError(f"{path}: {error}: let the study measure more 'samples', or show fewer") from None
    sizes = {pictures.shape for pictures in found.values()}
    if len(sizes) > 1:
        raise ReportError(f"the images of '{subject.study.study}' differ in size: {sorted(sizes)}")
    return found


def _places(rows: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """Which evaluation stands in which row and column of the figure, counted from 1; rows go on from panel to panel."""
    arms = list(rows.groupby(["panel", "arm"], sort=False).groups)
    epochs = sorted(rows["epoch"].unique())
    row = [arms.index(place) + 1 for place in zip(drawn["panel"], drawn["arm"], strict=True)]
    column = [epochs.index(epoch) + 1 for epoch in drawn["epoch"]]
    out = drawn[CSV_COLUMNS].copy()
    out.insert(0, "column", column)
    out.insert(0, "row", row)
    return out


def _how_to_read(grid: Grid, reading: Reading, seed: int) -> Iterator[str]:
    figure, study = grid.figure, grid.subject.study
    latents = grid.subject.protocols[reading.protocol]["seed"]
    solver = "" if reading.solver == "jump" else f" ({reading.solver})"
    yield (
        f"Each block: the first {figure.rows * figure.columns} samples at {reading.nfe} NFE{solver}, everywhere from "
        f"the same latents and labels (drawn from seed {latents}), none selected; rows: arms; columns: epochs from the "
        f"root ({study.steps_per_epoch} steps each). Training seed {seed}."
    )
    yield captions.controls_words(study, set(grid.rows["arm"][grid.rows["control"].astype(bool)]))


def _panels(page: Page, grid: Grid) -> None:
    for panel, rows in grid.rows.groupby("panel", sort=False):
        page.y = page.text(panel_title(grid.subject.study, str(panel)), size=9.5) + 0.06
        epochs = sorted(rows["epoch"].unique())
        room = page.width - 2 * MARGIN - LABEL + GAP
        per_band = min(len(epochs), int(room / (NARROWEST + GAP)))
        width = min(WIDEST, room / per_band - GAP)
        for first in range(0, len(epochs), per_band):
            _band(page, grid, rows, epochs[first : first + per_band], width)
        page.y += BETWEEN


def _band(page: Page, grid: Grid, rows: pd.DataFrame, epochs: list[float], width: float) -> None:
    """The arms of a panel at as many epochs as stand side by side, under their epochs."""
    left = [MARGIN + LABEL + i * (width + GAP) for i in range(len(epochs))]
    heads = [page.text(f"epoch {e:g}", x=x, width=width, size=8) for x, e in zip(left, epochs, strict=True)]
    page.y = max(heads) + 0.03
    height = width * grid.height
    for _, arm in rows.groupby("arm", sort=False):
        below = page.text(_label(grid, arm.iloc[0]), width=LABEL - GAP, size=8.5)
        for x, epoch in zip(left, epochs, strict=True):
            for cell in arm[arm["epoch"] == epoch].to_dict("records"):
                _cell(page, grid, cell["evaluation"], x, width, height)
        page.y = max(below, page.y + height) + GAP


def _label(grid: Grid, point: pd.Series) -> str:
    """What an arm's row is called."""
    if not point["control"]:
        return label_of(grid.figure.label, None, point["attributes"])
    return f"{grid.subject.study.controls[point['arm']].label or point['arm']} (control)"


def _cell(page: Page, grid: Grid, evaluation: str, x: float, width: float, height: float) -> None:
    """One block, or an empty place where it is not measured."""
    ax = page.axes(x, width, height)
    ax.set_xticks([])
    ax.set_yticks([])
    if evaluation in grid.blocks:
        ax.imshow(grid.blocks[evaluation], interpolation="antialiased", aspect="auto")
        ax.axis("off")
    else:
        ax.set_facecolor(EMPTY)
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center", fontsize=6.5, color="0.4")
    if grid.subject.study.meaningless:
        watermark(ax, 8 * width)
