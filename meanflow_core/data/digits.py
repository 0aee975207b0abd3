"""scikit-learn's handwritten digits as a finite data set of shape (1, 8, 8)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from meanflow_core.components import DigitsParams
from meanflow_core.data.base import DataSet, Passes
from meanflow_core.registry import BuildContext

SHAPE = (1, 8, 8)
NUM_CLASSES = 10


@cache
def digits() -> tuple[Tensor, Tensor]:
    """All 1797 images (N, 1, 8, 8) float32 in [−1, 1] and their labels (N,) int64.

    Grey levels 0 … 16 become /8 − 1. The images come with scikit-learn; nothing is downloaded.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels).float() / 8 - 1
    return x.view(-1, *SHAPE), torch.from_numpy(labels).long()


class Digits(DataSet):
    """The digits, sampled without replacement; evaluation labels have the empirical class frequencies."""

    shape = SHAPE
    num_classes = NUM_CLASSES

    def __init__(self) -> None:
        self.x, self.y = digits()
        self._passes = Passes(len(self.x))

    def batch(self, seed: int, step: int, batch_size: int, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
        rows = self._passes.indices(seed, step, batch_size)
        return self.x[rows].to(device), self.y[rows].to(device)

    def labels(self, n: int, rng: torch.Generator) -> Tensor:
        return self.y[torch.randint(len(self.y), (n,), generator=rng)]

    def reference_samples(self, n: int) -> Tensor:
        return self.x


def build(params: DigitsParams, ctx: BuildContext) -> Digits:
    return Digits()
