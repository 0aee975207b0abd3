"""Samplers: n jumps of the average velocity u, or n Euler steps on v = u(z, t, t), from t = 1 (noise) to t =
0.
"""

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
    """z_r = z_t − (t − r)·v(z_t, t), v(z, t) = u(z, t, t), on the same intervals: the plain flow sampler."""
    for r, t in _intervals(nfe):
        z = z - (t - r) * net(z, _full(z, t), _full(z, t), y)
    return z


SOLVERS: dict[Solver, Callable[[Network, Tensor, Tensor | None, int], Tensor]] = {
    "jump": jump_sample,
    "euler": euler_sample,
}


def sample(
    net: Network, z: Tensor, y: Tensor | None, nfe: int, solver: Solver, *, batch_size: int = DEFAULT_BATCH
) -> Tensor:
    """Samples from noise z (N, *shape), at most ``batch_size`` rows at a time.

    Raises: ValueError for an unknown solver or nfe < 1.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver '{solver}' (available: {', '.join(SOLVERS)})")
    return in_batches(lambda rows, labels: SOLVERS[solver](net, rows, labels, nfe), z, y, batch_size=batch_size)


def in_batches(function: Callable[..., Tensor], *rows: Tensor | None, batch_size: int = DEFAULT_BATCH) -> Tensor:
    """function(*rows) computed on at most ``batch_size`` rows at a time; a None among the rows stays None."""
    n = len(next(x for x in rows if x is not None))
    return torch.cat(
        [
            function(*(None if x is None else x[start : start + batch_size] for x in rows))
            for start in range(0, n, batch_size)
        ]
    )


def _intervals(nfe: int) -> list[tuple[float, float]]:
    """[(r, t), ...] from t = 1 down to r = 0. i/n rather than sums of 1/n, so the last r is 0 exactly."""
    if nfe < 1:
        raise ValueError(f"nfe must be at least 1, not {nfe}")
    return [((i - 1) / nfe, i / nfe) for i in range(nfe, 0, -1)]


def _full(z: Tensor, time: float) -> Tensor:
    return torch.full((len(z),), time, dtype=z.dtype, device=z.device)
