"""Deliberate corruption of v-learning (Sec. 4.1, Fig. 3)."""

from __future__ import annotations

import math

from torch import Tensor

from meanflow_core.components import TargetCorruptionParams
from meanflow_core.hooks import Batch, Rng, Transform
from meanflow_core.interpolant import per_row, squared_norm
from meanflow_core.registry import BuildContext


def corruption_scale(relative_noise: float, dim: int) -> float:
    """The paper's k = σ/√d: noise k·‖v‖·ξ, ξ ~ N(0, I_d), has expected square (σ·‖v‖)²."""
    return relative_noise / math.sqrt(dim)


def corrupt(target: Tensor, noise: Tensor, scale: float) -> Tensor:
    """v_t + k·‖v_t‖·ξ (Sec. 4.1). target and noise ξ (B, ...), the norm that of a row, k = ``scale``."""
    return target + scale * per_row(squared_norm(target).sqrt(), target) * noise


class TargetCorruption(Transform):
    """Corrupts the target of the v-loss with fresh noise at every step; the u-loss is untouched."""

    def __init__(self, params: TargetCorruptionParams, context: BuildContext) -> None:
        self.relative_noise = params.relative_noise
        self.rng: Rng = context.facts["rng"]

    def v_target(self, step: int, batch: Batch, target: Tensor) -> Tensor:
        noise = batch.v_noise(self.rng(step)).to(target.dtype)
        return corrupt(target, noise, corruption_scale(self.relative_noise, target[0].numel()))
