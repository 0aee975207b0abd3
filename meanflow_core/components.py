"""Parameters of the built-in components (torch-free). Implementations are named by path and imported when built."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from meanflow_core.registry import Params, register

# depth, width, heads, patch of the paper's DiTs, and two small ones for tests.
DIT_SIZES: dict[str, tuple[int, int, int, int]] = {
    "B/4": (12, 768, 12, 4),
    "B/2": (12, 768, 12, 2),
    "M/2": (16, 1024, 16, 2),
    "L/2": (24, 1024, 16, 2),
    "XL/2": (28, 1152, 16, 2),
    "nano/4": (2, 32, 2, 4),
    "nano/2": (2, 32, 2, 2),
}


@register("network", "dit", version=1, impl="meanflow_core.networks.dit:build")
class DiTParams(Params):
    """Diffusion transformer with adaLN-zero, conditioned on t, t − r and, where ``conditional``, a class label.

    ``size`` is a shorthand ("B/4") for depth, width, heads and patch; only the numbers enter the key.
    """

    depth: PositiveInt
    width: PositiveInt
    heads: PositiveInt
    patch: PositiveInt
    conditional: bool = True
    mlp_ratio: PositiveFloat = 4.0
    embed_dim: PositiveInt = 256
    max_frequency: PositiveFloat = 1.0
    max_period: PositiveFloat = 10_000.0

    @model_validator(mode="before")
    @classmethod
    def _expand_size(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "size" not in given:
            return given
        rest = {k: v for k, v in given.items() if k != "size"}
        if not isinstance(given["size"], str) or given["size"] not in DIT_SIZES:
            raise ValueError(f"unknown size '{given['size']}'; the sizes are {', '.join(DIT_SIZES)}")
        numbers = dict(zip(("depth", "width", "heads", "patch"), DIT_SIZES[given["size"]], strict=True))
        return {**numbers, **rest}

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of heads ({self.heads}) and of 4")
        return self


@register("network", "mlp", version=1, impl="meanflow_core.networks.mlp:build")
class MLPParams(Params):
    """Residual MLP with adaLN-zero for low-dimensional data.

    Its sinusoids stay below ``max_frequency`` rad: one-step training needs a network that is smooth in time.
    """

    width: PositiveInt = 128
    depth: PositiveInt = 3
    conditional: bool = True
    embed_dim: PositiveInt = 32
    max_frequency: PositiveFloat = 4.0
    max_period: PositiveFloat = 100.0


@register("data", "digits", version=1, impl="meanflow_core.data.digits:build")
class DigitsParams(Params):
    """scikit-learn's handwritten digits: 1797 images of 8×8, ten classes, scaled to [−1, 1], shape (1, 8, 8)."""


@register("data", "gmm", version=1, impl="meanflow_core.data.gmm:build")
class GMMParams(Params):
    """Class-wise Gaussian mixture fitted to the digits, whose v and u are known.

    One Gaussian a class; covariance shrunk towards its mean variance by ``shrinkage`` so that it has full rank.
    """

    shrinkage: float = Field(default=0.05, ge=0.0, le=1.0)


@register("data", "gaussian", version=1, impl="meanflow_core.data.gaussian:build")
class GaussianParams(Params):
    """One isotropic Gaussian N(mean, std²) in ``dim`` dimensions: every field in closed form. For checks."""

    dim: PositiveInt = 1
    mean: float = 1.0
    std: PositiveFloat = 0.5


@register("data", "latents", version=1, impl="meanflow_core.data.latents:build")
class LatentsParams(Params):
    """Pre-encoded VAE moments on disk (memory-mapped), resampled at every step and scaled.

    ``dataset`` is the folder under the data root; ``fingerprint`` (sha256 of meta.json), where given, is enforced.
    """

    dataset: str = "imagenet256"
    channels: PositiveInt = 4
    side: PositiveInt = 32
    classes: PositiveInt = 1000
    scale: PositiveFloat = 0.18215
    fingerprint: str | None = None

    def needs_check(self) -> bool:
        return True


