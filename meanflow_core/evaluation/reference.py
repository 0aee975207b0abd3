"""What samples are compared with: reference data, its features and statistics, computed once a process."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from meanflow_core.components import FeatureSpace, LatentsParams
from meanflow_core.components.facts import COARSE, REFERENCE_DRAWS, Facts
from meanflow_core.config import Protocol
from meanflow_core.data.base import DataSet
from meanflow_core.data.layout import data_root
from meanflow_core.evaluation import inception
from meanflow_core.registry import Spec, asked, parse_spec

if TYPE_CHECKING:
    from meanflow_core.evaluation.fidelity import Statistics, Sums

_KEPT = 8


def cache_key(spec: Spec) -> str:
    """A hashable name of a data set: its parameters, and the folder where data sets of that name are looked for."""
    return json.dumps([spec.dump(), str(data_root().absolute())], sort_keys=True)


def _spec_of(key: str) -> Spec:
    return parse_spec("data", json.loads(key)[0])


@lru_cache(_KEPT)
def data_of(key: str) -> DataSet:
    """The data set named by :func:`cache_key`."""
    data: DataSet = _spec_of(key).build()
    return data


def coarse(x: Tensor) -> Tensor:
    """Block means (N, C·4·4) float32 of images x (N, C, H, W), whose sides are multiples of 4, on a grid of 4×4."""
    return adaptive_avg_pool2d(x.float(), COARSE).flatten(1)


def coarse_map(shape: tuple[int, ...]) -> Tensor:
    """A (C·4·4, C·H·W) float64 with coarse(x) = A·x: exact moments of x give those of its features."""
    C, H, W = shape
    places = torch.eye(H * W, dtype=torch.float64).view(-1, 1, H, W)
    block_means = adaptive_avg_pool2d(places, COARSE).flatten(1).T.contiguous()
    return torch.kron(torch.eye(C, dtype=torch.float64), block_means)


def problems_with(protocol: Protocol) -> list[str]:
    """Why a protocol can never be measured on its data: what its metric's parameters say of them."""
    params, spec = protocol.metric.params, protocol.reference
    found: list[str] = asked(
        params, params.problems_with, protocol, Facts.of_data(spec.short, data_of(cache_key(spec)))
    )
    return found


def extract(space: FeatureSpace, x: Tensor, key: str, device: torch.device | str = "cpu") -> Tensor:
    """Features (N, d) float32, on the CPU, of samples x (N, *shape) of the data set ``key``."""
    if space == "pixel":
        return x.flatten(1).float()
    if space == "coarse":
        return coarse(x)
    if space == "inception":
        params = _spec_of(key).params
        assert isinstance(params, LatentsParams)  # missing_assets has said so
        return inception.features(x, params, device)
    from meanflow_core.evaluation.fidelity import digits_features

    return digits_features(x)


@lru_cache(_KEPT)
def reference_features(key: str, space: FeatureSpace) -> Tensor:
    """Features (N, d) of all of a small finite data set, else of 50 000 fixed draws."""
    return extract(space, data_of(key).reference_samples(REFERENCE_DRAWS), key)


@lru_cache(_KEPT)
def reference_statistics(key: str, space: FeatureSpace, sums: Sums = "float32") -> Statistics:
    """Mean and covariance of the reference's features: exact or published ones if any, else estimated."""
    from meanflow_core.evaluation.fidelity import Statistics

    moments = _known_moments(key, space)
    if moments is not None:
        return Statistics.of_moments(*moments, sums)
    return Statistics.of_features(reference_features(key, space), sums)


def _known_moments(key: str, space: FeatureSpace) -> tuple[Tensor, Tensor] | None:
    if space == "pixel":
        return data_of(key).reference_moments()
    if space == "coarse":
        return data_of(key).reference_moments(coarse_map(data_of(key).shape))
    if space == "inception":
        params = _spec_of(key).params
        assert isinstance(params, LatentsParams)
        return inception.reference_moments(params)
    return None
