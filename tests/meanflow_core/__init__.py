"""Tests of the training core, and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from meanflow_core.config import Dynamics
from meanflow_core.registry import Params, parse_spec, register, unregister

MLP: dict[str, Any] = {"name": "mlp", "width": 16, "depth": 2, "embed_dim": 8}
DIT: dict[str, Any] = {"name": "dit", "size": "nano/4", "embed_dim": 16}
NETWORKS = {"mlp": MLP, "dit": DIT}
SHAPE, CLASSES = (1, 8, 8), 10


def randomise(network: nn.Module, seed: int = 1) -> nn.Module:
    """Give every weight, adaLN's zeros included, a value of natural size, so that no path is gated off."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            size = 0.5 if p.ndim == 1 else p.shape[-1] ** -0.5
            p.copy_(torch.randn(p.shape, generator=rng, dtype=torch.float64) * size)
    return network


def make_network(
    name: str, shape: tuple[int, ...] = SHAPE, classes: int | None = CLASSES, dtype: torch.dtype = torch.float64
) -> nn.Module:
    """A small network with random weights."""
    built: nn.Module = parse_spec("network", NETWORKS[name]).build(shape=shape, num_classes=classes)
    return randomise(built).to(dtype)


def make_inputs(
    n: int, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float64, seed: int = 2
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """z, r < t, y and a tangent v of z."""
    rng = torch.Generator().manual_seed(seed)
    z, v = torch.randn(2, n, *shape, generator=rng, dtype=dtype)
    r, t = torch.rand(2, n, generator=rng, dtype=dtype).sort(0).values
    return z, r, t, torch.randint(CLASSES, (n,), generator=rng), v


def dynamics(**changes: Any) -> Dynamics:
    """A small network on the digits."""
    given: dict[str, Any] = {
        "network": MLP,
        "data": "digits",
        "batch_size": 16,
        "ema_decay": 0.9,
        "optimiser": {"name": "adam", "lr": 2e-3},
    }
    return Dynamics.model_validate({**given, **changes})


@contextmanager
def registered(kind: str, name: str, params: type[Params], impl: str, **options: Any) -> Iterator[None]:
    """A component that lives as long as the block."""
    register(kind, name, impl=impl, **{"version": 1, **options})(params)
    try:
        yield
    finally:
        unregister(kind, name)
