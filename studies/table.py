"""What a study's table shows. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from studies.strict import Name, Strict


class Column(Strict):
    """One column of values: a measured metric at ``percent`` of each arm's length. Lower is better.

    ``id`` is what the paper's values go by (see `studies.paper_values`); a column that the paper lacks has none there.
    """

    id: Name
    label: str
    metric: str | None = None
    nfe: PositiveInt = 1
    solver: Literal["jump", "euler"] = "jump"
    percent: float = Field(default=100.0, gt=0.0, le=100.0)


class Table(Strict):
    """A table: a part a panel, a row an arm (then the panel's controls), values in columns.

    ``row`` is a format string over an arm's attributes, what the row is called; a control's is its ``label``.
    ``reference`` is one that gives the name of the arm of the same panel with which a row is compared, in every column
    by the difference paired by seed. ``about`` are facts that stand before the values. ``paper`` is the number of the
    paper's table, by default the first of the study's ``paper.tables``.
    """

    row: str
    row_label: str = "Method"
    columns: tuple[Column, ...] = Field(min_length=1)
    reference: str
    about: tuple[Literal["parameters", "epochs"], ...] = ()
    paper: PositiveInt | None = None
