"""What a plan costs, as a vector: epochs, images, useful FLOPs, hours, evaluations, GiB and files written.

Hours come from the best of three sources, and the answer says which: step times of the same dynamics in the store; the
calibration of this machine (`study doctor --calibrate`) scaled by FLOPs; nothing, and then the hours are None.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from meanflow_core.config import Dynamics, key_of
from meanflow_core.flops import (
    V_ROW,
    class_count,
    data_shape,
    forward_flops,
    parameter_count,
    row_forwards,
    step_flops,
)
from meanflow_core.registry import non_defaults
from results.layout import Home
from studies.errors import StudyError
from sweeps.jobs import Job, WantedEvaluation

FILES_PER_CHECKPOINT = 4  # online, ema, optimiser, manifest
FILES_PER_SNAPSHOT = 2
FILES_PER_ATTEMPT = 4  # segment, metrics, log, DONE
BYTES = 4  # fp32


@dataclass
class Rates:
    """Seconds a step by `step_class`, FLOP/s by network name, seconds an evaluation by metric label, and on what they
    were measured."""

    seconds_per_step: dict[str, float] = field(default_factory=dict)
    flops_per_s: dict[str, float] = field(default_factory=dict)
    seconds_per_evaluation: dict[str, float] = field(default_factory=dict)
    device: str | None = None
    calibrated: str | None = None

    def step_seconds(self, dynamics: Dynamics, device: str) -> tuple[float, str] | None:
        """(seconds, where that comes from), or None if nothing is known."""
        learned = self.seconds_per_step.get(step_class(dynamics, device))
        if learned is not None:
            return learned, "step times in the store"
        flops, rate = step_flops(dynamics), self.flops_per_s.get(dynamics.network.name)
        if flops is None or rate is None or dynamics.trainer is not None:  # it was our own trainer that was timed
            return None
        return flops / rate, f"calibration on {self.device}"


def step_class(dynamics: Dynamics, device: str) -> str:
    """Dynamics whose steps take equally long on one kind of device: same network, data, batch, split, precision,
    transforms and guidance."""
    return key_of(
        [dynamics.network.canonical(), dynamics.data.canonical(), dynamics.batch_size, dynamics.v_rows,
         dynamics.precision, [spec.canonical() for spec in dynamics.transforms],
         dynamics.guidance and [non_defaults(dynamics.guidance), dynamics.label_dropout], device,
         *([] if dynamics.trainer is None else [{**dynamics.trainer.canonical(), "until_step": None}])]
    )  # fmt: skip


def learn(rates: Rates, step_times: Iterable[tuple[dict[str, Any], str, float]]) -> Rates:
    """Add step times from the store: (resolved dynamics, device kind, seconds per step)."""
    seen: dict[str, list[float]] = {}
    classes: dict[tuple[str, str], str] = {}  # thousands of attempts share a few dynamics
    for dynamics, device, seconds in step_times:
        known = json.dumps(dynamics, sort_keys=True), "cpu" if device == "cpu" else "cuda"
        if known not in classes:
            try:
                classes[known] = step_class(Dynamics.model_validate(dynamics), known[1])
            except ValidationError:  # of a component that this program, or this study, does not have
                classes[known] = ""
        seen.setdefault(classes[known], []).append(seconds)
    rates.seconds_per_step |= {key: statistics.median(values) for key, values in seen.items() if key}
    return rates


def load_rates(home: Home) -> Rates:
    """The calibration of this home, or empty rates. Raises: StudyError if the file is damaged."""
    try:
        record = json.loads(home.calibration.read_text())
        return Rates(
            flops_per_s={k: float(v) for k, v in record["flops_per_s"].items()},
            device=str(record["device"]),
            calibrated=str(record["calibrated"]),
        )
    except FileNotFoundError:
        return Rates()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{home.calibration} is damaged ({error}); run `study doctor --calibrate` to write it anew"
        ) from None


@dataclass
class Cost:
    """What a set of jobs costs. FLOPs are useful ones: 3F a v-row, 4F a u-row, and what guidance adds; None, as GiB
    are, where a network of the user's own does not say what it costs.

    ``gpu_hours`` (training) and ``evaluation_hours`` are hours of one device, estimated from ``hours_basis``; None
    where nothing is known.
    """

    epochs: float = 0.0
    steps: int = 0
    images: int = 0
    v_flops: float | None = 0.0
    u_flops: float | None = 0.0
    gpu_hours: float | None = 0.0
    evaluations: int = 0
    evaluation_samples: int = 0
    evaluation_flops: float | None = 0.0
    evaluation_hours: float | None = 0.0
    gib: float | None = 0.0
    files: int = 0
    hours_basis: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _add(total: float | None, more: float | None) -> float | None:
    return None if total is None or more is None else total + more


def cost_of(jobs: Sequence[Job], rates: Rates, steps_per_epoch: Mapping[str, int]) -> Cost:
    """The cost of jobs.

    Args:
        steps_per_epoch: by trajectory key.
    """
    cost, bases = Cost(), set()
    for job in jobs:
        cost.files += FILES_PER_ATTEMPT
        if job.kind == "train":
            bases |= _add_training(cost, job, rates, steps_per_epoch[job.trajectory])
        _add_evaluations(cost, job, rates)
    if cost.gpu_hours is None:
        cost.hours_basis = "unknown: run `study doctor --calibrate`"
    else:
        cost.hours_basis = "; ".join(sorted(bases))
    return cost


def _add_training(cost: Cost, job: Job, rates: Rates, steps_per_epoch: int) -> set[str]:
    d = job.dynamics
    cost.epochs += job.steps / steps_per_epoch
    cost.steps += job.steps
    cost.images += job.steps * d.batch_size
    f = forward_flops(d.network.params, data_shape(d))
    v_row, u_row = row_forwards(d)
    cost.v_flops = _add(cost.v_flops, f and v_row * f * d.v_rows * job.steps)
    cost.u_flops = _add(cost.u_flops, f and u_row * f * (d.batch_size - d.v_rows) * job.steps)
    parameters = parameter_count(d.network.params, data_shape(d), class_count(d))
    copies = 4 * len(job.full_steps) + len(job.snapshot_steps)
    cost.gib = _add(cost.gib, parameters and BYTES * parameters * copies / 2**30)
    cost.files += FILES_PER_CHECKPOINT * len(job.full_steps) + FILES_PER_SNAPSHOT * len(job.snapshot_steps)
    seconds = rates.step_seconds(d, "cpu" if job.device == "cpu" else "cuda")
    cost.gpu_hours = _add(cost.gpu_hours, None if seconds is None else seconds[0] * job.steps / 3600)
    return {seconds[1]} if seconds else set()


def _add_evaluations(cost: Cost, job: Job, rates: Rates) -> None:
    f = forward_flops(job.dynamics.network.params, data_shape(job.dynamics))
    together = Counter(_gradients(wanted) for wanted in job.evaluations if wanted.protocol.observed)
    for wanted in job.evaluations:
        p = wanted.protocol
        forwards: float = p.nfe * p.samples
        if p.observed:
            shared = _gradients(wanted)
            forwards = _affinity_forwards(job.dynamics, shared[1]) * p.samples / together[shared]
        cost.evaluations += 1
        cost.evaluation_samples += p.samples
        cost.evaluation_flops = _add(cost.evaluation_flops, f and f * forwards)
        learned = rates.seconds_per_evaluation.get(p.metric_label)
        if learned is None:
            rate = rates.flops_per_s.get(job.dynamics.network.name)
            learned = None if rate is None or f is None else f * forwards / rate
        cost.evaluation_hours = _add(cost.evaluation_hours, None if learned is None else learned / 3600)


def _affinity_forwards(dynamics: Dynamics, exact: bool) -> float:
    """F a point of a task affinity over four ranges, on two sets. No label is dropped there, and where the target is
    exact u costs what v does."""
    v, u = (V_ROW, V_ROW) if exact else row_forwards(dynamics.model_copy(update={"label_dropout": 0.0}))
    return 2 * (v + 4 * u)


def _gradients(wanted: WantedEvaluation) -> tuple[int, bool]:
    """What is observed at one step with the same targets shares its gradients."""
    return wanted.step, getattr(wanted.protocol.metric.params, "quantity", None) == "exact"
