"""Parameters of the objective, the times and the optimiser."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from meanflow_core.registry import Params, register


@register("objective", "meanflow", version=1, impl="meanflow_core.objectives:build")
class MeanFlowParams(Params):
    """MeanFlow's regression (Eqs 3–5) with the adaptive weight of Eq. 7: sg(1 / (‖e‖² + c)^p)."""

    adaptive_p: float = Field(default=1.0, ge=0.0)
    adaptive_c: PositiveFloat = 0.01


@register("time_sampler", "logit_normal", version=1, impl="meanflow_core.times:logit_normal")
class LogitNormalParams(Params):
    """Two independent logit-normal times, sorted so that t ≥ r."""

    mean: float = -0.4
    std: PositiveFloat = 1.0


@register("time_sampler", "uniform", version=1, impl="meanflow_core.times:uniform")
class UniformParams(Params):
    """Two independent uniform times, sorted so that t ≥ r."""


@register("optimiser", "adam", version=1, impl="meanflow_core.optim:build")
class AdamParams(Params):
    """Adam at a constant learning rate, after an optional linear warm-up; optional clipping of the gradient norm."""

    lr: PositiveFloat = 1e-4
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.95, ge=0.0, lt=1.0)
    eps: PositiveFloat = 1e-8
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: PositiveFloat | None = None
