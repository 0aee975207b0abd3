"""Errors of a network's v and u against the exact fields of its data."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from meanflow_core.components import TRUE_ERROR_POINTS, Guidance, UErrorParams, VErrorParams
from meanflow_core.config import Protocol
from meanflow_core.data.fields import Fields
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.reference import cache_key, data_of, problems_with
from meanflow_core.registry import BuildContext
from meanflow_core.samplers import in_batches
from meanflow_core.seeding import generator

BATCH = 512  # of points whose exact values are found together: larger ones do not fit a cache


class Points(NamedTuple):
    """Where a field is compared: z, r, t in float32 as networks take them, and its exact float64 values."""

    z: Tensor
    r: Tensor
    t: Tensor
    y: Tensor | None
    exact: Tensor


class TrueError:
    """√(Σ‖u_θ(z, r, t) − u‖² / Σ‖u‖²), Δt uniform in ``gap``, t in [Δt, 1], z from the exact law of z_t."""

    gap: tuple[float, float]

    def __init__(self, params: VErrorParams | UErrorParams, ctx: BuildContext) -> None:
        self.guidance = params.guidance

    def preflight(self, protocol: Protocol) -> list[str]:
        return problems_with(protocol)

    def compute(self, context: EvaluationContext, protocol: Protocol) -> float:
        """Against the class's field for conditional networks, else the marginal one; guided if so asked.

        Raises: EvaluationError without exact fields, for guidance of a network without labels, or where the network's
        values are not finite.
        """
        if missing := self.preflight(protocol):
            raise EvaluationError(missing[0])
        if self.guidance is not None and not context.conditional:
            raise EvaluationError("a guided field is a class's, and this network takes no labels")
        n = min(protocol.samples, TRUE_ERROR_POINTS)
        key = cache_key(protocol.reference)
        p = exact_points(key, self.gap, n, protocol.seed, context.conditional, self.guidance)
        error = context.predict(p.z, p.r, p.t, p.y).double() - p.exact
        ratio = float((error.square().sum() / p.exact.square().sum()).sqrt())
        if not torch.isfinite(error).all():
            raise EvaluationError(f"the network's u is not finite at some of {n} points (Δt in {list(self.gap)})")
        return ratio


class VError(TrueError):
    """The error of v = u_θ(z, t, t), with t uniform in [0, 1]."""

    gap = (0.0, 0.0)


class UError(TrueError):
    """The error of u, with Δt uniform in [lo, hi]."""

    def __init__(self, params: UErrorParams, ctx: BuildContext) -> None:
        super().__init__(params, ctx)
        self.gap = (params.lo, params.hi)


@lru_cache(maxsize=32)
def exact_points(
    key: str, gap: tuple[float, float], n: int, seed: int, conditional: bool, guidance: Guidance | None = None
) -> Points:
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
    field = in_batches(lambda *rows: _field(exact, guidance, *rows), z, r, t, label, batch_size=BATCH)
    return Points(z, r, t, label, field)


def _field(exact: Fields, guidance: Guidance | None, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
    """The exact u, which is v where r = t."""
    instantaneous = torch.equal(r, t)
    if guidance is None:
        return exact.v(z, t, y) if instantaneous else exact.u(z, r, t, y)
    assert y is not None  # checked by the caller, with a message
    return exact.guided_v(z, t, y, guidance) if instantaneous else exact.guided_u(z, r, t, y, guidance)
