"""Finite data: N samples, each seen once a pass."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from meanflow_core.components.facts import reference_rows
from meanflow_core.data.base import REFERENCE_SEED, DataSet, Passes


class Finite(DataSet):
    """N samples, drawn without replacement; evaluation labels have the empirical class frequencies."""

    @property
    @abstractmethod
    def n(self) -> int: ...

    @property
    @abstractmethod
    def y(self) -> Tensor | None:
        """All labels (N,) int64 on the CPU; None without classes."""

    @abstractmethod
    def rows(self, indices: Tensor, device: torch.device | str) -> Tensor:
        """Samples (B, *shape) float32 by their indices (B,)."""

    @cached_property
    def _passes(self) -> Passes:
        return Passes(self.n)

    def batch(self, seed: int, step: int, batch_size: int, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
        indices = self._passes.indices(seed, step, batch_size)
        return self.rows(indices, device), None if self.y is None else self.y[indices].to(device)

    def labels(self, n: int, rng: torch.Generator) -> Tensor | None:
        return None if self.y is None else self.y[torch.randint(self.n, (n,), generator=rng)]

    def independent(self, n: int, rng: torch.Generator) -> Tensor:
        return self.rows(torch.randint(self.n, (n,), generator=rng), "cpu")

    def reference_samples(self, n: int) -> Tensor:
        """All of the data, up to 1 GiB of them; else n fixed ones, or as many as that."""
        rows = reference_rows(self.n, self.shape, n)
        if rows == self.n:
            return self.rows(torch.arange(self.n), "cpu")
        return self.rows(self._passes.indices(REFERENCE_SEED, 0, rows), "cpu")
