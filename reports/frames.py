"""The frame of evaluations read under one protocol, and the little that reports ask of a run.

A *reading* is one protocol under which the points of a study were measured. Values of different protocols are
never compared, so every figure, curve and test belongs to exactly one reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

import numpy as np
import pandas as pd

from meanflow_core.words import did_you_mean, listed
from reports.errors import ReportError
from studies.schema import ResolvedStudy

Protocols = Mapping[str, Mapping[str, Any]]
POINT = ["panel", "arm", "seed", "stage", "stage_epoch", "protocol"]


class Run(Interface):
    """What reports ask of a run; `results.queries.RunRecord` has it."""

    @property
    def run(self) -> str: ...
    @property
    def created(self) -> Any: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def config_hash(self) -> str: ...


@dataclass(frozen=True)
class Reading:
    """One protocol: how a number was measured, and what it is called. A metric that asks the network itself draws no
    samples, so that NFE and solver say nothing."""

    protocol: str
    metric: str
    nfe: int
    solver: str
    samples: int
    weights: str
    asks_network: bool = False
    floor: float | None = None
    """What as many samples of the data's own law score, where it is known."""

    def drawn(self, nfe: int | None, solver: str | None) -> bool:
        """Whether its samples, if any, are drawn in so many steps and by this solver; None is any."""
        return self.asks_network or (nfe in (None, self.nfe) and solver in (None, self.solver))


def readings(study: ResolvedStudy, frame: pd.DataFrame, protocols: Protocols) -> list[Reading]:
    """The protocols of a frame in the order in which the study declares them.

    Raises: ReportError if the store does not know a protocol.
    """
    declared = [(m.metric.dump(), m.nfe, m.solver, m.samples, m.seed, m.weights) for m in study.measure]
    labels = [m.metric_label for m in study.measure]
    asking = {m.metric_label for m in study.measure if m.metric.params.asks_network}
    ranked: list[tuple[int, str, Reading]] = []
    for key in frame["protocol"].unique():
        if key not in protocols:
            raise ReportError(f"the store lacks protocol {key}: run `study db rebuild`")
        p = protocols[key]
        fields = (p["metric"], p["nfe"], p["solver"], p["samples"], p["seed"], p["weights"])
        # one that is only called the same (another version, with guidance) stands after those declared
        rank = declared.index(fields) if fields in declared else len(declared) + (*labels, p["label"]).index(p["label"])
        reading = Reading(
            key, p["label"], p["nfe"], p["solver"], p["samples"], p["weights"], p["label"] in asking, p.get("floor")
        )
        ranked.append((rank, key, reading))
    return [reading for _, _, reading in sorted(ranked, key=lambda item: item[:2])]


def find(found: Sequence[Reading], metric: str, nfe: int | None = None, solver: str | None = None) -> Reading:
    """The first reading of a metric, at an NFE and with a solver where they are given.

    Raises: ReportError that lists what was measured.
    """
    for reading in found:
        if reading.metric == metric and reading.drawn(nfe, solver):
            return reading
    known = listed(f"{r.metric} at {r.nfe} NFE ({r.solver})" for r in found)
    how = (f" at {nfe} NFE" if nfe else "") + (f" with solver '{solver}'" if solver else "")
    meant = did_you_mean(metric, {r.metric for r in found} - {metric})
    raise ReportError(f"'{metric}'{how} is not among what this study measures ({meant}available: {known})")


def points(frame: pd.DataFrame, reading: Reading) -> pd.DataFrame:
    """The points of one reading, each once; a value that is not a finite number counts as not measured.

    Column ``last`` says whether a point belongs to its arm's last stage.
    """
    rows = frame[frame["protocol"] == reading.protocol].drop_duplicates(POINT).copy()
    rows["value"] = rows["value"].astype(float).where(np.isfinite)
    # panels and arms as declared; where a stage ends and the next begins, the end of the earlier stands first
    rows["_panel"], rows["_arm"] = (pd.factorize(rows[name])[0] for name in ("panel", "arm"))
    order = ["_panel", "_arm", "seed", "epoch", "stage_epoch"]
    rows = rows.sort_values(order, ascending=[True, True, True, True, False], ignore_index=True)
    rows["last"] = rows["stage"] == rows.join(last_stages(frame), on=["panel", "arm"])["last_stage"]
    return rows.drop(columns=["_panel", "_arm"])


def ends(frame: pd.DataFrame, reading: Reading) -> pd.DataFrame:
    """The points of one reading at the end of each arm, one an arm and seed."""
    rows = points(frame, reading)
    rows = rows[rows["last"]]
    return rows[rows["epoch"] == rows.groupby(["panel", "arm"])["epoch"].transform("max")]


def last_stages(frame: pd.DataFrame) -> pd.Series:
    """The last stage of every (panel, arm), whatever was measured there: that of its latest point, and of the stages
    that meet in the latest point the one declared last."""
    arms = frame.groupby(["panel", "arm"], sort=False)
    latest = frame[frame["epoch"] == arms["epoch"].transform("max")]
    return latest.groupby(["panel", "arm"])["stage"].last().rename("last_stage")


def planned_seeds(study: ResolvedStudy, frame: pd.DataFrame) -> tuple[int, ...]:
    """The seeds of the configuration and those of earlier runs of the same configuration."""
    return tuple(sorted({*study.seeds, *(int(seed) for seed in frame["seed"].unique())}))
