"""Min-SNR weighting of the v-loss (Sec. 5, Eq. 8)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from meanflow_core.components import MinSNRParams
from meanflow_core.hooks import Batch, Transform
from meanflow_core.registry import BuildContext
from meanflow_core.times import TimeSampler
from meanflow_core.weights import min_snr_alpha


def mean_alpha(params: MinSNRParams, times: TimeSampler, t_above: float = 0.0) -> float:
    """E[α(t)] over the law of t, by quadrature."""

    def alpha(t: float) -> float:
        return float(min_snr_alpha(torch.tensor(t, dtype=torch.float64), params.gamma, params.reading))

    return times.mean_over_t(alpha, t_above)


class MinSNR(Transform):
    """Multiplies the weights of the rows with r = t by α(t), or by α(t)/E[α]."""

    def __init__(self, params: MinSNRParams, context: BuildContext) -> None:
        self.params = params
        self.mean = functools.cache(functools.partial(mean_alpha, params, context.facts["times"]))

    def weights(self, step: int, batch: Batch, weights: Tensor) -> Tensor:
        n = batch.v_rows
        alpha = min_snr_alpha(batch.t[:n], self.params.gamma, self.params.reading)
        if self.params.normalise:
            alpha = alpha / self.mean(batch.t_above)
        return torch.cat([weights[:n] * alpha, weights[n:]])
