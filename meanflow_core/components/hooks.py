"""Parameters of the transforms and observers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from meanflow_core.components.intervals import GapRange
from meanflow_core.registry import Params, register


@register("transform", "gap_restriction", version=1, impl="meanflow_core.gaps:GapRestriction")
class GapRestrictionParams(GapRange):
    """Rescales the gap of every row that trains u into [lo, hi], keeping t (appendix A):
    Δt ← lo + (hi − lo)·Δt_raw, r ← t − Δt. Logs the fraction of draws with t < Δt as ``gap_out_of_range``.
    """


@register("transform", "target_corruption", version=1, impl="meanflow_core.corruption:TargetCorruption")
class TargetCorruptionParams(Params):
    """Adds Gaussian noise to the target of the v-loss alone (Sec. 4.1): v_t + k·‖v_t‖·ξ, ξ ~ N(0, I).

    Given as σ = ``relative_noise``, the expected size of the noise relative to ‖v_t‖. In d dimensions
    k·‖v_t‖·ξ has size k·√d·‖v_t‖, so the paper's k (``corruption_scale``) is σ/√d; its 0.03 at d = 4096 is σ = 1.92.
    """

    relative_noise: float = Field(ge=0.0)

    def is_identity(self) -> bool:
        return self.relative_noise == 0


@register("transform", "min_snr", version=1, impl="meanflow_core.min_snr:MinSNR")
class MinSNRParams(Params):
    """Min-SNR weight α(t) of the v-loss, after adaptive normalisation (Eq. 8), SNR = ((1 − t)/t)². Readings:

    - ``v_prediction``: min(SNR, γ) / (SNR + 1), as for the v-prediction of diffusion models;
    - ``flow_matching``: t²·min(SNR, γ) = min((1 − t)², γt²), the same clamp of the data's error, derived for v = ε − x.

    ``normalise`` divides by E[α(t)] over the times that train v, so that the v-loss keeps its share.
    """

    gamma: PositiveFloat = 5.0
    reading: Literal["v_prediction", "flow_matching"] = "v_prediction"
    normalise: bool = False


@register("transform", "dtd", version=1, impl="meanflow_core.curriculum:DTD")
class DTDParams(Params):
    """Curriculum over t (denoising task difficulty; Eq. 9): stage n of N = ``clusters`` trains on t ≥ a_n, the n
    noisiest clusters of time. A stage ends once the raw v-loss has not improved for ``patience`` steps in a row; the
    last, a_N = 0, is ordinary training.

    ``spacing``: ``uniform`` clusters, a_n = 1 − n/N, or ``equal_mass`` ones, a_n = F⁻¹(1 − n/N), F the law of one draw.
    Logs ``dtd_stage`` and ``dtd_t_above``, also at the very step that ends a stage.
    """

    clusters: PositiveInt = 20
    patience: PositiveInt = 200
    spacing: Literal["uniform", "equal_mass"] = "uniform"

    def is_identity(self) -> bool:
        return self.clusters == 1

    def problem_in(self, dynamics: Any) -> str | None:
        return None if dynamics.v_rows else "'dtd' is paced by the v-loss, and with fm_ratio 0 there is none"


@register("transform", "progressive_weight", version=1, impl="meanflow_core.progressive:Progressive", uses_horizon=True)
class ProgressiveWeightParams(Params):
    """Progressive weight of the u-loss, after adaptive normalisation (Eqs 8, 9): β(Δt, s) = 1 − s + λ·s·(1 − Δt),
    λ = 1/E[1 − Δt] under the times in use, where E runs over ``lambda_over``: the rows that train u, or all rows of a
    batch, those with Δt = 0 among them. The paper does not say; λ is then smaller, and β below 1 on average.

    ``schedule``, with k = ``schedule_power``: ``falling``, s = 1 − (i/T)^k, as in Sec. 5 (k > 1 stays longer with small
    gaps); ``constant``, s = 1 throughout; ``rising``, s = (i/T)^k, the reverse. Logs ``schedule_s``.
    """

    schedule_power: PositiveFloat = 1.0
    schedule: Literal["falling", "constant", "rising"] = "falling"
    lambda_over: Literal["u_rows", "all_rows"] = Field(default="u_rows", exclude_if=lambda over: over == "u_rows")

    def reads_horizon(self) -> bool:
        return self.schedule != "constant"

    def problem_in(self, dynamics: Any) -> str | None:
        if any(spec.name == "gap_restriction" for spec in dynamics.transforms):
            return "'progressive_weight' takes λ from the time sampler, whose gaps 'gap_restriction' changes"
        return None


@register("observer", "grad_norm", version=1, impl="meanflow_core.hooks:GradNorm")
class GradNormParams(Params):
    """Logs the Euclidean norm of the whole gradient, before clipping."""
