"""Parameters of the built-in components (torch-free). Importing this package registers them.

Implementations are named by path and imported when built.
"""

from __future__ import annotations

from meanflow_core.components.data import (
    DigitsParams,
    GaussianParams,
    GMMMultiParams,
    GMMParams,
    LatentsParams,
    PaddedMixtureParams,
    StoredParams,
    SyntheticLatentsParams,
)
from meanflow_core.components.guidance import Guidance
from meanflow_core.components.hooks import (
    DTDParams,
    GapRestrictionParams,
    GradNormParams,
    MinSNRParams,
    ProgressiveWeightParams,
    TargetCorruptionParams,
)
from meanflow_core.components.intervals import GapRange, Interval, NegativeR
from meanflow_core.components.metrics import (
    TRUE_ERROR_POINTS,
    FeatureSpace,
    FrechetParams,
    ImagesParams,
    KIDParams,
    TaskAffinityParams,
    UErrorParams,
    VErrorParams,
)
from meanflow_core.components.networks import DIT_SIZES, DiTParams, MLPParams
from meanflow_core.components.program import Program, ProgramFile, ProgramNetworkParams, ReportedParams
from meanflow_core.components.training import AdamParams, LogitNormalParams, MeanFlowParams, UniformParams

__all__ = [
    "DIT_SIZES",
    "TRUE_ERROR_POINTS",
    "AdamParams",
    "DTDParams",
    "DiTParams",
    "DigitsParams",
    "FeatureSpace",
    "FrechetParams",
    "GMMMultiParams",
    "GMMParams",
    "GapRange",
    "GapRestrictionParams",
    "GaussianParams",
    "GradNormParams",
    "Guidance",
    "ImagesParams",
    "Interval",
    "KIDParams",
    "LatentsParams",
    "LogitNormalParams",
    "MLPParams",
    "MeanFlowParams",
    "MinSNRParams",
    "NegativeR",
    "PaddedMixtureParams",
    "Program",
    "ProgramFile",
    "ProgramNetworkParams",
    "ProgressiveWeightParams",
    "ReportedParams",
    "StoredParams",
    "SyntheticLatentsParams",
    "TargetCorruptionParams",
    "TaskAffinityParams",
    "UErrorParams",
    "UniformParams",
    "VErrorParams",
]
