"""The progressive weight of the u-loss (Sec. 5): small gaps first, all alike at the end."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from meanflow_core.components import ProgressiveWeightParams
from meanflow_core.hooks import Batch, Transform
from meanflow_core.registry import BuildContext
from meanflow_core.weights import beta


def progress(step: int, horizon: int, power: float) -> float:
    """(i/T)^k, from 0 at the first step towards 1."""
    return float((step / horizon) ** power)


class Progressive(Transform):
    """Multiplies the weights of the rows with r ≠ t by β(Δt, s), λ being that of the law their times come from."""

    def __init__(self, params: ProgressiveWeightParams, context: BuildContext) -> None:
        self.power, self.schedule = params.schedule_power, params.schedule
        self.over_all = params.lambda_over == "all_rows"
        self.horizon = context.horizon if params.reads_horizon() else 0
        self.mean_gap = functools.cache(context.facts["times"].mean_gap)
        self.logged_s = 1.0

    def s(self, step: int) -> float:
        """s of step i, which counts from the root."""
        if self.schedule == "constant":
            return 1.0
        done = progress(step, self.horizon, self.power)
        return done if self.schedule == "rising" else 1 - done

    def weights(self, step: int, batch: Batch, weights: Tensor) -> Tensor:
        n, self.logged_s = batch.v_rows, self.s(step)
        whole = batch.of or batch  # a rank's share of rows that train u may differ from the batch's
        u_share = 1 - whole.v_rows / len(whole.t) if self.over_all else 1.0
        lam = 1 / (1 - u_share * self.mean_gap(batch.t_above))
        return torch.cat([weights[:n], weights[n:] * beta(batch.delta_t[n:], self.logged_s, lam)])

    def logged(self) -> dict[str, float]:
        return {"schedule_s": self.logged_s}
