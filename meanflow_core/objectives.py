"""MeanFlow's regression (Eqs 3–7), each function named for its equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from meanflow_core.components import Guidance, MeanFlowParams
from meanflow_core.guidance import guide
from meanflow_core.hooks import Batch, Transform
from meanflow_core.interpolant import per_row, squared_norm
from meanflow_core.jvp import jvp
from meanflow_core.registry import BuildContext
from meanflow_core.weights import adaptive_weight

JVP = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Terms:
    """Per-sample outcome of a step: ``loss`` (B,) with gradient, raw ‖e‖² ``squared_error`` (B,) without."""

    loss: Tensor
    squared_error: Tensor
    v_rows: int
    target_power: Tensor

    @property
    def v_mse(self) -> Tensor:
        """Mean raw ‖e‖² of the v-loss; NaN where there are no such rows."""
        return self.squared_error[: self.v_rows].mean()

    @property
    def u_mse(self) -> Tensor:
        """Mean raw ‖e‖² of the u-loss; NaN where there are no such rows."""
        return self.squared_error[self.v_rows :].mean()


def u_target(v_t: Tensor, du_dt: Tensor, delta_t: Tensor) -> Tensor:
    """Average-velocity target, Eq. 3: u = v − (t − r)·du/dt.

    Args:
        v_t: velocity along which du_dt was taken, (B, ...).
        du_dt: total derivative of u_θ(z_t, r, t) in t, (B, ...).
        delta_t: t − r ≥ 0, (B,).
    Returns: detached target, (B, ...); equals v_t where delta_t = 0.
    """
    return (v_t - per_row(delta_t, v_t) * du_dt).detach()


def v_error(v_theta: Tensor, target: Tensor) -> Tensor:
    """e = u_θ(z_t, t, t) − v_t(z_t | eps), the error of L_v (Eq. 5); all (B, ...)."""
    return v_theta - target


def u_error(
    network: nn.Module, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None, v_t: Tensor, derivative: JVP = jvp
) -> Tensor:
    """e = u_θ(z_t, r, t) − sg(u_tgt), the error of L_u (Eq. 4), (B, ...).

    ``derivative`` takes u and its total derivative du/dt = v_t·∂_z u + ∂_t u in one pass.
    """
    u, du_dt = derivative(lambda z, r, t: network(z, r, t, y), (z, r, t), (v_t, None, torch.ones_like(t)))
    return u - u_target(v_t, du_dt, t - r)


class MeanFlow:
    """L_MF (Eq. 5) with the adaptive weight (Eq. 7); transforms weigh it afterwards (Eqs 8, 9).

    The batch is split: the JVP is taken on the rows with r ≠ t only, the others cost an ordinary forward pass. With
    ``guidance`` both losses take v_g for v_t (`meanflow_core.guidance`); ``null_label`` is what a dropped label is.
    """

    def __init__(self, params: MeanFlowParams, guidance: Guidance | None = None, null_label: int | None = None) -> None:
        self.p, self.c = params.adaptive_p, params.adaptive_c
        self.guidance, self.null_label = guidance, null_label
        if guidance is not None and null_label is None:
            raise ValueError("guidance needs labels, and the data have none: set guidance to null")

    def terms(self, network: nn.Module, batch: Batch, step: int = 0, transforms: Sequence[Transform] = ()) -> Terms:
        """Per-sample losses of a batch. The step's loss is their mean."""
        n, z, v_t = batch.v_rows, batch.z, batch.v_t
        y_v, y_u = (None, None) if batch.y is None else (batch.y[:n], batch.y[n:])
        v_theta = network(z[:n], batch.t[:n], batch.t[:n], y_v) if n else None
        velocity = v_t
        if self.guidance is not None and self.null_label is not None:
            velocity = guide(network, batch, self.guidance, self.null_label, v_theta)
        errors = []
        if v_theta is not None:
            target = velocity[:n]
            for transform in transforms:
                target = transform.v_target(step, batch, target)
            errors.append(squared_norm(v_error(v_theta, target)))
        if n < len(z):
            errors.append(squared_norm(u_error(network, z[n:], batch.r[n:], batch.t[n:], y_u, velocity[n:])))
        squared = torch.cat(errors)
        weights = adaptive_weight(squared, self.c, self.p)
        for transform in transforms:
            weights = transform.weights(step, batch, weights)
        return Terms(weights * squared, squared.detach(), n, squared_norm(v_t).mean())


def build(params: MeanFlowParams, context: BuildContext) -> MeanFlow:
    return MeanFlow(params, context.facts.get("guidance"), context.facts.get("null_label"))
