"""The numbers behind a figure of bars: one value an arm, metric and seed, with its place in the figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pandas as pd

from reports.errors import ReportError
from reports.frames import Reading, ends, points
from reports.summaries import SUMMARIES, per_seed
from reports.versions import Shown
from studies.figure import Bars

Role = Literal["bar", "ceiling", "reference", "control"]
COLUMNS = [
    "panel", "arm", "role", "x", "colour", "seed", "stage", "summary", "n_points", "metric", "nfe", "value",
    "evaluation", "trajectory", "protocol",
]  # fmt: skip
EVERYWHERE = ""  # the x of a line across all groups


def needed_points(figure: Bars, panels: Sequence[tuple[pd.DataFrame, list[Shown]]]) -> pd.DataFrame:
    """The points that the bars and lines are made of, measured or not, with the label of their metric along x.
    ``panels`` are each panel's evaluations and what is shown of them."""
    parts = []
    for frame, show in panels:
        for one in show:
            for reading in filter(None, (one.reading, one.ceiling)):
                rows = ends(frame, reading) if figure.summary == "end" else points(frame, reading).query("last")
                parts.append(rows.assign(label=one.label, is_ceiling=reading == one.ceiling))
    return pd.concat(parts, ignore_index=True)


def bars_of(figure: Bars, rows: pd.DataFrame) -> pd.DataFrame:
    """One row a dot, in `COLUMNS`: the summary of each arm, metric and seed whose points are all measured.

    Raises: ReportError where two arms would stand at the same place or one at none.
    """
    said = []
    for _, group in rows.groupby(["label", "is_ceiling", "protocol", "panel", "arm"], sort=False):
        role = _role(figure, group)
        if role is not None:
            said += list(_dots(figure, group, role))
    dots = pd.DataFrame(said, columns=COLUMNS)
    for place, bars in dots[dots["role"] == "bar"].groupby(["panel", "x", "colour"], sort=False):
        arms = bars["arm"].unique()
        if len(arms) > 1:
            raise ReportError(f"the arms {', '.join(arms)} would have one and the same bar ({place})")
    return dots


def _role(figure: Bars, group: pd.DataFrame) -> Role | None:
    """What an arm is in the figure; nothing, if it is the ceiling of what is no bar."""
    first = group.iloc[0]
    line: Role | None = "control" if first["control"] else "reference" if first["arm"] == figure.reference else None
    if first["is_ceiling"]:
        return None if line else "ceiling"
    return line or "bar"


def _dots(figure: Bars, group: pd.DataFrame, role: Role) -> Iterator[dict[str, Any]]:
    """The rows of one arm under one metric."""
    first = group.iloc[0]
    x, colour = first["label"] or EVERYWHERE, None
    if role in ("bar", "ceiling"):
        x, colour = _place(figure, first)
    values = per_seed(group, SUMMARIES[figure.summary]).dropna()
    for seed, value in values.items():
        own = group[group["seed"] == seed]
        yield {
            **first[["panel", "arm", "stage", "metric", "nfe", "protocol"]],
            "role": role, "x": x, "colour": colour, "seed": seed, "value": value, "summary": figure.summary,
            "n_points": len(own), "evaluation": " ".join(own["evaluation"]),
            "trajectory": " ".join(own["trajectory"].unique()),
        }  # fmt: skip


def _place(figure: Bars, row: pd.Series) -> tuple[str, Any]:
    """(place along x, value coloured by) of an arm's bar. Raises: ReportError."""
    attributes = row["attributes"]
    for name in filter(None, (figure.x, figure.colour_by)):
        if name not in attributes:
            raise ReportError(f"arm '{row['arm']}' of panel '{row['panel']}' has no attribute '{name}' for its bar")
    return str(attributes[figure.x]) if figure.x else row["label"], attributes[figure.colour_by]


def readings_of(show: Sequence[Shown]) -> list[Reading]:
    """The metrics shown, without ceilings."""
    return [one.reading for one in show]
