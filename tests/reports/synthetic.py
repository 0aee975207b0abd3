"""Synthetic evaluations of Figure 2 with known effects, in the form that `results.queries` gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from studies.arms import expand
from studies.loader import load_source, resolve
from studies.schema import ResolvedStudy

Value = Callable[[int, int, int, str], float]  # seed, epochs of v, epochs of u, metric
Protocols = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class FakeRun:
    run: str = "20261120T120501-1a2b3c"
    created: datetime = datetime(2026, 11, 20, 12, 5, 1, tzinfo=UTC)
    study: str = "obs_v_then_u"
    scale: str = "cpu"
    variant: str | None = None
    seeds: list[int] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    config_hash: str = "0123456789abcdef0123"
    provenance: dict[str, Any] = field(default_factory=dict)


def study(scale: str = "cpu", seeds: Sequence[int] | None = None) -> ResolvedStudy:
    return resolve(load_source("obs_v_then_u"), scale, (), seeds)


def evaluations(resolved: ResolvedStudy, value: Value) -> tuple[pd.DataFrame, Protocols]:
    """The frame and the protocols of a study in which every point has been measured."""
    rows, protocols = [], {}
    for arm in expand(resolved):
        v_total = arm.attributes.get("v_epochs", -1)
        for p in arm.points:
            label = p.protocol.metric_label
            protocols[p.protocol.key] = {**p.protocol.dump(), "label": label}
            u = 0 if p.stage == "v_pretrain" else p.stage_epoch
            v = p.stage_epoch if p.stage == "v_pretrain" else v_total
            rows.append(
                {
                    "evaluation": p.evaluation, "study": resolved.study, "scale": resolved.scale,
                    "variant": None,
                    "panel": arm.panel, "arm": arm.name, "control": arm.control, "seed": arm.seed,
                    "stage": p.stage,
                    "stage_epoch": float(p.stage_epoch), "epoch": float(p.epoch), "step": p.checkpoint.step,
                    "metric": label, "nfe": p.protocol.nfe, "protocol": p.protocol.key,
                    "trajectory": p.checkpoint.trajectory, "value": value(arm.seed, int(v), u, label),
                    "attributes": arm.attributes,
                }
            )  # fmt: skip
    return pd.DataFrame(rows), protocols


def plausible(effect: float = 0.012, noise: float = 0.06) -> Value:
    """Distances like those of a real run: falling over u-epochs, lower by ``effect`` (a share) an epoch of v.

    Noise is drawn from (seed, v, u, metric), so equal checkpoints have equal values; a share of it belongs to
    the seed and is common to its arms.
    """

    def value(seed: int, v: int, u: int, metric: str) -> float:
        common = np.random.default_rng([seed, len(metric)]).normal()
        own = np.random.default_rng([seed, v + 1, u, len(metric), 7]).normal()
        floor = 34.0 * np.exp(-effect * max(v, 0))
        curve = floor + 900.0 * np.exp(-u / 9.0 - 0.03 * max(v, 0))
        return float(curve * np.exp(noise * (common + 0.6 * own)))

    return value
