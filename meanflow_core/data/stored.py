"""Data sets that `study data add` wrote (`meanflow_core.data.layout`), memory-mapped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from meanflow_core.arrays import Array, not_finite
from meanflow_core.components import StoredParams
from meanflow_core.data.base import DataError
from meanflow_core.data.finite import Finite
from meanflow_core.data.layout import (
    ANEW,
    LayoutError,
    Meta,
    X,
    folder_of,
    open_labels,
    open_samples,
    problems,
    read_meta,
    read_statistics,
)
from meanflow_core.registry import BuildContext

T = TypeVar("T")


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
        return torch.from_numpy(self._read(open_labels)) if self.num_classes else None

    @cached_property
    def _x(self) -> Array:
        return self._read(open_samples)

    def rows(self, indices: Tensor, device: torch.device | str) -> Tensor:
        rows = self._x[indices.numpy()]
        if self.meta.levels is None and (bad := not_finite(rows)) is not None:  # a large array was not read whole
            raise DataError(f"{self.folder / X}: sample {int(indices[bad])} is not finite: {ANEW}")
        x = torch.from_numpy(rows).to(device)
        return x if self.meta.levels is None else x.float() * (2 / self.meta.levels) - 1

    def reference_moments(self, A: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Those of the data themselves (denominator N − 1), as they were when it was added."""
        if (found := self._read(read_statistics)) is None:
            return None
        mean, covariance = map(torch.from_numpy, found)
        return (mean, covariance) if A is None else (A @ mean, A @ covariance @ A.T)

    def preflight(self) -> list[str]:
        return problems(self.params.dataset, self.params.fingerprint)

    def _read(self, reader: Callable[[str, Meta], T]) -> T:
        try:
            return reader(self.params.dataset, self.meta)
        except LayoutError as error:
            raise DataError(str(error)) from None


def build(params: StoredParams, context: BuildContext) -> Stored:
    return Stored(params)