@register("data", "synthetic_latents", version=1, impl="meanflow_core.data.synthetic:build")
class SyntheticLatentsParams(Params):
    """Gaussian mixture in the dimension of the paper's latents, made of smooth patterns, whose v and u are known.

    One Gaussian a class, and no labels where classes = 1. Covariances are white but for the lowest ``modes``×``modes``
    cosine modes of each channel: of rank channels·modes² beyond white. All patterns follow from ``pattern_seed``.
    """

    channels: PositiveInt = 4
    side: PositiveInt = 32
    classes: PositiveInt = 10
    modes: PositiveInt = 4
    pattern_seed: int = 0

    @model_validator(mode="after")
    def _modes_fit(self) -> Self:
        if self.modes > self.side:
            raise ValueError(f"{self.modes} modes an axis do not fit a side of {self.side}")
        return self


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


@register("observer", "grad_norm", version=1, impl="meanflow_core.hooks:GradNorm")
class GradNormParams(Params):
    """Logs the Euclidean norm of the whole gradient, before clipping."""


NegativeR = Literal["clamp", "resample_t", "allow_negative"]


class Interval(Params):
    """An interval [lo, hi] of times or gaps."""

    lo: float
    hi: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lo > self.hi:
            raise ValueError(f"lo ({self.lo}) must not exceed hi ({self.hi})")
        return self


