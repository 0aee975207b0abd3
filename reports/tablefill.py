"""Fills a study's table from the frame of its evaluations, beside the paper's values. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from meanflow_core.flops import class_count, data_shape, parameter_count
from reports.errors import ReportError
from reports.frames import Protocols, Reading, find, planned_seeds, points, readings
from reports.paper import PaperValues, rank_groups
from reports.tables import Cell, FilledTable, Part, Row, marked
from studies.arms import expand_seed
from studies.schema import ResolvedStudy
from studies.table import Column, Table


def table_of(study: ResolvedStudy) -> Table:
    """Raises: ReportError where the study declares no table."""
    if study.table is None:
        raise ReportError(f"study '{study.study}' declares no table")
    return study.table


def fill(study: ResolvedStudy, frame: pd.DataFrame, protocols: Protocols, paper: PaperValues) -> FilledTable:
    """The study's table from its evaluations. In each part a column is the first reading of its metric that the panel
    has, since values of different protocols are never compared.

    Raises: ReportError for a column that the study does not measure, or a row that cannot be named.
    """
    table, seeds = table_of(study), planned_seeds(study, frame)
    facts = arm_facts(study) if table.about else {}
    parts = []
    for panel in dict.fromkeys(frame["panel"]):
        own = frame[frame["panel"] == panel]
        found = readings(study, own, protocols)
        of_columns = tuple(find(found, c.metric or study.primary, c.nfe, c.solver) for c in table.columns)
        values = [values_at(own, reading, c.percent) for reading, c in zip(of_columns, table.columns, strict=True)]
        rows = []
        for arm in own.drop_duplicates("arm").sort_values("control", kind="stable").to_dict("records"):
            cells = [_cell(arm, c, v, seeds, paper) for c, v in zip(table.columns, values, strict=True)]
            known = facts.get((panel, arm["arm"]), {})
            about: dict[str, int | None] = {name: known.get(name) for name in table.about}
            reference = reference_of(table, arm["arm"], arm["attributes"])
            rows.append(
                Row(arm["arm"], _label(study, table, arm), bool(arm["control"]), reference, tuple(cells), about)
            )
        _check_references(panel, rows)
        parts.append(Part(str(panel), study.panels[panel].title, of_columns, tuple(rows)))
    return FilledTable(study, table, marked(parts, rank_groups(study)))


def _cell(
    arm: Mapping[str, Any],
    column: Column,
    values: Mapping[str, Mapping[int, float]],
    seeds: tuple[int, ...],
    paper: PaperValues,
) -> Cell:
    """One arm in one column; ``values`` are the column's, by arm and seed."""
    name = arm["arm"]
    measured = {seed: value for seed, value in values.get(name, {}).items() if not np.isnan(value)}
    nowhere = f"no point at {column.percent:g} % of the arm's length under the protocol of the column"
    of_paper = None if arm["control"] else paper.get((name, column.id))
    return Cell(measured, seeds, of_paper, "" if name in values else nowhere)


def values_at(rows: pd.DataFrame, reading: Reading, percent: float) -> dict[str, dict[int, float]]:
    """By arm and seed, the value at ``percent`` of the arm's length in epochs; nan where it is not measured, and no
    arm that declares no point there. ``rows`` are the evaluations of one panel."""
    length = rows.groupby("arm")["epoch"].max()
    of_reading = points(rows, reading)
    wanted = percent / 100 * of_reading["arm"].map(length)
    at = of_reading[np.isclose(of_reading["epoch"], wanted)].drop_duplicates(["arm", "seed"])
    found: dict[str, dict[int, float]] = {}
    for arm, seed, value in zip(at["arm"], at["seed"], at["value"], strict=True):
        found.setdefault(arm, {})[int(seed)] = float(value)
    return found


def arm_facts(study: ResolvedStudy) -> dict[tuple[str, str], dict[str, int | None]]:
    """By (panel, arm): how many ``parameters`` the network of its last stage has, and how many ``epochs`` it takes."""
    facts: dict[tuple[str, str], dict[str, int | None]] = {}
    for arm in expand_seed(study, study.seeds[0]):
        d = arm.stages[-1].trajectory.dynamics
        parameters = parameter_count(d.network.params, data_shape(d), class_count(d))
        facts[arm.panel, arm.name] = {"parameters": parameters, "epochs": arm.epochs}
    return facts


def reference_of(table: Table, arm: str, attributes: Mapping[str, Any]) -> str:
    """The arm that an arm of these attributes is compared with. Raises: ReportError."""
    return _filled("reference", table.reference, arm, attributes)


def _label(study: ResolvedStudy, table: Table, arm: Mapping[str, Any]) -> str:
    """What the row of an arm is called."""
    control = study.controls.get(arm["arm"]) if arm["control"] else None
    if control is None:
        return _filled("row", table.row, arm["arm"], arm["attributes"])
    return control.label or str(arm["arm"])


def _filled(key: str, template: str, arm: str, attributes: Mapping[str, Any]) -> str:
    """A format string over an arm's attributes and its name, ``arm``. Raises: ReportError where it does not fit."""
    names = {"arm": arm, **attributes}
    try:
        return template.format(**names)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        known = ", ".join(names)
        raise ReportError(f"table.{key} '{template}' does not fit arm '{arm}' (it has: {known}): {error!r}") from None


def _check_references(panel: str, rows: Sequence[Row]) -> None:
    """Raises: ReportError where a row would be compared with an arm that the panel lacks."""
    arms = [row.arm for row in rows]
    for row in rows:
        if row.reference not in arms:
            raise ReportError(
                f"table.reference: panel '{panel}' has no arm '{row.reference}' to compare '{row.arm}' with "
                f"(it has: {', '.join(arms)})"
            )
