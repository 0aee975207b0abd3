"""One network under measurement, and what several protocols on it share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from meanflow_core.components import FeatureSpace
from meanflow_core.config import Protocol
from meanflow_core.data.base import DataSet
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.reference import cache_key, extract
from meanflow_core.precision import float32_products
from meanflow_core.samplers import Network, Solver, in_batches, sample
from meanflow_core.seeding import generator


class Draw(NamedTuple):
    """The part of a protocol that decides the samples."""

    samples: int
    nfe: int
    solver: Solver
    seed: int
    precision: str = "fp32"


class EvaluationContext:
    """A network with the weights to be measured, its training data, and its samples and features so far.

    Latents and labels come from the protocol's seed alone and are drawn on the CPU, so they are the same for
    every arm, checkpoint and device. Labels are given to networks with a true attribute ``conditional`` only.
    """

    def __init__(self, network: Network, dataset: DataSet, device: torch.device | str = "cpu") -> None:
        """``network`` must be on ``device`` already."""
        self.network = network
        self.dataset = dataset
        self.device = device
        self.conditional = bool(getattr(network, "conditional", False)) and dataset.num_classes is not None
        self._samples: dict[Draw, Tensor] = {}
        self._features: dict[tuple[Draw, FeatureSpace, str], Tensor] = {}

    def samples(self, protocol: Protocol) -> Tensor:
        """The protocol's samples x (N, *shape) float32, on the CPU; drawn once for all metrics that ask.

        Raises: EvaluationError if some are not finite.
        """
        return self.drawn(*_draw_of(protocol))

    def drawn(self, samples: int, nfe: int, solver: Solver, seed: int, precision: str = "fp32") -> Tensor:
        """The same by what decides the samples."""
        draw = Draw(samples, nfe, solver, seed, precision)
        if draw not in self._samples:
            self._samples[draw] = self._sample(draw)
        return self._samples[draw]

    def features(self, protocol: Protocol, space: FeatureSpace) -> Tensor:
        """Features (N, d) of the protocol's samples, on the CPU."""
        data = cache_key(protocol.reference)
        key = (_draw_of(protocol), space, data)
        if key not in self._features:
            self._features[key] = extract(space, self.samples(protocol), data, self.device)
        return self._features[key]

    @torch.no_grad()
    def predict(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """u(z, r, t, y) by the network, in batches, on the CPU. z (N, *shape); r, t and y (N,), y or None."""
        with _in_eval_mode(self.network):
            return in_batches(self.network, *(x if x is None else x.to(self.device) for x in (z, r, t, y))).cpu()

    def latents(self, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Noise z (n, *shape) float32, and labels y (n,) where they are given; on the CPU."""
        z = torch.randn(draw.samples, *self.dataset.shape, generator=generator(draw.seed, "eval-latents"))
        labels = generator(draw.seed, "eval-labels")
        return z, self.dataset.labels(draw.samples, labels) if self.conditional else None

    def finite(self, x: Tensor, draw: Draw) -> Tensor:
        """The samples x. Raises: EvaluationError if some are not finite."""
        bad = int((~x.flatten(1).isfinite().all(1)).sum())
        if bad:
            raise EvaluationError(f"{bad} of {draw.samples} samples are not finite ({draw.solver}, {draw.nfe} NFE)")
        return x

    def _sample(self, draw: Draw) -> Tensor:
        z, y = self.latents(draw)
        y = None if y is None else y.to(self.device)
        with _in_eval_mode(self.network), float32_products(tf32=draw.precision == "tf32"):
            x = sample(self.network, z.to(self.device), y, draw.nfe, draw.solver).cpu()
        return self.finite(x, draw)


def _draw_of(protocol: Protocol) -> Draw:
    return Draw(protocol.samples, protocol.nfe, protocol.solver, protocol.seed, protocol.precision)


@contextmanager
def _in_eval_mode(network: Network) -> Iterator[None]:
    """Dropout off, and the network's mode as it was afterwards. Plain functions have no mode."""
    if not isinstance(network, nn.Module) or not network.training:
        yield
        return
    network.eval()
    try:
        yield
    finally:
        network.train()
