"""The floor under a distance: what a sampler of the very law of the data would score at the same number of samples.

No network can be told to be better: below it a distance says how few the samples are, not how good.
"""

from __future__ import annotations

from statistics import fmean

import torch

from meanflow_core.components import KIDParams
from meanflow_core.config import Protocol
from meanflow_core.data.base import DataSet
from meanflow_core.evaluation.context import Draw, EvaluationContext
from meanflow_core.evaluation.evaluate import evaluate, preflight
from meanflow_core.evaluation.reference import cache_key, data_of
from meanflow_core.seeding import generator

DRAWS = 4  # sets of samples that a floor is the mean over


class LawItself(EvaluationContext):
    """In place of a network's samples: draws of the law of the data, independent of each other and of the reference."""

    def __init__(self, dataset: DataSet, number: int) -> None:
        super().__init__(_no_network, dataset)
        self.number = number

    def _sample(self, draw: Draw) -> torch.Tensor:
        return self.dataset.independent(draw.samples, generator(draw.seed, "floor", self.number))


def _no_network(*_: object) -> torch.Tensor:
    raise TypeError("the law of the data has no network to ask")


def floor(protocol: Protocol) -> float | None:
    """The mean over ``DRAWS`` sets of as many samples as the protocol's; 0 for the kernel distance, which is unbiased;
    None where there is none, or the data or the features are not here.

    Of finite data the law is the empirical one, so a set repeats some of them.
    """
    if not protocol.has_floor or preflight(protocol):
        return None
    if isinstance(protocol.metric.params, KIDParams):
        return 0.0  # it is unbiased
    data = data_of(cache_key(protocol.reference))
    return fmean(evaluate(LawItself(data, i), [protocol])[protocol.key].value for i in range(DRAWS))
