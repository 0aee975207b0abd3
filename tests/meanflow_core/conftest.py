"""Components that exist only while a test runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.meanflow_core import NETWORKS, make_network, registered
from tests.meanflow_core.trainers import PaceParams


@pytest.fixture
def pace() -> Iterator[None]:
    """The transform `Pace`, registered."""
    with registered("transform", "pace", PaceParams, "tests.meanflow_core.trainers:Pace"):
        yield


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Any:
    """Every built-in network, in float64 with random weights."""
    return make_network(request.param)
