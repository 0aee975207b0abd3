"""Components that exist only while a test runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.meanflow_core import registered
from tests.meanflow_core.trainers import PaceParams


@pytest.fixture
def pace() -> Iterator[None]:
    """The transform `Pace`, registered."""
    with registered("transform", "pace", PaceParams, "tests.meanflow_core.trainers:Pace"):
        yield
