"""The numbers that the paper prints in its Tables 1 to 6, and its speed-ups. Torch-free."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from meanflow_core.words import refusal
from studies.errors import StudyError
from studies.strict import Name, Strict
from studies.yamlfile import read_yaml

PAPER_VALUES = Path(__file__).with_name("paper_values.yaml")


class PaperRow(Strict):
    """A row as printed. ``arm`` is its name in the study that makes the table, None for rows of other methods;
    ``about`` are facts beside the values (parameters, epochs, NFE), None where the paper has a dash."""

    row: str
    arm: str | None = None
    group: str | None = None
    about: dict[str, str | int | float | None] = {}
    values: dict[Name, PositiveFloat | None] = Field(min_length=1)


class PaperTable(Strict):
    """A table of the paper. Columns go by the ids of the study's table (`studies.table.Column`).

    ``ranked_by`` says among which rows it marks the best: those of a study's panel, or those of a ``group``.
    """

    table: PositiveInt
    caption: str
    metric: str
    columns: dict[Name, str] = Field(min_length=1)
    rows: tuple[PaperRow, ...] = Field(min_length=1)
    ranked_by: Literal["panel", "group"] = "panel"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        arms = [row.arm for row in self.rows if row.arm is not None]
        if twice := {arm for arm in arms if arms.count(arm) > 1}:
            raise ValueError(f"table {self.table}: two rows are the arm '{min(twice)}'")
        for row in self.rows:
            if unknown := set(row.values) - set(self.columns):
                raise ValueError(f"table {self.table}, row '{row.row}': there is no column '{min(unknown)}'")
        return self

    def by_arm(self, column: str) -> dict[str, float]:
        """The values of one column by arm, of the rows that have both."""
        found = {row.arm: row.values.get(column) for row in self.rows if row.arm is not None}
        return {arm: value for arm, value in found.items() if value is not None}


class PaperSpeedup(Strict):
    """How many times sooner than MeanFlow an arm of a study's panel gets there, as the paper says."""

    study: Name
    panel: Name
    arm: Name
    factor: PositiveFloat


class _File(Strict):
    tables: tuple[PaperTable, ...]
    speedups: tuple[PaperSpeedup, ...]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        numbers = [table.table for table in self.tables]
        if len(set(numbers)) < len(numbers):
            raise ValueError("each table may stand only once")
        return self


@cache
def _load(path: Path) -> _File:
    try:
        return _File.model_validate(read_yaml(path).data)
    except ValidationError as error:
        first = error.errors()[0]
        where = [".".join(map(str, first["loc"]))] if first["loc"] else []
        raise StudyError(": ".join([str(path), *where, refusal(first)])) from None


def load_paper_tables(path: Path = PAPER_VALUES) -> dict[int, PaperTable]:
    """The paper's tables by number. Raises: StudyError."""
    return {table.table: table for table in _load(path).tables}


def paper_speedups(study: str, path: Path = PAPER_VALUES) -> dict[tuple[str, str], float]:
    """The paper's speed-ups that a study measures again, by (panel, arm). Raises: StudyError."""
    return {(one.panel, one.arm): one.factor for one in _load(path).speedups if one.study == study}
