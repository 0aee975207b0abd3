"""A transform that uses everything it may, and what tests of the trainer share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from meanflow_core.checkpoint import Parts
from meanflow_core.hooks import Batch, Transform
from meanflow_core.objectives import Terms
from meanflow_core.registry import BuildContext, Params, parse_spec
from meanflow_core.trainer import Trainer

GRAD_NORM = parse_spec("observer", "grad_norm")


class PaceParams(Params):
    strength: float = 1.0


class Pace(Transform):
    """A transform that uses everything it may: state, its own randomness, times, targets, weights."""

    def __init__(self, params: PaceParams, context: BuildContext) -> None:
        self.strength, self.rng = params.strength, context.facts["rng"]
        self.mean = torch.zeros(())
        self.count = torch.zeros((), dtype=torch.long)

    def batch(self, step: int, batch: Batch) -> Batch:
        shrink = torch.rand(len(batch.t), generator=self.rng(step))
        shrink[: batch.v_rows] = 0
        return Batch(batch.x, batch.eps, batch.r + shrink * batch.delta_t, batch.t, batch.y, batch.v_rows)

    def v_target(self, step: int, batch: Batch, target: Tensor) -> Tensor:
        return target + 0.01 * self.mean

    def weights(self, step: int, batch: Batch, weights: Tensor) -> Tensor:
        return weights * (1 + self.strength * self.mean)

    def after_step(self, step: int, terms: Terms) -> dict[str, float]:
        self.mean = 0.9 * self.mean + 0.1 * terms.squared_error.mean() / 100
        self.count = self.count + 1
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean, self.count = state["mean"].clone(), state["count"].clone()


def train(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    return [trainer.advance(log=True) for _ in range(steps)]


def frozen(trainer: Trainer) -> Parts:
    """A copy of the state, as a checkpoint would be."""
    return {part: {k: v.clone() for k, v in tensors.items()} for part, tensors in trainer.parts().items()}


def assert_same_state(one: Parts, other: Parts) -> None:
    assert {p: set(t) for p, t in one.items()} == {p: set(t) for p, t in other.items()}
    for part, tensors in one.items():
        for name, tensor in tensors.items():
            assert tensor.dtype == other[part][name].dtype
            assert torch.equal(tensor, other[part][name]), f"{part}/{name}"


def equal_weights(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
