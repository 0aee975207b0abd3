"""Parameters of the data sets."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from meanflow_core.registry import Params, register


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
