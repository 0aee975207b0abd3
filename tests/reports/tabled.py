"""A made-up study with a table, whose every value is given by the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.orders import compare, rankings
from reports.tablefill import fill
from reports.tables import FilledTable
from reports.tablewords import Document, document
from studies.schema import ResolvedStudy

from .synthetic import Case, FakeRun, measured

ARMS = ("base", "a", "b")
PAPER = {
    ("base", "one"): 10.0, ("a", "one"): 9.0, ("b", "one"): 9.5,
    ("base", "two"): 8.0, ("a", "two"): 8.4, ("b", "two"): 7.0,
}  # fmt: skip
Values = Mapping[str, Sequence[float]]  # by arm, a value a seed, at the end and at 1 NFE


def study(seeds: int = 4, **changed: Any) -> ResolvedStudy:
    """Panel ``left`` with the arms base, a and b and the control ``back``, 8 epochs long, measured every 2 epochs at
    1 NFE and at the end at 2 NFE."""
    raw: dict[str, Any] = {
        "study": "made", "title": "A made-up table", "scale": "cpu", "scale_text": "nothing is trained",
        "paper": {"tables": [3], "section": "6.3"},
        "seeds": list(range(seeds)),
        "arm_name": "{method}",
        "panels": {
            "left": {"title": "on_the left & 50 %", "arms": {"method": list(ARMS), "lr": [0.001, 0.002, 0.003]}},
        },
        "stages": [{"name": "train", "epochs": 8, "optimiser": {"name": "adam", "lr": "$lr"}}],
        "controls": {
            "back": {
                "panel": "left", "text": "ours", "label": "backwards", "attributes": {"method": "back", "lr": 0.004},
            },
        },
        "dynamics": {"network": {"name": "mlp", "width": 16, "depth": 1}, "data": "digits", "batch_size": 16},
        "steps_per_epoch": 10,
        "measure": [
            {"metric": {"name": "frechet", "features": "pixel"}, "every_epochs": 2},
            {"metric": {"name": "frechet", "features": "pixel"}, "nfe": 2},
        ],
        "primary": "frechet_pixel",
        "table": {
            "row": "method {method}", "reference": "base",
            "columns": [
                {"id": "quarter", "label": "1-NFE, 25 %", "percent": 25},
                {"id": "one", "label": "1-NFE"},
                {"id": "two", "label": "2-NFE", "nfe": 2},
            ],
        },
        "assumptions": ["what was *assumed*"],
    }  # fmt: skip
    return ResolvedStudy.model_validate({**raw, **changed})


def value_of(values: Values, arm: str, seed: int, nfe: int = 1, epoch: float = 8.0) -> float:
    """The value of an arm and seed: at 2 NFE half of that at 1, at earlier epochs larger."""
    given = values[arm]
    return given[seed] * (0.5 if nfe == 2 else 1.0) * (1.0 + (8.0 - epoch) / 4.0) if seed < len(given) else np.nan


def case(values: Values, seeds: int = 4, **changed: Any) -> Case:
    """The study, its frame and its protocols; a seed that an arm has no value of is not measured. Of a table that asks
    for what is not measured, the expansion would complain before the report can."""
    untabled = study(seeds, **{**changed, "table": None})
    made = measured(untabled, lambda arm, p: value_of(values, arm.name, arm.seed, p.protocol.nfe, p.epoch))
    return study(seeds, **changed), *made


def some_values(seeds: int = 4, spread: float = 0.3) -> dict[str, list[float]]:
    """Values around 12 (base), 10 (a), 11 (b) and 9 (back), half of whose spread the arms of a seed share."""
    rng = np.random.default_rng(5)
    common = spread * rng.normal(size=seeds)
    means = {"base": 12.0, "a": 10.0, "b": 11.0, "back": 9.0}
    return {arm: list(mean + common + spread * rng.normal(size=seeds)) for arm, mean in means.items()}


def without(frame: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """The frame with the values of some rows not measured."""
    rows = np.logical_and.reduce([frame[name].isin(np.atleast_1d(value)) for name, value in where.items()])
    return frame.assign(value=frame["value"].mask(rows))


def told(made: Case | None = None, **changed: Any) -> Document:
    return worded(fill(*(made or case(some_values(), **changed)), PAPER))


def worded(table: FilledTable) -> Document:
    return document(table, compare(table), rankings(table), FakeRun(), None)
