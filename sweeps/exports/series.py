"""An arm of one seed as trackers see it: a run with parameters and numbers over steps."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Engine

from meanflow_core.config import Protocol, key_of
from results.queries import measured_values, training_metrics
from results.stored import first_declared
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
        run = one.stored.run
        declared = first_declared(engine, run.study, run.scale, run.variant)
        for arm in one.arms:
            parameters = {"seed": str(arm.seed), **{name: str(value) for name, value in arm.attributes.items()}}
            for stage in arm.stages:
                dynamics = take_apart(stage.trajectory.dynamics.dump())
                parameters |= {f"{stage.name}.{part}": _said(value) for part, value in dynamics.items()}
                parameters[f"{stage.name}.epochs"] = str(stage.stop_epoch - stage.start_epoch)
            names = names_of([point.protocol for point in arm.points], declared)
            for point in arm.points:
                if len([name for name in names.values() if name.startswith(_short(point.protocol))]) > 1:
                    parameters[f"measured.{names[point.protocol.key]}"] = point.protocol.key
            values = sorted({*_logged(engine, arm), *_measured(engine, arm, names)})
            yield Series(one.stored.name, f"{arm.panel}/{arm.name}/seed{arm.seed}", parameters, values)


def _logged(engine: Engine, arm: Arm) -> Iterator[Value]:
    frame = training_metrics(engine, [stage.trajectory.key for stage in arm.stages])
    for stage in arm.stages:
        within = (frame["step"] > stage.start_step) & (frame["step"] <= stage.stop_step)
        rows = frame[within & (frame["trajectory"] == stage.trajectory.key)].dropna(subset=["value"])
        yield from (Value(int(step), str(name), float(v)) for step, name, v in rows[["step", "name", "value"]].values)


def _measured(engine: Engine, arm: Arm, names: Mapping[str, str]) -> Iterator[Value]:
    values = measured_values(engine, [point.evaluation for point in arm.points])
    for point in arm.points:
        if (value := values.get(point.evaluation)) is not None:
            yield Value(point.checkpoint.step, names[point.protocol.key], value)


def names_of(protocols: Collection[Protocol], declared: Mapping[str, str]) -> dict[str, str]:
    """The name of each protocol of an arm, by its key: ``frechet_pixel/1nfe``, and of what is measured in other ways,
    too, with what differs: ``frechet_pixel/1nfe_online``, ``frechet_pixel/1nfe_euler_500samples``.

    The short name belongs to the protocol that was ``declared`` by the first run (by its key), for good: one that is
    added later, wherever it stands in the study file, gets a longer name.
    """
    groups: dict[str, list[Protocol]] = {}
    for protocol in {protocol.key: protocol for protocol in protocols}.values():
        groups.setdefault(_short(protocol), []).append(protocol)
    names = {}
    for short, alike in groups.items():
        first, *others = sorted(alike, key=lambda p: (declared.get(p.key, ""), _plainness(p)))
        names[first.key] = short
        names |= {other.key: "_".join([short, *_differences(first, other)]) for other in others}
    return names


def _short(protocol: Protocol) -> str:
    solver = "" if protocol.solver == "jump" else f"_{protocol.solver}"
    return f"{protocol.metric_label}/{protocol.nfe}nfe{solver}"


def _plainness(protocol: Protocol) -> tuple[bool, int, int, str]:
    """Which of those that one run declared has the short name, whatever their order."""
    return protocol.weights != "ema", protocol.seed, -protocol.samples, protocol.key


def _differences(first: Protocol, other: Protocol) -> list[str]:
    """What tells a protocol from another of the same metric, NFE and solver; never nothing."""
    a, b = first.dump(), other.dump()
    said = [str(b["weights"])] * (a["weights"] != b["weights"])
    said += [f"{b['samples']}samples"] * (a["samples"] != b["samples"])
    said += [f"seed{b['seed']}"] * (a["seed"] != b["seed"])
    said += [str(b["precision"])] * (a["precision"] != b["precision"])
    theirs, ours = take_apart(a["metric"]), take_apart(b["metric"])
    changed = {name: value for name, value in ours.items() if theirs.get(name) != value}
    said += [_plain(f"{name}{_said(value)}") for name, value in changed.items()]
    return said if said and a["reference"] == b["reference"] else [*said, other.key[:8]]


def _plain(text: str) -> str:
    """What every tracker takes as a part of a name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-")


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
