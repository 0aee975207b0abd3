"""Second implementations of Section 5 and of guidance, written row by row from the equations, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from meanflow_core.hooks import Batch

Guided = dict[str, float]  # cfg_omega, cfg_kappa, lo, hi
Law = dict[str, float]  # mean, std of a logit-normal; empty for uniform times


def progress(schedule: str, i: int, horizon: int, k: float) -> float:
    """s of step i."""
    ratio = (i / horizon) ** k
    return {"falling": 1 - ratio, "constant": 1.0, "rising": ratio}[schedule]


def beta(delta_t: float, s: float, lam: float) -> float:
    return (1 - s) * 1 + s * lam * (1 - delta_t)


def alpha(t: float, gamma: float, reading: str) -> float:
    """α(t), 0 < t < 1, by way of SNR itself."""
    snr = ((1 - t) / t) ** 2
    return min(snr, gamma) * t**2 if reading == "flow_matching" else min(snr, gamma) / (snr + 1)


def quantiles(law: Law, n: int, above: float = 0.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The middles of n equally likely pieces of a single draw's law given that it is at least ``above``."""
    p = (np.arange(n) + 0.5) / n
    if not law:
        return above + (1 - above) * p
    low = norm.cdf((math.log(above / (1 - above)) - law["mean"]) / law["std"]) if above else 0.0
    found: np.ndarray[Any, np.dtype[np.float64]] = expit(law["mean"] + law["std"] * norm.ppf(low + (1 - low) * p))
    return found


def mean_gap(law: Law, above: float = 0.0, n: int = 2000) -> float:
    """E|X − Y| as a double sum, X held above a bound, Y not; error O(1/n²)."""
    x, y = quantiles(law, n, above), quantiles(law, n)
    return float(np.abs(x[:, None] - y[None, :]).mean())


def mean_of_t(g: Any, law: Law, above: float = 0.0, n: int = 2000) -> float:
    """E[g(max(X, Y))] as a double sum."""
    t = np.maximum(quantiles(law, n, above)[:, None], quantiles(law, n)[None, :])
    return float(g(t).mean())


def rejected_pairs(law: Law, above: float, n: int, seed: int = 0) -> tuple[Any, Any]:
    """(r, t) by drawing X until it is at least ``above``, Y once, and sorting."""
    rng = np.random.default_rng(seed)

    def single(m: int) -> Any:
        return expit(law["mean"] + law["std"] * rng.standard_normal(m)) if law else rng.random(m)

    x = np.empty(0)
    while len(x) < n:
        more = single(n)
        x = np.concatenate([x, more[more >= above]])
    x, y = x[:n], single(n)
    return np.minimum(x, y), np.maximum(x, y)


def guided_velocity(network: nn.Module, b: Batch, g: Guided, null_label: int) -> Tensor:
    """v_g from two passes over the whole batch, with v_t where guidance does not apply."""
    assert b.y is not None
    with torch.no_grad():
        given = network(b.z, b.t, b.t, b.y)
        marginal = network(b.z, b.t, b.t, torch.full_like(b.y, null_label))
    omega, kappa = g["cfg_omega"], g["cfg_kappa"]
    mixed = omega * b.v_t + kappa * given + (1 - omega - kappa) * marginal
    applies = (b.t >= g.get("lo", 0.0)) & (b.t <= g.get("hi", 1.0)) & (b.y != null_label)
    return torch.where(applies.view(-1, *[1] * (b.x.ndim - 1)), mixed, b.v_t)


def losses(
    network: nn.Module,
    b: Batch,
    *,
    c: float = 0.01,
    v_weight: Any = None,
    u_weight: Any = None,
    guidance: Guided | None = None,
    null_label: int = 10,
) -> Tensor:
    """Eqs 6–9 a row: one JVP over the whole batch, w_adp (p = 1), then α(t) where r = t and β(Δt) where r ≠ t.

    v_weight and u_weight take a row's t, or its Δt, and give its weight.
    """
    v = b.v_t if guidance is None else guided_velocity(network, b, guidance, null_label)
    with sdpa_kernel(SDPBackend.MATH):
        u, du_dt = torch.func.jvp(
            lambda z, r, t: network(z, r, t, b.y), (b.z, b.r, b.t), (v, torch.zeros_like(b.r), torch.ones_like(b.t))
        )
    gap = (b.t - b.r).view(-1, *[1] * (b.x.ndim - 1))
    squared = ((u - (v - gap * du_dt).detach()) ** 2).flatten(1).sum(1)
    adapted = squared / (squared.detach() + c)
    weights = []
    for r, t in zip(b.r.tolist(), b.t.tolist(), strict=True):
        weigh, at = (v_weight, t) if r == t else (u_weight, t - r)
        weights.append(1.0 if weigh is None else weigh(at))
    return torch.tensor(weights, dtype=adapted.dtype) * adapted
