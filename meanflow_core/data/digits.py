"""scikit-learn's handwritten digits as a finite data set of shape (1, 8, 8)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from meanflow_core.components import DigitsParams
from meanflow_core.data.finite import Finite
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


class Digits(Finite):
    """The digits, in memory."""

    shape = SHAPE
    num_classes = NUM_CLASSES
    n = 1797

    def __init__(self) -> None:
        self.x, self._y = digits()

    @property
    def y(self) -> Tensor:
        return self._y

    def rows(self, indices: Tensor, device: torch.device | str) -> Tensor:
        return self.x[indices].to(device)


def build(params: DigitsParams, ctx: BuildContext) -> Digits:
    return Digits()
