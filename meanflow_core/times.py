"""The law of (r, t)."""

from __future__ import annotations

import torch
from torch import Tensor

from meanflow_core.components import LogitNormalParams
from meanflow_core.registry import BuildContext


class LogitNormal:
    """Two independent draws of σ(N(mean, std²)), sorted: r is the smaller, t the larger.

    Rows that train v use t alone, that is, the larger of two draws.
    """

    def __init__(self, params: LogitNormalParams) -> None:
        self.mean, self.std = params.mean, params.std

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """n pairs (r, t), each (n,), on the generator's device, with r ≤ t."""
        normal = torch.randn(2, n, generator=rng, device=rng.device)
        times = torch.sigmoid(self.mean + self.std * normal)
        return times.amin(0), times.amax(0)


def build(params: LogitNormalParams, context: BuildContext) -> LogitNormal:
    return LogitNormal(params)
