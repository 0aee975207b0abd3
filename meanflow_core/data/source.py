"""Samples to be written as a data set. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from meanflow_core.arrays import Array

BATCH = 1024
EIGHT_BITS = 255


@dataclass(frozen=True)
class Source:
    """Samples to be written (`meanflow_core.data.layout.write`): ``batches()`` gives all n, in order; ``background`` is
    the colour upon which transparent pixels are laid."""

    batches: Callable[[], Iterator[Array]]
    n: int
    said: str
    labels: Array | None = None
    classes: tuple[str, ...] = ()
    levels: int | None = None
    background: str | None = None
