"""An arm of one seed as trackers see it: a run with parameters and numbers over steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Engine

from meanflow_core.config import key_of
from results.queries import measured_values, training_metrics
from studies.arms import Arm
from sweeps.compare import take_apart
from sweeps.selection import Selected


class Value(NamedTuple):
    """One number: of the log (``loss``, ``v_mse``) or of an evaluation (``frechet_pixel/1nfe``)."""

    step: int
    name: str
    value: float


@dataclass(frozen=True)
class Series:
    """A run: ``group`` is the study, ``name`` the panel, arm and seed. Steps count from the arm's root."""

    group: str
    name: str
    parameters: dict[str, str]
    values: list[Value] = field(repr=False)

    @property
    def key(self) -> str:
        """Of the run, whatever has been logged of it."""
        return key_of([self.group, self.name])

    @property
    def digest(self) -> str:
        """Of all that is in it, so that what has changed can be told."""
        return key_of([self.group, self.name, self.parameters, [list(value) for value in self.values]])


def series_of(engine: Engine, selected: Sequence[Selected]) -> Iterator[Series]:
    """A run for every arm and seed that is selected, of what is measured; numbers in the order of their steps."""
    for one in selected:
        for arm in one.arms:
            parameters = {"seed": str(arm.seed), **{name: str(value) for name, value in arm.attributes.items()}}
            for stage in arm.stages:
                dynamics = take_apart(stage.trajectory.dynamics.dump())
                parameters |= {f"{stage.name}.{part}": _said(value) for part, value in dynamics.items()}
                parameters[f"{stage.name}.epochs"] = str(stage.stop_epoch - stage.start_epoch)
            name = f"{arm.panel}/{arm.name}/seed{arm.seed}"
            yield Series(one.stored.name, name, parameters, sorted({*_logged(engine, arm), *_measured(engine, arm)}))


def _logged(engine: Engine, arm: Arm) -> Iterator[Value]:
    frame = training_metrics(engine, [stage.trajectory.key for stage in arm.stages])
    for stage in arm.stages:
        within = (frame["step"] > stage.start_step) & (frame["step"] <= stage.stop_step)
        rows = frame[within & (frame["trajectory"] == stage.trajectory.key)].dropna(subset=["value"])
        yield from (Value(int(step), str(name), float(v)) for step, name, v in rows[["step", "name", "value"]].values)


def _measured(engine: Engine, arm: Arm) -> Iterator[Value]:
    values = measured_values(engine, [point.evaluation for point in arm.points])
    for point in arm.points:
        if (value := values.get(point.evaluation)) is not None:
            protocol = point.protocol
            solver = "" if protocol.solver == "jump" else f"_{protocol.solver}"
            yield Value(point.checkpoint.step, f"{protocol.metric_label}/{protocol.nfe}nfe{solver}", value)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
