"""scikit-learn's handwritten digits as a finite data set of shape (1, 8, 8)."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
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

    Grey levels 0 … 16 become /8 − 1. The images come with scikit-learn; nothing is downloaded. Its file is read as
    ``load_digits`` reads it, which would import all of scikit-learn, SciPy and pandas in every worker: two seconds.
    """
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    table = np.loadtxt(Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz", delimiter=",")
    x = torch.from_numpy(table[:, :-1]).float() / 8 - 1
    return x.view(-1, *SHAPE), torch.from_numpy(table[:, -1]).long()


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
