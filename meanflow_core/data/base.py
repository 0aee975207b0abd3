"""What the trainer and the metrics ask of a data set, and sampling by passes over a finite one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

from meanflow_core.data.fields import Fields
from meanflow_core.seeding import generator

_PASSES_KEPT = 4  # permutations; more only if a batch is several times as long as a pass

REFERENCE_SEED = 0


class DataError(RuntimeError):
    """A data set cannot be used; the message says which files are missing or not what they should be."""


class DataSet(ABC):
    """A distribution over x of shape ``shape``, with classes 0 … ``num_classes`` − 1 or, at None, without.

    All methods are pure functions of their arguments; objects built from equal parameters agree.
    """

    shape: tuple[int, ...]
    num_classes: int | None
    exact: Fields | None = None
    """The data's exact v and u, where they are known."""

    @abstractmethod
    def batch(self, seed: int, step: int, batch_size: int, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
        """Training step ``step``'s data on ``device``: x (B, *shape) float32, labels (B,) int64 or None.

        ``step`` counts from the root of a chain, from 0.
        """

    @abstractmethod
    def labels(self, n: int, rng: torch.Generator) -> Tensor | None:
        """n random labels (n,) int64 on the CPU with the data's class frequencies; None without classes."""

    @abstractmethod
    def reference_samples(self, n: int) -> Tensor:
        """What samples are compared with: (N, *shape) float32 on the CPU.

        All of the data where it is small and finite (then N does not depend on n), else n fixed draws.
        """

    def independent(self, n: int, rng: torch.Generator) -> Tensor:
        """n samples (n, *shape) float32 on the CPU, each drawn from the law of the data regardless of the others: of
        finite data, with replacement."""
        return self.batch(int(torch.randint(2**62, (), generator=rng)), 0, n, "cpu")[0]

    def reference_moments(self, A: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Mean (q,) and covariance (q, q), exact and float64, of A·x, where A (q, d) maps the flattened x, or of x
        itself; None where not known."""
        return None

    def preflight(self) -> list[str]:
        """What is missing before this data set can be used; empty if it is ready."""
        return []


class Passes:
    """Sampling without replacement, pass after pass over n items.

    Row j of step i stands at position p = i·B + j of an endless sequence: pass p // n, place p % n, and each
    pass has its own permutation. So after any k·n rows every item was seen exactly k times, batches never
    come short, and where a step begins needs no state.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._permutation = lru_cache(maxsize=_PASSES_KEPT)(self._draw_permutation)

    def _draw_permutation(self, seed: int, index: int) -> Tensor:
        return torch.randperm(self.n, generator=generator(seed, "data", index))

    def indices(self, seed: int, step: int, batch_size: int) -> Tensor:
        """The items (B,) int64 of training step ``step``."""
        first, stop = step * batch_size, (step + 1) * batch_size
        pieces = []
        for index in range(first // self.n, (stop - 1) // self.n + 1):
            start = index * self.n
            pieces.append(self._permutation(seed, index)[max(first - start, 0) : stop - start])
        return torch.cat(pieces)
