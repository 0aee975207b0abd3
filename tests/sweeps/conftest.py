"""Homes made by the real command line, and a real Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from results.layout import Home
from tests.homes import copy, long, micro, micro_long, tiny
from tests.slurm import accounting, cluster, slurm, two_nodes

__all__ = ["accounting", "cluster", "copy", "long", "micro", "micro_long", "ray_address", "slurm", "tiny", "two_nodes"]


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a Ray of 2 CPUs listens, on loopback, as long as this test process lives; the process has joined it."""
    from sweeps.ray_cluster import own_ray

    with own_ray(Home(tmp_path_factory.mktemp("ray")), 2) as address:
        yield address
