"""Useful FLOPs of a training step, counted from the architecture. Torch-free, so that planning needs no network.

A multiply-add counts as 2. Unit: F, one forward pass of the network on one sample. A row that trains v costs 3F
(forward 1, backward 2), a row that trains u costs 4F (and one tangent pass). Guidance adds 1F to a guided row that
trains v, whose own forward pass gives u(z, t, t | y), and 2F to one that trains u. Only matrix products are counted.
"""

from __future__ import annotations

import math

from meanflow_core.components import DiTParams, MLPParams
from meanflow_core.config import Dynamics
from meanflow_core.registry import Params, asked

V_ROW = 3.0
U_ROW = 4.0


def data_shape(dynamics: Dynamics) -> tuple[int, ...] | None:
    """Shape of one sample of the data, from its parameters alone; None where they do not say."""
    params: Params = dynamics.data.params
    return asked(params, params.sample_shape)


def class_count(dynamics: Dynamics) -> int | None:
    """Number of classes of the data, from its parameters alone; None where it has no labels."""
    params: Params = dynamics.data.params
    return asked(params, params.class_count)


def mlp_forward(p: MLPParams, shape: tuple[int, ...]) -> float:
    """FLOPs of one forward pass of the MLP on one sample."""
    dim, w = math.prod(shape), p.width
    embed = 2 * (2 * (p.embed_dim // 2) * w + w * w)
    body = dim * w + p.depth * 4 * w * w + w * (3 * p.depth + 2) * w + w * dim
    return 2.0 * (embed + body)


def dit_forward(p: DiTParams, shape: tuple[int, ...]) -> float:
    """FLOPs of one forward pass of the DiT on one sample, attention's products included."""
    tokens, w = (shape[1] // p.patch) ** 2, p.width
    token = shape[0] * p.patch**2
    embed = 2 * (2 * (p.embed_dim // 2) * w + w * w)
    hidden = int(w * p.mlp_ratio)
    block = tokens * (4 * w * w + 2 * w * hidden) + 2 * tokens * tokens * w + 6 * w * w
    return 2.0 * (embed + 2 * tokens * token * w + p.depth * block + 2 * w * w)


def forward_flops(network: Params, shape: tuple[int, ...] | None) -> float | None:
    """F; None where the network's cost or the data's shape is not known."""
    if shape is None:
        return None
    if isinstance(network, MLPParams):
        return mlp_forward(network, shape)
    if isinstance(network, DiTParams):
        return dit_forward(network, shape)
    return asked(network, network.forward_flops, shape)


def row_forwards(dynamics: Dynamics) -> tuple[float, float]:
    """What a row that trains v and one that trains u cost, in F, on average over dropped labels.

    Rows that guidance leaves out because of their t are counted as guided: an upper bound.
    """
    guidance = dynamics.guidance
    if guidance is None:
        return V_ROW, U_ROW
    kept, null = 1 - dynamics.label_dropout, guidance.null_share != 0
    return V_ROW + kept * null, U_ROW + kept * (null + (guidance.cfg_kappa != 0))


def step_flops(dynamics: Dynamics) -> float | None:
    """Useful FLOPs of one training step: F · (3 · v-rows + 4 · u-rows), and what guidance adds."""
    f = forward_flops(dynamics.network.params, data_shape(dynamics))
    if f is None:
        return None
    v, (v_row, u_row) = dynamics.v_rows, row_forwards(dynamics)
    return f * (v_row * v + u_row * (dynamics.batch_size - v))


def parameter_count(network: Params, shape: tuple[int, ...] | None, num_classes: int | None) -> int | None:
    """Number of parameters of a network; None where it, or the data's shape, is not known."""
    if shape is None:
        return None
    if isinstance(network, MLPParams):
        w, d, dim = network.width, network.depth, math.prod(shape)
        time = 2 * ((2 * (network.embed_dim // 2) + 1) * w + (w + 1) * w)
        label = (num_classes + 1) * w if num_classes is not None and network.conditional else 0
        body = d * (4 * w * w + 3 * w) + (w + 1) * (3 * d + 2) * w
        return time + label + (dim + 1) * w + body + (w + 1) * dim
    if isinstance(network, DiTParams):
        w, token = network.width, shape[0] * network.patch**2
        hidden = int(w * network.mlp_ratio)
        time = 2 * ((2 * (network.embed_dim // 2) + 1) * w + (w + 1) * w)
        label = (num_classes + 1) * w if num_classes is not None and network.conditional else 0
        block = (w + 1) * 3 * w + (w + 1) * w + (w + 1) * hidden + (hidden + 1) * w + (w + 1) * 6 * w
        final = (w + 1) * 2 * w + (w + 1) * token
        return time + label + (token + 1) * w + network.depth * block + final
    return asked(network, network.parameter_count, shape, num_classes)
