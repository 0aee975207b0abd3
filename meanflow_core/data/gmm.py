"""A mixture of one Gaussian a class, with a closed-form v; data sets that are drawn afresh at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from meanflow_core.components import GMMParams
from meanflow_core.data.base import REFERENCE_SEED, DataSet
from meanflow_core.data.digits import NUM_CLASSES, SHAPE, digits
from meanflow_core.data.exact import ExactFields
from meanflow_core.data.fields import Fields
from meanflow_core.registry import BuildContext
from meanflow_core.seeding import generator


class ExactDataSet(DataSet):
    """A law whose fields are known: endless, no draw twice. One component a class, or no classes."""

    exact: Fields

    def __init__(self, exact: Fields, num_classes: int | None) -> None:
        self.exact = exact
        self.shape = exact.shape
        self.num_classes = num_classes

    def batch(self, seed: int, step: int, batch_size: int, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
        x, y = self.exact.draw(batch_size, generator(seed, "data", step))
        return x.float().to(device), y.to(device) if self.num_classes else None

    def labels(self, n: int, rng: torch.Generator) -> Tensor | None:
        if self.num_classes is None:
            return None
        return torch.multinomial(self.exact.weights, n, replacement=True, generator=rng)

    def reference_samples(self, n: int) -> Tensor:
        return self.exact.draw(n, generator(REFERENCE_SEED, "reference", 0))[0].float()

    def reference_moments(self, A: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.exact.moments(A)


def fit(shrinkage: float) -> ExactFields:
    """The digits' class frequencies, means and covariances (denominator n), in float64.

    Each covariance S becomes (1 − a)·S + a·(tr S/d)·I with a = ``shrinkage``: its mean variance is kept.

    Raises: ValueError if the result is singular, as for a = 0: some pixels of a digit never change.
    """
    x, y = digits()
    flat = x.double().flatten(1)
    weights = torch.bincount(y, minlength=NUM_CLASSES).double()
    means = torch.stack([flat[y == k].mean(0) for k in range(NUM_CLASSES)])
    covariances = torch.stack([flat[y == k].T.cov(correction=0) for k in range(NUM_CLASSES)])
    variances = covariances.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    shrunk = (1 - shrinkage) * covariances + shrinkage * variances * torch.eye(flat.shape[1])
    try:
        return ExactFields(weights, means, shrunk, SHAPE)
    except ValueError as error:
        raise ValueError(f"gmm with shrinkage = {shrinkage:g}: {error}; use a larger shrinkage") from None


def build(params: GMMParams, ctx: BuildContext) -> ExactDataSet:
    return ExactDataSet(fit(params.shrinkage), NUM_CLASSES)
