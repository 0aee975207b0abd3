"""The linear path between data and noise (Sec. 3): t = 0 is data, t = 1 is noise."""

from __future__ import annotations

from torch import Tensor


def per_row(t: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, ...), to broadcast over the rows of ``like``."""
    return t.reshape(-1, *(1,) * (like.ndim - 1))


def interpolate(x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """z_t = (1 − t)·x + t·eps. x, eps (B, ...), t (B,)."""
    t = per_row(t, x)
    return (1 - t) * x + t * eps


def conditional_velocity(x: Tensor, eps: Tensor) -> Tensor:
    """v_t(z_t | eps) = dz_t/dt = eps − x."""
    return eps - x


def squared_norm(e: Tensor) -> Tensor:
    """‖e‖² a row: the *sum* of squares over all but the first dimension, (B, ...) → (B,)."""
    return e.square().flatten(1).sum(1)
