"""Samplers: n jumps of the average velocity u, or n Euler steps on v = u(z, t, t), from t = 1 (noise) to t = 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Network = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""u(z, r, t, y): z (B, *shape), r and t (B,) with r ≤ t, y (B,) int64 or None → u of z's shape."""

Solver = Literal["jump", "euler"]

DEFAULT_BATCH = 1024


@torch.no_grad()
def jump_sample(net: Network, z: Tensor, y: Tensor | None, nfe: int) -> Tensor:
    """z_r = z_t − (t − r)·u(z_t, r, t) over nfe equal intervals of [0, 1]; two of them are 1 → 0.5 → 0.

    z (B, *shape) is noise; returns x of the same shape. Exact for the exact u, whatever nfe is.
    """
    for r, t in _intervals(nfe):
        z = z - (t - r) * net(z, _full(z, r), _full(z, t), y)
    return z


@torch.no_grad()
def euler_sample(net: Network, z: Tensor, y: Tensor | None, nfe: int) -> Tensor:
    """z_r = z_t − (t − r)·v(z_t, t) with v(z, t) = u(z, t, t): the plain flow sampler. Arguments as jump_sample's."""
    for r, t in _intervals(nfe):
        z = z - (t - r) * net(z, _full(z, t), _full(z, t), y)
    return z


SOLVERS: dict[Solver, Callable[[Network, Tensor, Tensor | None, int], Tensor]] = {
    "jump": jump_sample,
    "euler": euler_sample,
}


def sample(
    net: Network, z: Tensor, y: Tensor | None, nfe: int, solver: Solver, batch_size: int = DEFAULT_BATCH
) -> Tensor:
    """Samples from noise z (N, *shape), at most ``batch_size`` rows at a time.

    Raises: ValueError for an unknown solver or nfe < 1.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver '{solver}' (there is: {', '.join(SOLVERS)})")
    labels = y.split(batch_size) if y is not None else [None] * len(z.split(batch_size))
    draws = [SOLVERS[solver](net, part, label, nfe) for part, label in zip(z.split(batch_size), labels, strict=True)]
    return torch.cat(draws)


def _intervals(nfe: int) -> list[tuple[float, float]]:
    """[(r, t), ...] from t = 1 down to r = 0. i/n rather than sums of 1/n, so the last r is 0 exactly."""
    if nfe < 1:
        raise ValueError(f"nfe must be at least 1, not {nfe}")
    return [((i - 1) / nfe, i / nfe) for i in range(nfe, 0, -1)]


def _full(z: Tensor, time: float) -> Tensor:
    return torch.full((len(z),), time, dtype=z.dtype, device=z.device)
