"""Waiting that ends early, and that a signal ends whenever it comes."""

from __future__ import annotations

import time
from collections.abc import Callable

SLICE_S = 0.2


def rest(seconds: float, over: Callable[[], bool] = lambda: False) -> None:
    """Sleep so long, or until it is ``over``. In slices: a signal in the instant before a sleep begins does not cut
    that sleep short."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not over():
        time.sleep(min(SLICE_S, left))
