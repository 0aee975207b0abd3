"""Embeddings of time and class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sinusoids of a time in [0, 1], then a two-layer MLP.

    Frequencies run geometrically from ``max_frequency`` down to ``max_frequency / max_period`` rad; times are not
    multiplied by 1000, so the embedding is smooth, which one-step training needs.
    """

    frequencies: Tensor

    def __init__(self, dim: int, width: int, max_frequency: float, max_period: float) -> None:
        super().__init__()
        half = dim // 2
        exponents = torch.arange(half, dtype=torch.float64) / half
        self.register_buffer("frequencies", max_frequency * max_period**-exponents, persistent=False)
        self.inner = nn.Linear(2 * half, width)
        self.outer = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        """t (B,) → (B, width)."""
        angles = t.unsqueeze(-1) * self.frequencies.to(t.dtype)
        waves = torch.cat([angles.cos(), angles.sin()], -1)
        out: Tensor = self.outer(nn.functional.silu(self.inner(waves.to(self.inner.weight.dtype))))
        return out


class ClassEmbedding(nn.Module):
    """A vector a class, and one more for the null class (index ``num_classes``) that dropped labels take."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.table = nn.Embedding(num_classes + 1, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, y: Tensor) -> Tensor:
        """y (B,) of class indices → (B, width)."""
        out: Tensor = self.table(y)
        return out


class Condition(nn.Module):
    """emb(t) + emb(t − r) + emb(class), the vector that modulates every block."""

    def __init__(
        self, width: int, embed_dim: int, max_frequency: float, max_period: float, num_classes: int | None
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(embed_dim, width, max_frequency, max_period)
        self.gap = TimeEmbedding(embed_dim, width, max_frequency, max_period)
        self.label = ClassEmbedding(num_classes, width) if num_classes is not None else None

    def forward(self, r: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """r, t (B,), y (B,) or None → (B, width)."""
        c: Tensor = self.time(t) + self.gap(t - r)
        if self.label is None:
            return c
        if y is None:
            y = torch.full(t.shape, self.label.num_classes, dtype=torch.long, device=t.device)
        return c + self.label(y)


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear map below; embeddings' MLPs get N(0, 0.02²)."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.xavier_uniform_(m.weight)
            nn.init.zeros_(m.bias)
    for m in module.modules():
        if isinstance(m, TimeEmbedding):
            nn.init.normal_(m.inner.weight, std=0.02)
            nn.init.normal_(m.outer.weight, std=0.02)


def zero(linear: nn.Linear) -> None:
    """Zero a linear map, so that what it gates starts as the identity (adaLN-zero)."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
