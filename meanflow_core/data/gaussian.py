"""One isotropic Gaussian: every field in closed form, for checks."""

from __future__ import annotations

import torch

from meanflow_core.components import GaussianParams
from meanflow_core.data.exact import ExactFields
from meanflow_core.data.gmm import ExactDataSet
from meanflow_core.registry import BuildContext


def build(params: GaussianParams, ctx: BuildContext) -> ExactDataSet:
    """x ~ N(mean·1, std²·I) of shape (dim,), without classes."""
    mean = torch.full((1, params.dim), params.mean, dtype=torch.float64)
    covariance = params.std**2 * torch.eye(params.dim, dtype=torch.float64)[None]
    return ExactDataSet(ExactFields(torch.ones(1), mean, covariance, (params.dim,)), num_classes=None)
