"""Restriction of the gap Δt = t − r to a range (appendix A)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from meanflow_core.components import GapRange, GapRestrictionParams
from meanflow_core.hooks import Batch, Rng, Transform
from meanflow_core.registry import BuildContext


def restrict_gap(
    r: Tensor, t: Tensor, gap: GapRange, redraw_t: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Δt ← lo + (hi − lo)·(t − r), r ← t − Δt (appendix A), and ``gap.negative_r`` where that gives r < 0.

    Args:
        r, t: times drawn, (B,), 0 ≤ r ≤ t ≤ 1.
        redraw_t: draws t (B,) from its law given t ≥ Δt (B,).
    Returns: new r and t, (B,), and which rows had r < 0, (B,) bool.
    """
    delta_t = gap.lo + (gap.hi - gap.lo) * (t - r)
    outside = t < delta_t
    if gap.negative_r == "resample_t":
        t = torch.where(outside, redraw_t(delta_t), t)
    r = t - delta_t
    return (r if gap.negative_r == "allow_negative" else r.clamp(min=0)), t, outside


class GapRestriction(Transform):
    """Restricts the gap of the rows that train u; the others keep r = t."""

    def __init__(self, params: GapRestrictionParams, context: BuildContext) -> None:
        self.gap = params
        self.rng: Rng = context.facts["rng"]
        self.times = context.facts["times"]
        self.out_of_range: Tensor | None = None

    def batch(self, step: int, batch: Batch) -> Batch:
        n = batch.v_rows
        if n == len(batch.t):
            return batch
        r, t, outside = restrict_gap(
            batch.r[n:], batch.t[n:], self.gap, lambda delta_t: self.times.draw_t_above(delta_t, self.rng(step))
        )
        self.out_of_range = outside
        return replace(batch, r=torch.cat([batch.r[:n], r]), t=torch.cat([batch.t[:n], t]))

    def logged(self) -> dict[str, float]:
        return {} if self.out_of_range is None else {"gap_out_of_range": float(self.out_of_range.float().mean())}
