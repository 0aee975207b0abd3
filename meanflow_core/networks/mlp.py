"""A residual MLP with adaLN-zero for low-dimensional data."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from meanflow_core.components import MLPParams
from meanflow_core.networks.embed import Condition, init_linear, zero
from meanflow_core.registry import BuildContext


class Block(nn.Module):
    """h + gate · MLP(modulate(LayerNorm(h)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width)

    def forward(self, h: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        return h + gate * self.outer(F.silu(self.inner(self.norm(h) * (1 + scale) + shift)))


class AdaLNMLP(nn.Module):
    """u_θ(z, r, t, y) for data of any shape, flattened. One linear map gives all blocks' modulations."""

    def __init__(self, params: MLPParams, shape: tuple[int, ...], num_classes: int | None) -> None:
        super().__init__()
        p, dim = params, math.prod(shape)
        self.conditional = p.conditional and num_classes is not None
        self.condition = Condition(
            p.width, p.embed_dim, p.max_frequency, p.max_period, num_classes if self.conditional else None
        )
        self.input = nn.Linear(dim, p.width)
        self.blocks = nn.ModuleList(Block(p.width) for _ in range(p.depth))
        self.modulation = nn.Linear(p.width, (3 * p.depth + 2) * p.width)
        self.norm = nn.LayerNorm(p.width, elementwise_affine=False, eps=1e-6)
        self.output = nn.Linear(p.width, dim)
        self.depth = p.depth
        init_linear(self)
        zero(self.modulation)
        zero(self.output)

    def forward(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """z (B, ...), r, t (B,), y (B,) or None → u of z's shape."""
        c = self.modulation(F.silu(self.condition(r, t, y))).chunk(3 * self.depth + 2, -1)
        h = self.input(z.flatten(1))
        for i, block in enumerate(self.blocks):
            h = block(h, *c[3 * i : 3 * i + 3])
        shift, scale = c[-2:]
        out: Tensor = self.output(self.norm(h) * (1 + scale) + shift)
        return out.reshape(z.shape)


def build(params: MLPParams, context: BuildContext) -> AdaLNMLP:
    """Facts: ``shape`` and ``num_classes`` of the data."""
    return AdaLNMLP(params, context.facts["shape"], context.facts["num_classes"])
