"""What decides a training step (dynamics) and a measurement (protocol), and the keys made of them. Torch-free.

Keys are hashes of canonical forms, in which only what differs from a default stands:

    trajectory key = hash(parent checkpoint, dynamics, seed[, T])      no length in it
    evaluation key = hash(trajectory key, step, weights, protocol key)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from meanflow_core.components import Guidance, Program  # (this registers the built-in components)
from meanflow_core.registry import Spec, asked, non_defaults, parse_spec, spec_field
from meanflow_core.strict import Strict

DYNAMICS_VERSION = 1
PROTOCOL_VERSION = 1
KEY_LENGTH = 20  # hex digits: 80 bits

Weights = Literal["ema", "online"]
CarryOver = Literal["online", "optimiser", "ema"]


def key_of(canonical: Any) -> str:
    """Hash of a JSON-ready canonical form, 20 hex digits."""
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


class Dynamics(Strict):
    """Everything that decides what a training step does.

    ``fm_ratio`` is P(t = r), the fraction of each batch that trains v. ``stream`` other than 0 draws data, noise, times
    and dropped labels anew from the same initial weights: the same law, with which nothing but chance differs.
    ``reset`` names what does *not* carry over from the parent checkpoint. ``precision`` is part of the dynamics; device
    and logging are not. ``trainer`` is a program of your own, which is told all the rest.
    """

    network: spec_field("network")  # type: ignore[valid-type]
    data: spec_field("data")  # type: ignore[valid-type]
    objective: spec_field("objective") = Field(  # type: ignore[valid-type]
        default_factory=lambda: parse_spec("objective", "meanflow")
    )
    time_sampler: spec_field("time_sampler") = Field(  # type: ignore[valid-type]
        default_factory=lambda: parse_spec("time_sampler", "logit_normal")
    )
    optimiser: spec_field("optimiser") = Field(  # type: ignore[valid-type]
        default_factory=lambda: parse_spec("optimiser", "adam")
    )
    fm_ratio: float = Field(default=0.75, ge=0.0, le=1.0)
    batch_size: PositiveInt = 256
    ema_decay: float = Field(default=0.9999, ge=0.0, lt=1.0)
    label_dropout: float = Field(default=0.0, ge=0.0, le=1.0)
    guidance: Guidance | None = None
    transforms: tuple[spec_field("transform"), ...] = ()  # type: ignore[valid-type]
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    reset: tuple[CarryOver, ...] = ()
    trainer: Program | None = None
    stream: NonNegativeInt = Field(default=0, exclude_if=lambda stream: stream == 0)

    @model_serializer(mode="wrap")
    def _without_a_trainer(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of the built-in trainer nothing is said: records are as they were before there could be another."""
        return {name: value for name, value in serialize(self).items() if name != "trainer" or value is not None}

    @field_validator("reset")
    @classmethod
    def _a_set(cls, reset: tuple[CarryOver, ...]) -> tuple[CarryOver, ...]:
        return tuple(sorted(set(reset)))

    @field_validator("transforms")
    @classmethod
    def _each_once(cls, transforms: tuple[Spec, ...]) -> tuple[Spec, ...]:
        transforms = tuple(spec for spec in transforms if not spec.params.is_identity())
        names = [spec.short for spec in transforms]
        if len(set(names)) < len(names):
            raise ValueError("a transform may stand only once: its state and its random numbers go by its name")
        return transforms

    @model_validator(mode="after")
    def _whole_rows(self) -> Self:
        rows = self.fm_ratio * self.batch_size
        if abs(rows - round(rows)) > 1e-6:
            near = sorted({int(rows) / self.batch_size, (int(rows) + 1) / self.batch_size})
            raise ValueError(
                f"fm_ratio {self.fm_ratio} of a batch of {self.batch_size} is {rows:g} rows; it must be whole "
                f"(near by: {', '.join(f'{v:g}' for v in near)})"
            )
        return self

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        for spec in self.specs():
            if problem := spec.params.problem_in(self):
                raise ValueError(problem)
        if self.guidance is not None and not getattr(self.network.params, "conditional", True):
            raise ValueError("guidance needs a network that takes labels (conditional: true)")
        if self.guidance is not None and self.guidance.null_share and self.label_dropout == 0:
            raise ValueError("guidance asks the network without a label, which label_dropout 0 never trains")
        return self

    @property
    def v_rows(self) -> int:
        """How many rows of a batch have t = r."""
        return round(self.fm_ratio * self.batch_size)

    @property
    def uses_horizon(self) -> bool:
        """Whether some component depends on T, so that T belongs to the trajectory's key."""
        return any(spec.uses_horizon for spec in self.specs()) or bool(self.trainer and self.trainer.uses_horizon)

    @property
    def held(self) -> bool:
        """Whether a trajectory is trained from its start to its end or not at all: nothing branches off inside it."""
        return self.trainer is not None and self.trainer.held

    def until(self, step: int) -> Dynamics:
        """The dynamics of a stage that ends at a step (from the root), which stands in the key of one that is held."""
        if self.trainer is None or not self.held:
            return self
        return self.model_copy(update={"trainer": self.trainer.model_copy(update={"until_step": step})})

    def specs(self) -> list[Spec]:
        """All components of the dynamics."""
        return [self.network, self.data, self.objective, self.time_sampler, self.optimiser, *self.transforms]

    def canonical(self) -> dict[str, Any]:
        """What is hashed: components as [name, version, non-defaults], other fields where not default."""
        out: dict[str, Any] = {"version": DYNAMICS_VERSION}
        components = ("network", "data", "objective", "time_sampler", "optimiser")
        changed = non_defaults(self, but=(*components, "transforms", "trainer"))
        for name in components:
            out[name] = getattr(self, name).canonical()
        if self.transforms:
            out["transforms"] = [spec.canonical() for spec in self.transforms]
        if self.guidance is not None:
            changed["guidance"] = non_defaults(self.guidance)
        if self.trainer is not None:
            changed["trainer"] = self.trainer.canonical()
        return {**out, **changed}

    def in_words(self) -> str:
        """What tells stages of one study apart: ``fm_ratio 0, gap_restriction (lo 0.1, hi 0.3)``."""
        objective = [self.objective] if non_defaults(self.objective.params) else []
        pairs = [(spec.short, non_defaults(spec.params)) for spec in (*objective, *self.transforms)]
        if self.guidance is not None:
            pairs.append(("guidance", non_defaults(self.guidance)))
        if self.trainer is not None:
            pairs.append((f"trainer {self.trainer.name}", self.trainer.options))
        options = [", ".join(f"{k} {v}" for k, v in given.items()) for _, given in pairs]
        said = [f"{name} ({given})" if given else name for (name, _), given in zip(pairs, options, strict=True)]
        return ", ".join([f"fm_ratio {self.fm_ratio:g}", *said, *([f"stream {self.stream}"] if self.stream else [])])

    def dump(self) -> dict[str, Any]:
        """The fully resolved configuration, JSON-ready; ``Dynamics.model_validate`` reads it back."""
        dumped: dict[str, Any] = self.model_dump(mode="json")
        return dumped

    def carries_over(self, other: Dynamics) -> bool:
        """Whether ``other`` after ``self`` is just more of the same trajectory."""
        return not other.reset and self.model_copy(update={"reset": ()}).canonical() == other.canonical()


