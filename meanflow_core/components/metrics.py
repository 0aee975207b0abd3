"""Parameters of the metrics."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from meanflow_core.components.facts import COARSE, DIGITS_SHAPE, MOST_DIMENSIONS, Facts
from meanflow_core.components.guidance import Guidance
from meanflow_core.components.intervals import GapRange, Interval
from meanflow_core.registry import Params, register

FeatureSpace = Literal["pixel", "digits_cnn", "coarse", "inception"]


def _no_features(space: FeatureSpace, data: Facts, latents: bool) -> list[str]:
    """Why samples of some data have no features of this kind."""
    if space == "inception":
        said = f"inception features are for decoded latents; the data '{data.name}' is none: use 'digits_cnn'"
        return [] if latents else [said]
    shape = data.shape
    if shape is None or space == "pixel":
        return []
    if space == "digits_cnn" and shape != DIGITS_SHAPE:
        said = f"digits_cnn takes images of shape {DIGITS_SHAPE}; the data '{data.name}' has {shape}: use 'pixel'"
        return [said]
    if space == "coarse" and (len(shape) != 3 or shape[1] % COARSE or shape[2] % COARSE):
        return [
            f"coarse features are block means of images (C, H, W) whose sides are multiples of {COARSE}; the data "
            f"'{data.name}' has {shape}: use 'pixel'"
        ]
    return []


def _statistics_damage(space: FeatureSpace, reference: Any) -> list[str]:
    """What is wrong with the published statistics of these features, where this machine has them."""
    from meanflow_core.data.latentfiles import folder_of, reference_problems

    if space != "inception" or reference.name != "latents":
        return []
    folder = folder_of(reference.params.dataset)
    return [] if folder is None else list(reference_problems(folder))


def _no_fields(data: Facts) -> list[str]:
    """Why data cannot be compared with exact fields."""
    if data.fields is not False:
        return []
    return [f"the exact fields of the data '{data.name}' are not known; use 'gmm_multi' or others whose are"]


@register("metric", "frechet", version=1, impl="meanflow_core.evaluation.distances:Frechet")
class FrechetParams(Params):
    """Fréchet distance between Gaussians fitted to features of samples and of the data (FID in that space).

    ``sums`` is what the means are summed in. In float32 they are off by some 1e-5 relative at 50,000 samples, which
    small distances show in their fifth digit; it stays the default, so that what was measured keeps its key.
    """

    distance: ClassVar[bool] = True

    features: FeatureSpace = "digits_cnn"
    # Left out of what is written where it is the default, so that no configuration becomes another by it.
    sums: Literal["float32", "float64"] = Field(default="float32", exclude_if=lambda sums: sums == "float32")

    def needs_check(self) -> bool:
        return self.features != "pixel"

    def problems_with(self, protocol: Any, data: Facts) -> list[str]:
        found = [f"a covariance needs at least 2 samples, not {protocol.samples}"] if protocol.samples < 2 else []
        if data.size == 1:
            found.append(f"a covariance needs at least 2 samples, and the data '{data.name}' has one")
        size = math.prod(data.shape) if data.shape and self.features == "pixel" else 0
        if size > MOST_DIMENSIONS:
            found.append(
                f"a Fréchet distance in pixel space of the data '{data.name}' takes matrices of {size} × {size} "
                f"({8 * size**2 / 2**30:,.0f} GiB each), and {MOST_DIMENSIONS} is the limit: use the features "
                "'coarse', or the metric 'kid'"
            )
        return found + _no_features(self.features, data, protocol.reference.name == "latents")

    def reference_damage(self, reference: Any) -> list[str]:
        return _statistics_damage(self.features, reference)

    def label(self, name: str) -> str:
        return f"{name}_{self.features}"


@register("metric", "kid", version=1, impl="meanflow_core.evaluation.distances:KID")
class KIDParams(Params):
    """Kernel distance (polynomial MMD²) on features, mean over random subsets."""

    distance: ClassVar[bool] = True

    features: FeatureSpace = "digits_cnn"
    subsets: PositiveInt = 50
    subset_size: PositiveInt = 1000

    def needs_check(self) -> bool:
        return True

    def problems_with(self, protocol: Any, data: Facts) -> list[str]:
        size, rows, found = self.subset_size, data.reference_rows(), []
        if protocol.samples < size:
            found.append(f"KID in subsets of {size} needs as many samples, not {protocol.samples}")
        if rows is not None and rows < size:
            found.append(f"KID in subsets of {size} needs as many to compare with; the data '{data.name}' gives {rows}")
        if size < 2:
            found.append("KID is of pairs: subset_size must be at least 2")
        return found + _no_features(self.features, data, protocol.reference.name == "latents")

    def reference_damage(self, reference: Any) -> list[str]:
        return _statistics_damage(self.features, reference)

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

    asks_network: ClassVar[bool] = True

    guidance: Guidance | None = None

    def needs_check(self) -> bool:
        return True

    def problems_with(self, protocol: Any, data: Facts) -> list[str]:
        if data.fields is not False and self.guidance is not None and data.labelled is False:
            return [f"a guided field needs classes, and the data '{data.name}' has none"]
        return _no_fields(data)


@register("metric", "u_error", version=1, impl="meanflow_core.evaluation.truth:UError")
class UErrorParams(Interval):
    """Relative error of u_θ(z, r, t) against the exact u, with Δt uniform in [lo, hi] and t uniform in [Δt, 1].

    With ``guidance`` against the mean of the guided v along its own flow; for conditional networks.
    """

    asks_network: ClassVar[bool] = True

    lo: float = Field(default=1.0, gt=0.0, le=1.0)
    hi: float = Field(default=1.0, gt=0.0, le=1.0)
    guidance: Guidance | None = None

    def needs_check(self) -> bool:
        return True

    def problems_with(self, protocol: Any, data: Facts) -> list[str]:
        if data.fields is not False and self.guidance is not None and data.labelled is False:
            return [f"a guided field needs classes, and the data '{data.name}' has none"]
        return _no_fields(data)

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

    def problems_with(self, protocol: Any, data: Facts) -> list[str]:
        return _no_fields(data) if self.quantity == "exact" else []

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

    def problems_with(self, protocol: Any, data: Facts) -> list[str]:
        if data.shape is None or len(data.shape) == 3:
            return []
        return [f"images are of shape (channels, height, width); the data '{data.name}' has {data.shape}"]
