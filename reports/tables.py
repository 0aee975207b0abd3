"""A study's table with its values: a part a panel, a row an arm, a cell the mean over seeds. Pure data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from reports.frames import Reading
from reports.statistics import Interval, t_band
from reports.words import ranges
from studies.schema import ResolvedStudy
from studies.table import Column, Table

Mark = Literal["best", "second"]


@dataclass(frozen=True)
class Cell:
    """The values of one arm in one column by seed, and the paper's. ``absent`` says why no value can be there."""

    values: dict[int, float]
    seeds: tuple[int, ...]
    paper: float | None = None
    absent: str = ""
    mark: Mark | None = None
    paper_mark: Mark | None = None

    @property
    def n(self) -> int:
        return len(self.values)

    @cached_property
    def _band(self) -> tuple[float, float]:
        mean, _, high = t_band(np.array([*self.values.values()]).reshape(-1, 1))
        return float(mean[0]), float(high[0] - mean[0])

    @property
    def mean(self) -> float | None:
        return self._band[0] if self.n else None

    @property
    def half_width(self) -> float | None:
        """Half of Student's 95 % interval of the mean; None for one seed."""
        return self._band[1] if self.n > 1 else None

    @property
    def interval(self) -> Interval | None:
        return None if self.half_width is None else (self._band[0] - self._band[1], self._band[0] + self._band[1])

    @property
    def missing(self) -> str:
        """What is not there; empty where all is."""
        if self.absent or not self.n:
            return self.absent or "not measured"
        lacking = [seed for seed in self.seeds if seed not in self.values]
        return f"seed{'s' if len(lacking) > 1 else ''} {ranges(lacking)} not measured" if lacking else ""


@dataclass(frozen=True)
class Row:
    """One arm. ``reference`` is the arm of the same panel that it is compared with."""

    arm: str
    label: str
    control: bool
    reference: str
    cells: tuple[Cell, ...]
    about: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One panel: in every column a reading, and its rows, the controls last."""

    panel: str
    title: str
    readings: tuple[Reading, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class FilledTable:
    """A study's table with its values."""

    study: ResolvedStudy
    table: Table
    parts: tuple[Part, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.table.columns

    @property
    def rows(self) -> list[tuple[Part, Row]]:
        return [(part, row) for part in self.parts for row in part.rows]

    @property
    def measured(self) -> bool:
        """Whether there is any value."""
        return any(cell.n for _, row in self.rows for cell in row.cells)

    @property
    def readings(self) -> list[Reading]:
        return list(dict.fromkeys(reading for part in self.parts for reading in part.readings))

    @property
    def uneven(self) -> list[str]:
        """The columns in whose values, in some part, arms differ in seeds, so that no best can be told."""
        return [
            column.label
            for i, column in enumerate(self.columns)
            if not all(same_seeds([row.cells[i] for row in part.rows if not row.control]) for part in self.parts)
        ]

    @property
    def missing(self) -> list[str]:
        """One phrase a panel and reason: ``ratio75 dtd, u_weight (1-NFE, 2-NFE): seeds 3–5 not measured``."""
        said = []
        for part in self.parts:
            alike: dict[tuple[str, str], list[str]] = {}
            for row in part.rows:
                for why in dict.fromkeys(cell.missing for cell in row.cells if cell.missing):
                    alike.setdefault((self._lacking(row, why), why), []).append(row.arm)
            for (what, why), arms in alike.items():
                who = "all arms" if len(arms) == len(part.rows) > 1 else ", ".join(arms)
                said.append(f"{part.panel} {who} ({what}): {why}")
        return said

    def _lacking(self, row: Row, why: str) -> str:
        """The columns in which a row lacks something for one reason."""
        columns = [column.label for column, cell in zip(self.columns, row.cells, strict=True) if cell.missing == why]
        return "all columns" if len(columns) == len(self.columns) > 1 else ", ".join(columns)


def marked(parts: Sequence[Part], groups: Mapping[str, str]) -> tuple[Part, ...]:
    """Parts with the best and the second best of every column marked: of ours among the rows of a part, of the paper's
    among those of a group (``groups``, by arm) or else of a part. Controls take no part; nor is any of ours marked
    where arms differ in seeds, for means over different seeds are not compared."""
    named = [(part.panel, row) for part in parts for row in part.rows if not row.control]
    ours = _marks_among([(panel, panel, row) for panel, row in named], _mean_marks)
    papers = _marks_among([(groups.get(row.arm, panel), panel, row) for panel, row in named], _paper_marks)

    def with_marks(panel: str, row: Row) -> Row:
        if row.control:
            return row
        both = zip(row.cells, ours[panel, row.arm], papers[panel, row.arm], strict=True)
        return replace(row, cells=tuple(replace(cell, mark=a, paper_mark=b) for cell, a, b in both))

    return tuple(replace(part, rows=tuple(with_marks(part.panel, row) for row in part.rows)) for part in parts)


def _marks_among(
    rows: Sequence[tuple[str, str, Row]], marks_of: Callable[[Sequence[Cell]], list[Mark | None]]
) -> dict[tuple[str, str], tuple[Mark | None, ...]]:
    """By (panel, arm), the marks of a row's cells among those of the same group; ``rows`` are (group, panel, row)."""
    found: dict[tuple[str, str], tuple[Mark | None, ...]] = {}
    for group in dict.fromkeys(group for group, _, _ in rows):
        own = [(panel, row) for at, panel, row in rows if at == group]
        columns = zip(*(row.cells for _, row in own), strict=True)
        by_row = zip(*(marks_of(column) for column in columns), strict=True)
        found |= {(panel, row.arm): marks for (panel, row), marks in zip(own, by_row, strict=True)}
    return found


def _mean_marks(column: Sequence[Cell]) -> list[Mark | None]:
    return marks([cell.mean if same_seeds(column) else None for cell in column])


def _paper_marks(column: Sequence[Cell]) -> list[Mark | None]:
    return marks([cell.paper for cell in column])


def same_seeds(cells: Sequence[Cell]) -> bool:
    """Whether cells have values of the same seeds; one where no value can be takes no part."""
    return len({frozenset(cell.values) for cell in cells if not cell.absent}) <= 1


def marks(values: Sequence[float | None]) -> list[Mark | None]:
    """The lowest value is the best, the next is the second; equal values share a mark. One value alone has none."""
    lowest = sorted({value for value in values if value is not None})
    if sum(value is not None for value in values) < 2:
        return [None] * len(values)
    named: dict[float | None, Mark] = dict(zip(lowest, ("best", "second"), strict=False))
    return [named.get(value) for value in values]