class Checkpoint(NamedTuple):
    """One state of a trajectory."""

    trajectory: str
    step: int


TrajectoryKeys = Callable[[Checkpoint | None, int, int | None], str]


def trajectory_keys(dynamics: Dynamics) -> TrajectoryKeys:
    """`trajectory_key` of many parents, seeds and horizons under one dynamics, whose canonical form is made once."""
    described, uses_horizon = dynamics.canonical(), dynamics.uses_horizon

    def key(parent: Checkpoint | None, seed: int, horizon_steps: int | None = None) -> str:
        canonical: dict[str, Any] = {"parent": list(parent) if parent else None, "dynamics": described, "seed": seed}
        if uses_horizon:
            if horizon_steps is None:
                raise ValueError("these dynamics depend on the horizon T; give horizon_steps")
            canonical["horizon_steps"] = horizon_steps
        return key_of(canonical)

    return key


def trajectory_key(parent: Checkpoint | None, dynamics: Dynamics, seed: int, horizon_steps: int | None = None) -> str:
    """hash(parent checkpoint, dynamics, seed[, T]); T only where a component of the dynamics uses it.

    Raises: ValueError if the dynamics use the horizon and none is given.
    """
    return trajectory_keys(dynamics)(parent, seed, horizon_steps)


class Measurement(Strict):
    """What is measured and how samples are drawn for it.

    ``nfe`` and ``solver`` say how samples are drawn (``jump``: n-step jumps of u; ``euler``: Euler steps on
    v = u(z, t, t)); ``samples`` is their number and ``seed`` fixes latents and labels, common to all arms.
    ``precision`` is that of float32 products on a GPU, whatever the training's; what is observed while training has the
    training's.
    """

    metric: spec_field("metric")  # type: ignore[valid-type]
    nfe: PositiveInt = 1
    solver: Literal["jump", "euler"] = "jump"
    samples: PositiveInt = 5000
    seed: int = 0
    weights: Weights = "ema"
    precision: Literal["fp32", "tf32"] = "fp32"

    @model_validator(mode="after")
    def _observed_online(self) -> Self:
        if self.observed and self.precision != "fp32":
            raise ValueError(f"{self.metric.short} is observed in the training's precision: leave 'precision' out")
        if self.observed and not self.metric.params.any_weights and self.weights != "online":
            raise ValueError(f"{self.metric.short} is measured on the weights in training: write 'weights: online'")
        return self

    @property
    def metric_label(self) -> str:
        """Short name for tables: ``frechet_pixel``, ``kid_digits_cnn``, ``v_error``, ``u_error[0.1,0.3]``."""
        params = self.metric.params
        return str(asked(params, params.label, self.metric.short))

    @property
    def has_floor(self) -> bool:
        """Whether it is a distance that samples of the data's own law can be measured by in passing: not by Inception,
        which takes a GPU."""
        params = self.metric.params
        return bool(params.distance) and getattr(params, "features", None) != "inception"

    @property
    def observed(self) -> bool:
        """Whether an observer measures it while training passes the step."""
        return bool(self.metric.params.observed)


