"""Shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    """torch on one thread, since results are bitwise equal only for an equal number of threads; and tests that draw
    from the global generator draw the same every time, in whatever order they run."""
    import torch

    before = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
