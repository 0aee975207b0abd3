"""Classifier-free guidance inside the training target, so that one evaluation of the network samples the guided field.

    v_g = ω·v_t + κ·u(z, t, t | y) + (1 − ω − κ)·u(z, t, t | ∅)

with the weights in training and no gradient. Where t lies outside the interval, and where the label was dropped,
v_g = v_t. Both losses take v_g for v_t, the u-loss also as the direction of du/dt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from meanflow_core.components import Guidance
from meanflow_core.hooks import Batch


def guided_rows(batch: Batch, guidance: Guidance, null_label: int) -> Tensor:
    """The numbers of the rows that guidance changes: label kept, t in [lo, hi]. Rising, so v-rows come first."""
    if batch.y is None:
        raise ValueError("guidance needs labels, and the data have none")
    inside = (batch.t >= guidance.lo) & (batch.t <= guidance.hi)
    return (inside & (batch.y != null_label)).nonzero().flatten()


def guide(network: nn.Module, batch: Batch, guidance: Guidance, null_label: int, v_theta: Tensor | None) -> Tensor:
    """v_g of every row, (B, ...), without gradient.

    Args:
        v_theta: u(z, t, t | y) of the rows that train v, (v_rows, ...), which the step's own forward pass has given.
    The other evaluations, 1 a guided row that trains v and 2 a guided row that trains u, are one batch without graph.
    """
    rows = guided_rows(batch, guidance, null_label)
    v_rows, u_rows = rows[rows < batch.v_rows], rows[rows >= batch.v_rows]
    v_g = batch.v_t.clone()
    v_g[rows] *= guidance.cfg_omega
    if v_theta is not None:
        v_g[v_rows] += guidance.cfg_kappa * v_theta.detach()[v_rows].to(v_g)
    assert batch.y is not None
    terms = [
        (guidance.null_share, rows, torch.full_like(rows, null_label)),
        (guidance.cfg_kappa, u_rows, batch.y[u_rows]),
    ]
    terms = [(weight, of, y) for weight, of, y in terms if weight and len(of)]
    if terms:
        asked = torch.cat([of for _, of, _ in terms])
        out = _without_graph(network, batch.z[asked], batch.t[asked], torch.cat([y for _, _, y in terms])).to(v_g)
        for (weight, of, _), u in zip(terms, out.split([len(of) for _, of, _ in terms]), strict=True):
            v_g[of] += weight * u
    return v_g


def _without_graph(network: nn.Module, z: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """u(z, t, t | y), without autocast's cache: in it, weights cast here would reach the step's own passes without
    gradient."""
    kind = z.device.type
    with torch.no_grad(), torch.autocast(kind, enabled=torch.is_autocast_enabled(kind), cache_enabled=False):
        out: Tensor = network(z, t, t, y)
    return out
