"""Hooks come in two kinds: transforms may change training, observers only watch.

A transform is part of the dynamics (and of the key); an observer is not, and must leave the trained weights bitwise
unchanged. Both are registered components; an implementation is called with (params, BuildContext).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from meanflow_core.components import GradNormParams
from meanflow_core.config import Protocol
from meanflow_core.data.base import DataSet
from meanflow_core.interpolant import conditional_velocity, interpolate
from meanflow_core.registry import BuildContext

if TYPE_CHECKING:
    from meanflow_core.objectives import Terms


@dataclass(frozen=True)
class Batch:
    """What one step trains on. The first ``v_rows`` rows have r = t and train v, the others train u.

    Which data stands in which rows is random already (a random order, or fresh draws), so taking the first rows
    is a random choice; dropped labels are drawn independently of it. ``t_above`` is the bound that a curriculum holds
    t above, 0 where there is none.

    Where several ranks share a step, this is one rank's share: ``rows`` are its places in the global batch ``of``.
    """

    x: Tensor
    eps: Tensor
    r: Tensor
    t: Tensor
    y: Tensor | None
    v_rows: int
    t_above: float = 0.0
    rows: Tensor | None = None
    of: Batch | None = None

    @property
    def z(self) -> Tensor:
        return interpolate(self.x, self.eps, self.t)

    @property
    def v_t(self) -> Tensor:
        return conditional_velocity(self.x, self.eps)

    @property
    def delta_t(self) -> Tensor:
        return self.t - self.r

    def v_noise(self, rng: torch.Generator) -> Tensor:
        """Standard normal noise for the rows that train v, (v_rows, ...): that of the global batch, whoever asks."""
        whole = self if self.of is None else self.of
        shape = (whole.v_rows, *self.x.shape[1:])
        noise = torch.randn(shape, generator=rng, device=self.x.device, dtype=self.x.dtype)
        return noise if self.rows is None else noise[self.rows[: self.v_rows]]


class Transform:
    """Base of all transforms: each method returns its last argument unchanged. Override what you need.

    Built with the facts ``rng`` (``rng(step)`` is the only permitted source of randomness) and ``times``, the time
    sampler. State must be tensors in ``state_dict``; a component that reads T must be registered with
    ``uses_horizon=True``.
    """

    def t_above(self, step: int) -> float:
        """A bound a: times are drawn from their law above it (`meanflow_core.times`); of several, the highest."""
        return 0.0

    def batch(self, step: int, batch: Batch) -> Batch:
        """May change times; rows before ``v_rows`` must keep r = t."""
        return batch

    def v_target(self, step: int, batch: Batch, target: Tensor) -> Tensor:
        """May change the target of the v-loss, (v_rows, ...), guided already. The u-loss is untouched."""
        return target

    def weights(self, step: int, batch: Batch, weights: Tensor) -> Tensor:
        """May change the per-sample weights (B,) that multiply the loss after adaptive normalisation (Eqs 8, 9)."""
        return weights

    def after_step(self, step: int, terms: Terms) -> dict[str, float]:
        """Sees the raw errors of the step, e.g. to pace a curriculum. Returns what is to be logged at once."""
        return {}

    def logged(self) -> dict[str, float]:
        """Named values for the log, about the batch that was last transformed."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but the checkpoint holds {sorted(state)}")


@dataclass(frozen=True)
class View:
    """What an observer may look at, after the backward pass and before the optimiser's step."""

    step: int
    network: nn.Module
    batch: Batch
    terms: Terms


class Observer:
    """Base of all observers. ``observe`` returns named values for the log; it must change nothing, and draw no global
    random numbers."""

    def observe(self, view: View) -> dict[str, float]:
        return {}


@dataclass(frozen=True)
class Situation:
    """A trajectory between two steps, after ``step`` of them, with the weights in training."""

    network: nn.Module
    data: DataSet
    objective: Any
    times: Any
    seed: int
    step: int
    device: torch.device


@dataclass(frozen=True)
class Measured:
    """What a probe found: a value a protocol (by its key), and details for the log."""

    values: dict[str, float]
    details: dict[str, float] = field(default_factory=dict)


class Probe(Observer, ABC):
    """An observer that measures between steps: the implementation of a metric whose parameters are ``observed``.

    It must change nothing (gradients at hand included) and draw no global random numbers.
    """

    @abstractmethod
    def measure(self, situation: Situation, protocols: Sequence[Protocol]) -> Measured:
        """All protocols of this metric that are wanted at one step. Raises: EvaluationError with the reason."""


class GradNorm(Observer):
    """‖∂L/∂θ‖₂ over all parameters, before clipping."""

    def __init__(self, params: GradNormParams, context: BuildContext) -> None:
        pass

    def observe(self, view: View) -> dict[str, float]:
        norms = [p.grad.double().norm() for p in view.network.parameters() if p.grad is not None]
        return {"grad_norm": float(torch.stack(norms).norm())}


Rng = Callable[[int], torch.Generator]