def unmeasurable(measurement: Measurement, trainer: Program | None) -> str | None:
    """Why something cannot be measured of what a trainer trains (None: the built-in one); None if it can."""
    params, label = measurement.metric.params, measurement.metric_label
    if trainer is None:
        if not (measurement.observed and params.any_weights):
            return None
        return f"'{label}' is what a trainer of your own reports, and there is none (trainer: {{command: [...]}})"
    if measurement.observed:
        return None if params.any_weights else f"'{label}' is observed inside the built-in trainer, not in your own"
    if params.asks_network:
        return f"'{label}' asks the network itself, of which a trainer of your own gives samples only"
    if trainer.sampler is None:
        return (
            f"'{label}' is measured on samples, and trainer {trainer.name} has no 'sampler' that draws them; a number "
            "that it reports itself is {name: reported, key: NAME}"
        )
    return None


class Protocol(Measurement):
    """A measurement against one reference, the data set compared with. Values of different protocols are never
    compared."""

    reference: spec_field("data")  # type: ignore[valid-type]

    @classmethod
    def of(cls, measurement: Measurement, dynamics: Dynamics) -> Protocol:
        """A measurement (or a subclass with more fields) of what these dynamics train, against the data they train on.

        What is trained with guidance is measured against the guided field, unless the metric says another.
        """
        fields = {name: getattr(measurement, name) for name in Measurement.model_fields}
        metric: Spec = measurement.metric
        if dynamics.guidance is not None and getattr(metric.params, "guidance", dynamics.guidance) is None:
            fields["metric"] = replace(metric, params=metric.params.model_copy(update={"guidance": dynamics.guidance}))
        return cls.model_validate({**fields, "reference": dynamics.data})

    def canonical(self) -> dict[str, Any]:
        out = {**non_defaults(self, but=("metric", "reference")), "version": PROTOCOL_VERSION}
        out["metric"] = self.metric.canonical()
        out["reference"] = self.reference.canonical()
        return out

    @property
    def key(self) -> str:
        return key_of(self.canonical())

    def dump(self) -> dict[str, Any]:
        """JSON-ready; ``Protocol.model_validate`` reads it back."""
        dumped: dict[str, Any] = self.model_dump(mode="json")
        return dumped


EvaluationKeys = Callable[[Checkpoint], str]


def evaluation_keys(protocol: Protocol) -> EvaluationKeys:
    """`evaluation_key` of many checkpoints under one protocol, whose own key is then made once."""
    key, weights = protocol.key, protocol.weights
    return lambda at: key_of([at.trajectory, at.step, weights, key])


def evaluation_key(checkpoint: Checkpoint, protocol: Protocol) -> str:
    """hash(trajectory key, step, weights, protocol key)."""
    return evaluation_keys(protocol)(checkpoint)