class GapRange(Interval):
    """A range [lo, hi] of gaps Δt = t − r, and what to do where the rescaled gap would give r = t − Δt < 0:

    - ``allow_negative``: nothing; r < 0 continues the path beyond the data. The letter of appendix A.
    - ``clamp``: r = 0, so that Δt = t falls below the range.
    - ``resample_t``: t is drawn again from the sampler's law of t given t ≥ Δt, so that r ≥ 0.
    """

    lo: float = Field(ge=0.0, le=1.0)
    hi: float = Field(ge=0.0, le=1.0)
    negative_r: NegativeR = "allow_negative"


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
    λ = 1/E[1 − Δt] under the times in use.

    ``schedule``, with k = ``schedule_power``: ``falling``, s = 1 − (i/T)^k, as in Sec. 5 (k > 1 stays longer with small
    gaps); ``constant``, s = 1 throughout; ``rising``, s = (i/T)^k, the reverse. Logs ``schedule_s``.
    """

    schedule_power: PositiveFloat = 1.0
    schedule: Literal["falling", "constant", "rising"] = "falling"

    def reads_horizon(self) -> bool:
        return self.schedule != "constant"

    def problem_in(self, dynamics: Any) -> str | None:
        if any(spec.name == "gap_restriction" for spec in dynamics.transforms):
            return "'progressive_weight' takes λ from the time sampler, whose gaps 'gap_restriction' changes"
        return None


class Guidance(Interval):
    """Classifier-free guidance inside the target: v_g = ω·v + κ·u(z,t,t|y) + (1−ω−κ)·u(z,t,t|∅) for t in [lo, hi].

    ω is the value as it stands in the loss, given as ``cfg_omega``; or else the effective guidance ω′ = ω / (1 − κ) is
    given, as ``effective_omega``. Never both: papers call either of them ω.
    """

    cfg_omega: float = Field(gt=0.0)
    cfg_kappa: float = Field(ge=0.0, lt=1.0)
    lo: float = Field(default=0.0, ge=0.0, le=1.0)
    hi: float = Field(default=1.0, ge=0.0, le=1.0)

    @model_validator(mode="before")
    @classmethod
    def _one_omega(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = {name: value for name, value in given.items() if value is not None}
        if ("effective_omega" in known) == ("cfg_omega" in known):
            raise ValueError("give cfg_omega (as it stands in the loss) or effective_omega = ω/(1 − κ), one of the two")
        if "cfg_omega" in known:
            return known
        kappa, effective = known.get("cfg_kappa"), known.pop("effective_omega")
        if not isinstance(kappa, int | float) or not isinstance(effective, int | float):
            raise ValueError("effective_omega needs a number, and cfg_kappa beside it")
        return {**known, "cfg_omega": round(effective * (1 - kappa), 12)}  # 2.5 · (1 − 0.92) is 0.2 in keys, too

    @property
    def effective_omega(self) -> float:
        """ω′ = ω / (1 − κ)."""
        return self.cfg_omega / (1 - self.cfg_kappa)

    @property
    def null_share(self) -> float:
        """1 − ω − κ, the weight of the network without a label; 0 where it is 0 but for rounding."""
        return round(1 - self.cfg_omega - self.cfg_kappa, 12)


FeatureSpace = Literal["pixel", "digits_cnn", "coarse", "inception"]


@register("metric", "frechet", version=1, impl="meanflow_core.evaluation.distances:Frechet")
class FrechetParams(Params):
    """Fréchet distance between Gaussians fitted to features of samples and of the data (FID in that space)."""

    features: FeatureSpace = "digits_cnn"

    def needs_check(self) -> bool:
        return self.features != "pixel"

    def label(self, name: str) -> str:
        return f"{name}_{self.features}"


@register("metric", "kid", version=1, impl="meanflow_core.evaluation.distances:KID")
class KIDParams(Params):
    """Kernel distance (polynomial MMD²) on features, mean over random subsets."""

    features: FeatureSpace = "digits_cnn"
    subsets: PositiveInt = 50
    subset_size: PositiveInt = 1000

    def needs_check(self) -> bool:
        return True

    def label(self, name: str) -> str:
        return f"{name}_{self.features}"


# A true error is measured at as many points as a protocol has samples, but at no more than this. All arms are measured
# at the same points, so their choice cancels in paired differences; integrating the marginal u takes seconds for them.
TRUE_ERROR_POINTS = 2048


@register("metric", "v_error", version=1, impl="meanflow_core.evaluation.truth:VError")
class VErrorParams(Params):
    """Relative error of v = u_θ(z, t, t) against the data set's exact v: √(Σ‖v_θ − v‖² / Σ‖v‖²), t uniform.

    With ``guidance`` against the field that training with it has as its fixed point; for conditional networks. Points
    of a stage that trains with guidance get it from there (`Protocol.of`), under the same label.
    """

    guidance: Guidance | None = None

    def needs_check(self) -> bool:
        return True


@register("metric", "u_error", version=1, impl="meanflow_core.evaluation.truth:UError")
class UErrorParams(Interval):
    """Relative error of u_θ(z, r, t) against the exact u, with Δt uniform in [lo, hi] and t uniform in [Δt, 1].

    With ``guidance`` against the mean of the guided v along its own flow; for conditional networks.
    """

    lo: float = Field(default=1.0, gt=0.0, le=1.0)
    hi: float = Field(default=1.0, gt=0.0, le=1.0)
    guidance: Guidance | None = None

    def needs_check(self) -> bool:
        return True

    def label(self, name: str) -> str:
        return f"{name}[{self.lo:g},{self.hi:g}]"


@register("metric", "task_affinity", version=1, impl="meanflow_core.affinity:TaskAffinity")
class TaskAffinityParams(GapRange):
    """Task affinity (Sec. 4.3): cosine between the gradients of the v-loss and of the u-loss with Δt in [lo, hi], at
    the weights in training. The protocol's ``samples`` is the number N of points, drawn anew at every step measured.

    ``quantity`` says which number:

    - ``mean_gradient``: cosine of the two mean gradients over N points, averaged over two independent sets of N;
    - ``per_sample``: mean over points of the cosine of a point's two gradients (the other reading of appendix A; slow);
    - ``ceiling``: √(ρ_v·ρ_u), ρ the cosine of one loss's gradients on the two sets: what ``mean_gradient`` could
      reach with gradients this noisy, were the two tasks one;
    - ``exact``: as ``mean_gradient``, with the exact v and u as targets instead of sampled ones.
    """

    observed: ClassVar[bool] = True

    quantity: Literal["mean_gradient", "per_sample", "ceiling", "exact"] = "mean_gradient"

    def needs_check(self) -> bool:
        return self.quantity == "exact"

    def label(self, name: str) -> str:
        quantity = "" if self.quantity == "mean_gradient" else f"_{self.quantity}"
        handling = "" if self.negative_r == "allow_negative" else f"_{self.negative_r}"
        return f"{name}{quantity}{handling}[{self.lo:g},{self.hi:g}]"


@register("metric", "images", version=1, impl="meanflow_core.evaluation.images:Images")
class ImagesParams(Params):
    """The protocol's samples as pictures, kept beside the evaluation; its value is their contrast, the standard
    deviation over all pixels (of 0 … 255).

    Latents are decoded. Of other data, values from −``span`` to ``span`` become 0 … 255; what has neither one nor three
    channels is shown by its first, in grey.
    """

    pictures: ClassVar[bool] = True

    span: PositiveFloat = 1.0

    def needs_check(self) -> bool:
        return True
