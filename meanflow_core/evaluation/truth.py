"""Errors of a network's v and u against the exact fields of its data."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from meanflow_core.components import UErrorParams, VErrorParams
from meanflow_core.config import Protocol
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.reference import cache_key, data_of
from meanflow_core.registry import BuildContext, Spec
from meanflow_core.seeding import generator

# Of a protocol's samples. All arms are measured at the same points, so their choice cancels in paired
# differences; integrating the marginal u takes seconds for this many.
MAX_POINTS = 2048


class Points(NamedTuple):
    """Where a field is compared: z, r, t in float32 as networks take them, and its exact float64 values."""

    z: Tensor
    r: Tensor
    t: Tensor
    y: Tensor | None
    exact: Tensor


class VError:
    """√(Σ‖u_θ(z, t, t) − v‖² / Σ‖v‖²) with t uniform in [0, 1] and z drawn from the exact law of z_t."""

    def __init__(self, params: VErrorParams, ctx: BuildContext) -> None:
        pass

    def preflight(self, protocol: Protocol) -> list[str]:
        return _no_exact_fields(protocol.reference)

    def compute(self, context: EvaluationContext, protocol: Protocol) -> float:
        return _relative_error(context, protocol, gap=(0.0, 0.0))


class UError:
    """√(Σ‖u_θ(z, r, t) − u‖² / Σ‖u‖²), Δt uniform in [lo, hi], t in [Δt, 1], z from the exact law of z_t."""

    def __init__(self, params: UErrorParams, ctx: BuildContext) -> None:
        self.gap = (params.lo, params.hi)

    def preflight(self, protocol: Protocol) -> list[str]:
        return _no_exact_fields(protocol.reference)

    def compute(self, context: EvaluationContext, protocol: Protocol) -> float:
        return _relative_error(context, protocol, self.gap)


def _relative_error(context: EvaluationContext, protocol: Protocol, gap: tuple[float, float]) -> float:
    """Against the class's field for conditional networks, else the marginal one; always the unguided field.

    Raises: EvaluationError without exact fields or where the network's values are not finite.
    """
    if missing := _no_exact_fields(protocol.reference):
        raise EvaluationError(missing[0])
    n = min(protocol.samples, MAX_POINTS)
    p = exact_points(cache_key(protocol.reference), gap, n, protocol.seed, context.conditional)
    error = context.predict(p.z, p.r, p.t, p.y).double() - p.exact
    ratio = float((error.square().sum() / p.exact.square().sum()).sqrt())
    if not torch.isfinite(error).all():
        raise EvaluationError(f"the network's u is not finite at some of {n} points (Δt in {list(gap)})")
    return ratio


@lru_cache(maxsize=32)
def exact_points(key: str, gap: tuple[float, float], n: int, seed: int, conditional: bool) -> Points:
    """n points of a data set with Δt uniform in ``gap``: a pure function, so computed once a process.

    The exact values belong to z, r and t *as rounded* to float32, so rounding inputs counts as no error.
    """
    exact = data_of(key).exact
    assert exact is not None  # checked by the caller, with a message
    rng = generator(seed, "truth")
    lo, hi = gap
    delta_t = lo + (hi - lo) * torch.rand(n, generator=rng, dtype=torch.float64)
    t = (delta_t + (1 - delta_t) * torch.rand(n, generator=rng, dtype=torch.float64)).float()
    r = (t - delta_t).float().clamp(min=0) if hi > 0 else t
    z, y = exact.draw_marginal(t, rng)
    z, label = z.float(), y if conditional else None
    return Points(z, r, t, label, exact.u(z, r, t, label) if hi > 0 else exact.v(z, t, label))


def _no_exact_fields(spec: Spec) -> list[str]:
    if data_of(cache_key(spec)).exact is None:
        return [f"the exact fields of the data '{spec.name}' are not known; use 'gmm' or 'gaussian'"]
    return []
