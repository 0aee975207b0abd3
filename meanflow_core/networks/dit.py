"""Diffusion transformer with adaLN-zero (Peebles & Xie 2023), conditioned on t, t − r and the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meanflow_core.components import DiTParams
from meanflow_core.networks.embed import Condition, init_linear, zero
from meanflow_core.registry import BuildContext, ComponentError


def sincos_2d(width: int, side: int) -> Tensor:
    """Fixed 2-D sine-cosine position embedding, (side², width)."""
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    one = torch.cat([angles.sin(), angles.cos()], -1)  # (side, width / 2)
    rows = one[:, None].expand(side, side, -1)
    columns = one[None, :].expand(side, side, -1)
    return torch.cat([columns, rows], -1).reshape(side * side, width).float()


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Attention and MLP, each modulated and gated by the condition."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(width, heads)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        s1, a1, g1, s2, a2, g2 = self.modulation(c).unsqueeze(1).chunk(6, -1)
        x = x + g1 * self.attention(self.norm1(x) * (1 + a1) + s1)
        h = self.inner(self.norm2(x) * (1 + a2) + s2)
        return x + g2 * self.outer(F.gelu(h, approximate="tanh"))


class DiT(nn.Module):
    """u_θ(z, r, t, y) on square images, (B, C, S, S)."""

    position: Tensor

    def __init__(self, params: DiTParams, shape: tuple[int, ...], num_classes: int | None) -> None:
        super().__init__()
        p = params
        if problem := p.problem_on(shape):
            raise ComponentError(problem)
        self.channels, self.patch, self.grid = shape[0], p.patch, shape[1] // p.patch
        self.conditional = p.conditional and num_classes is not None
        self.condition = Condition(
            p.width, p.embed_dim, p.max_frequency, p.max_period, num_classes if self.conditional else None
        )
        token = self.channels * p.patch**2
        self.input = nn.Linear(token, p.width)
        self.register_buffer("position", sincos_2d(p.width, self.grid), persistent=False)
        self.blocks = nn.ModuleList(Block(p.width, p.heads, p.mlp_ratio) for _ in range(p.depth))
        self.norm = nn.LayerNorm(p.width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(p.width, 2 * p.width)
        self.output = nn.Linear(p.width, token)
        init_linear(self)
        for block in self.blocks:
            zero(block.modulation)  # type: ignore[arg-type]
        zero(self.modulation)
        zero(self.output)

    def patchify(self, z: Tensor) -> Tensor:
        """(B, C, S, S) → (B, tokens, C·patch²)."""
        z = z.unflatten(3, (self.grid, self.patch)).unflatten(2, (self.grid, self.patch))
        return z.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def unpatchify(self, x: Tensor) -> Tensor:
        """The inverse of `patchify`."""
        x = x.unflatten(2, (self.channels, self.patch, self.patch)).unflatten(1, (self.grid, self.grid))
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

    def forward(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """z (B, C, S, S), r, t (B,), y (B,) or None → u of z's shape."""
        x = self.input(self.patchify(z)) + self.position
        c = F.silu(self.condition(r, t, y))
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.modulation(c).unsqueeze(1).chunk(2, -1)
        return self.unpatchify(self.output(self.norm(x) * (1 + scale) + shift))


def build(params: DiTParams, context: BuildContext) -> DiT:
    """Facts: ``shape`` and ``num_classes`` of the data."""
    return DiT(params, context.facts["shape"], context.facts["num_classes"])
