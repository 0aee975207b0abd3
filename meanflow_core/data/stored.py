"""Data sets that `study data add` wrote (`meanflow_core.data.layout`), memory-mapped."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from meanflow_core.components import StoredParams
from meanflow_core.data.base import DataError
from meanflow_core.data.finite import Finite
from meanflow_core.data.layout import STATISTICS, Array, LayoutError, X, Y, folder_of, open_array, problems, read_meta
from meanflow_core.registry import BuildContext


class Stored(Finite):
    """Images become 2·x/levels − 1, values stay as they are. Files are opened by the first batch, so that pickling and
    planning cost nothing.

    Raises: DataError where there is no such data set, or it is not the one that the study means.
    """

    def __init__(self, params: StoredParams) -> None:
        self.params = params
        try:
            self.meta, found = read_meta(params.dataset)
        except LayoutError as error:
            raise DataError(str(error)) from None
        if found != params.fingerprint:
            raise DataError(problems(params.dataset, params.fingerprint)[0])
        self.folder = folder_of(params.dataset)
        self.shape = tuple(self.meta.shape)
        self.num_classes = len(self.meta.classes) or None

    @property
    def n(self) -> int:
        return self.meta.n

    @cached_property
    def y(self) -> Tensor | None:
        return torch.from_numpy(_opened(self.params.dataset, Y)) if self.num_classes else None

    @cached_property
    def _x(self) -> Array:
        return _opened(self.params.dataset, X, mapped=True)

    def rows(self, indices: Tensor, device: torch.device | str) -> Tensor:
        x = torch.from_numpy(self._x[indices.numpy()]).to(device)
        return x if self.meta.levels is None else x.float() * (2 / self.meta.levels) - 1

    def reference_moments(self, A: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Those of the data themselves (denominator N − 1), as they were when it was added."""
        if STATISTICS not in self.meta.files:
            return None
        with np.load(self.folder / STATISTICS, allow_pickle=False) as held:
            mean, covariance = torch.from_numpy(held["mean"]), torch.from_numpy(held["covariance"])
        return (mean, covariance) if A is None else (A @ mean, A @ covariance @ A.T)

    def preflight(self) -> list[str]:
        return problems(self.params.dataset, self.params.fingerprint)


def _opened(name: str, file: str, *, mapped: bool = False) -> Array:
    try:
        return open_array(name, file, mapped=mapped)
    except LayoutError as error:
        raise DataError(str(error)) from None


def build(params: StoredParams, context: BuildContext) -> Stored:
    return Stored(params)
