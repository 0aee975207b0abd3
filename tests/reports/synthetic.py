"""Synthetic evaluations of the built-in studies with known effects, in the form that `results.queries` gives them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, wraps
from typing import Any

import numpy as np
import pandas as pd

from reports.drawing import Drawing, Subject
from reports.figures import draw
from reports.versions import DECLARED, Version
from studies.arms import Arm, Point, expand
from studies.loader import load_source, resolve
from studies.schema import ResolvedStudy

Value = Callable[[int, int, int, str], float]  # seed, epochs of v, epochs of u, metric
Protocols = dict[str, dict[str, Any]]
Case = tuple[ResolvedStudy, pd.DataFrame, Protocols]


def kept(make: Callable[..., Case]) -> Callable[..., Case]:
    """Made once for equal arguments; every caller gets a frame and protocols of its own, to be changed."""

    @lru_cache(12)
    def made(args: tuple[Hashable, ...], named: tuple[tuple[str, Hashable], ...]) -> Case:
        return make(*args, **dict(named))

    @wraps(make)
    def copied(*args: Any, **named: Any) -> Case:
        fixed = (tuple(arg) if isinstance(arg, list) else arg for arg in args)
        study, frame, protocols = made(tuple(fixed), tuple(named.items()))
        return study, frame.copy(), dict(protocols)

    return copied


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
    command: list[str] = field(default_factory=lambda: ["study", "run"])


def study(scale: str = "cpu", seeds: Sequence[int] | None = None, name: str = "obs_v_then_u") -> ResolvedStudy:
    return resolve(load_source(name), scale, (), seeds)


def draw_case(
    resolved: ResolvedStudy, frame: pd.DataFrame, protocols: Protocols, version: Version = DECLARED
) -> Drawing:
    return draw(Subject(resolved, frame, protocols, FakeRun(), version=version))


def measured(resolved: ResolvedStudy, value: Callable[[Arm, Point], float]) -> tuple[pd.DataFrame, Protocols]:
    """The frame and the protocols of a study in which every point has been measured."""
    rows: list[dict[str, Any]] = []
    protocols: Protocols = {}
    for arm in expand(resolved):
        for p in arm.points:
            label = p.protocol.metric_label
            if p.protocol.key not in protocols:
                protocols[p.protocol.key] = {**p.protocol.dump(), "label": label}
            rows.append(
                {
                    "evaluation": p.evaluation, "study": resolved.study, "scale": resolved.scale,
                    "variant": None,
                    "panel": arm.panel, "arm": arm.name, "control": arm.control, "seed": arm.seed,
                    "stage": p.stage,
                    "stage_epoch": float(p.stage_epoch), "epoch": float(p.epoch), "step": p.checkpoint.step,
                    "metric": label, "nfe": p.protocol.nfe, "protocol": p.protocol.key,
                    "trajectory": p.checkpoint.trajectory, "value": value(arm, p),
                    "attributes": arm.attributes,
                }
            )  # fmt: skip
    return pd.DataFrame(rows), protocols


def evaluations(resolved: ResolvedStudy, value: Value) -> tuple[pd.DataFrame, Protocols]:
    """The same of Figure 2, where a value depends on the epochs of v and u alone."""

    def of(arm: Arm, p: Point) -> float:
        first = p.stage == "v_pretrain"
        v = p.stage_epoch if first else int(arm.attributes.get("v_epochs", -1))
        return value(arm.seed, v, 0 if first else p.stage_epoch, p.protocol.metric_label)

    return measured(resolved, of)


@lru_cache(1000)
def _of_seed(seed: int, kind: int) -> float:
    """The noise that the arms of a seed have in common."""
    return float(np.random.default_rng([seed, kind]).normal())


def plausible(effect: float = 0.012, noise: float = 0.06) -> Value:
    """Distances like those of a real run: falling over u-epochs, lower by ``effect`` (a share) an epoch of v.

    Noise is drawn from (seed, v, u, metric), so equal checkpoints have equal values; a share of it belongs to
    the seed and is common to its arms.
    """

    def value(seed: int, v: int, u: int, metric: str) -> float:
        common = _of_seed(seed, len(metric))
        own = np.random.default_rng([seed, v + 1, u, len(metric), 7]).normal()
        floor = 34.0 * np.exp(-effect * max(v, 0))
        curve = floor + 900.0 * np.exp(-u / 9.0 - 0.03 * max(v, 0))
        return float(curve * np.exp(noise * (common + 0.6 * own)))

    return value


@kept
def v_then_u(seeds: Sequence[int] = range(12), effect: float = 0.012, scale: str = "cpu") -> Case:
    """Figure 2 with the effect of `plausible`."""
    resolved = study(scale, list(seeds))
    return resolved, *evaluations(resolved, plausible(effect))


def noisy(arm: Arm, point: Point, size: float) -> float:
    """exp of noise that belongs half to the seed and half to the evaluation, so that equal ones have equal values."""
    common = _of_seed(arm.seed, 3)
    own = np.random.default_rng(int(point.evaluation, 16)).normal()
    return float(np.exp(size * (common + own)))


@kept
def gap_restriction(seeds: Sequence[int] = range(6), scale: str = "truth") -> Case:
    """Figure 4 as the paper has it, with true errors that say the opposite of [0.3, 0.5]."""
    resolved = study(scale, seeds, "obs_gap_restriction")
    sizes = {"random": (1.03, 2.2, 3.1, 3.6), "v-pretrained": (0.8, 1.5, 2.0, 2.4)}

    def value(arm: Arm, p: Point) -> float:
        size = 1.0
        if arm.control and p.stage == "u_finetune":
            size = {"continue_v": 0.9, "continue_meanflow": 0.7}[arm.name]
        elif p.stage == "u_finetune":
            lo = float(arm.attributes["lo"])
            size = sizes[str(arm.attributes["start"])][round(5 * lo - 0.5)]
            if p.protocol.metric_label == "v_error" and lo == 0.3:
                size = 0.6
        return 3.0 * size * noisy(arm, p, 0.03)

    return resolved, *measured(resolved, value)


@kept
def task_affinity(seeds: Sequence[int] = range(4), scale: str = "truth") -> Case:
    """Figure 5 as the paper has it: affinities that fall with the gap, the less so the better the start."""
    resolved = study(scale, seeds, "obs_task_affinity")
    start = {"random": 0.25, "v_pretrained": 0.5, "small_gap": 0.62}

    def value(arm: Arm, p: Point) -> float:
        label = p.protocol.metric_label
        if not label.startswith("task_affinity"):
            return noisy(arm, p, 0.1)
        size = 0.9 if "ceiling" in label else start[arm.name] - 0.3 * float(label.split("[")[1][:3])
        return size * noisy(arm, p, 0.05)

    return resolved, *measured(resolved, value)


@kept
def corruption(seeds: Sequence[int] = range(4), scale: str = "cpu") -> Case:
    """Figure 3 as the paper has it: the more noise, the worse."""
    resolved = study(scale, seeds, "obs_v_corruption")

    def value(arm: Arm, p: Point) -> float:
        size = float(arm.attributes.get("sigma", 9))
        return (2 + 0.6 * size + 90 * float(np.exp(-p.epoch / 9))) * noisy(arm, p, 0.04)

    return resolved, *measured(resolved, value)


def layer_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Training metrics as `results.queries.training_metrics` gives them: cosines by layer of every task affinity."""
    layers = ["output", "norm", "modulation", "blocks.10", "blocks.2", "blocks.0", "input", "condition"]
    rows = []
    points = frame[frame["metric"].str.match(r"task_affinity\[")].drop_duplicates("evaluation")
    for p in points.to_dict("records"):
        for i, layer in enumerate(layers):
            cosine = float(np.tanh(p["value"] * (1.6 - 0.35 * i)))
            name = f"layer/{p['protocol']}/{layer}"
            rows.append({"trajectory": p["trajectory"], "step": p["step"], "name": name, "value": cosine})
        rows.append({"trajectory": p["trajectory"], "step": p["step"], "name": "loss", "value": 1.0})
    return pd.DataFrame(rows)
