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

    def draw_t_above(self, bound: Tensor, rng: torch.Generator) -> Tensor:
        """t, the larger of two draws, given t ≥ bound, by inverse CDF: F(t) = Φ((logit t − mean)/std)².

        bound (n,) in (0, 1) on the generator's device → (n,) in [bound, 1). In float64, since F(bound) may be near 1.
        """
        low = torch.special.ndtr((bound.double().logit() - self.mean) / self.std).square()
        uniform = torch.rand(bound.shape, generator=rng, device=bound.device, dtype=torch.float64)
        quantile = (low + (1 - low) * uniform).sqrt()
        t = torch.sigmoid(self.mean + self.std * torch.special.ndtri(quantile)).to(bound.dtype)
        return t.clamp(max=1 - torch.finfo(bound.dtype).eps).maximum(bound)


def build(params: LogitNormalParams, context: BuildContext) -> LogitNormal:
    return LogitNormal(params)
