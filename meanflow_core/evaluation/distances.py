"""Distances between samples and data in a feature space."""

from __future__ import annotations

from meanflow_core.components import FeatureSpace, FrechetParams, KIDParams
from meanflow_core.config import Protocol
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.inception import missing_assets
from meanflow_core.evaluation.reference import (
    cache_key,
    data_of,
    problems_with,
    reference_features,
    reference_statistics,
)
from meanflow_core.registry import BuildContext


class Frechet:
    """Fréchet distance between Gaussians fitted to the features of samples and of the data.

    Finitely many samples raise it above 0 even for a perfect network: compare equal sample counts only.
    """

    def __init__(self, params: FrechetParams, ctx: BuildContext) -> None:
        self.space, self.sums = params.features, params.sums

    def preflight(self, protocol: Protocol) -> list[str]:
        return problems_with(protocol) + missing_for(self.space, protocol)

    def compute(self, context: EvaluationContext, protocol: Protocol) -> float:
        _refuse(self.preflight(protocol))
        from meanflow_core.evaluation.fidelity import Statistics, frechet

        found = Statistics.of_features(context.features(protocol, self.space), self.sums)
        return frechet(found, reference_statistics(cache_key(protocol.reference), self.space, self.sums))


class KID:
    """Kernel distance (polynomial MMD²) on features, mean over random subsets; unbiased, about 0 at best."""

    def __init__(self, params: KIDParams, ctx: BuildContext) -> None:
        self.params = params

    def preflight(self, protocol: Protocol) -> list[str]:
        return problems_with(protocol) + missing_for(self.params.features, protocol)

    def compute(self, context: EvaluationContext, protocol: Protocol) -> float:
        _refuse(self.preflight(protocol))
        from meanflow_core.evaluation.fidelity import kid

        reference = reference_features(cache_key(protocol.reference), self.params.features)
        features = context.features(protocol, self.params.features)
        return kid(features, reference, self.params.subsets, self.params.subset_size)


def missing_for(space: FeatureSpace, protocol: Protocol) -> list[str]:
    """The files that are missing to measure in a feature space."""
    missing = data_of(cache_key(protocol.reference)).preflight()
    return missing + (missing_assets(protocol.reference) if space == "inception" else [])


def _refuse(missing: list[str]) -> None:
    if missing:
        raise EvaluationError("; ".join(missing))
