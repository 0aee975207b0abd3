"""Parameters of the data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from meanflow_core.registry import Params, register

if TYPE_CHECKING:
    from meanflow_core.data.layout import Meta


def quoted(fingerprint: Any) -> Any:
    """A fingerprint as given. Raises: ValueError for one that YAML has read as a number, such as 123e45."""
    if isinstance(fingerprint, int | float):
        raise ValueError(f"YAML reads this as the number {fingerprint}: put the fingerprint in quotes")
    return fingerprint


@register("data", "digits", version=1, impl="meanflow_core.data.digits:build")
class DigitsParams(Params):
    """scikit-learn's handwritten digits: 1797 images of 8×8, ten classes, scaled to [−1, 1], shape (1, 8, 8)."""

    def sample_shape(self) -> tuple[int, ...]:
        return (1, 8, 8)

    def class_count(self) -> int:
        return 10

    def sample_count(self) -> int:
        return 1797

    def knows_fields(self) -> bool:
        return False


@register("data", "stored", version=1, impl="meanflow_core.data.stored:build")
class StoredParams(Params):
    """What `study data add` wrote under the name ``dataset``; ``fingerprint`` says that it is still the same."""

    dataset: str
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{20}$"), BeforeValidator(quoted)]

    def needs_check(self) -> bool:
        return True

    def sample_shape(self) -> tuple[int, ...] | None:
        meta = self._meta()
        return tuple(meta.shape) if meta else None

    def class_count(self) -> int | None:
        meta = self._meta()
        return (len(meta.classes) or None) if meta else None

    def damage(self) -> list[str]:
        from meanflow_core.data.layout import LayoutError, folder_of, problems

        try:
            return problems(self.dataset, self.fingerprint) if folder_of(self.dataset).exists() else []
        except LayoutError as error:
            return [str(error)]

    def sample_count(self) -> int | None:
        meta = self._meta()
        return meta.n if meta else None

    def knows_fields(self) -> bool:
        return False

    def _meta(self) -> Meta | None:
        """What stands on this machine, which may have no copy, or another."""
        from meanflow_core.data.layout import LayoutError, read_meta

        try:
            meta, found = read_meta(self.dataset)
        except LayoutError:
            return None
        return meta if found == self.fingerprint else None


@register("data", "gmm", version=1, impl="meanflow_core.data.gmm:build")
class GMMParams(Params):
    """Class-wise Gaussian mixture fitted to the digits, whose v and u are known.

    One Gaussian a class; covariance shrunk towards its mean variance by ``shrinkage`` so that it has full rank.
    """

    shrinkage: float = Field(default=0.05, ge=0.0, le=1.0)

    def knows_fields(self) -> bool:
        return True

    def sample_shape(self) -> tuple[int, ...]:
        return (1, 8, 8)

    def class_count(self) -> int:
        return 10


@register("data", "gmm_multi", version=1, impl="meanflow_core.data.mixtures:build_gmm_multi")
class GMMMultiParams(Params):
    """A mixture of ``components`` Gaussians a class, fitted to four fifths of the digits, whose v and u are known.

    The components of a class are found by k-means; their covariances are moved towards the class's pooled one by
    ``pooling``, then towards their mean variance by ``shrinkage``.
    """

    components: PositiveInt = 4
    pooling: float = Field(default=0.5, ge=0.0, le=1.0)
    shrinkage: float = Field(default=0.05, ge=0.0, le=1.0)

    def knows_fields(self) -> bool:
        return True

    def sample_shape(self) -> tuple[int, ...]:
        return (1, 8, 8)

    def class_count(self) -> int:
        return 10


@register("data", "padded_mixture", version=1, impl="meanflow_core.data.mixtures:build_padded")
class PaddedMixtureParams(Params):
    """A mixture of ``components`` Gaussians a class in a plane, padded with white noise to ``dim`` dimensions, whose v
    and u are known: the same problem in every dimension.

    No labels where classes = 1. The plane's pattern follows from ``pattern_seed``.
    """

    dim: int = Field(default=2, ge=2)
    classes: PositiveInt = 4
    components: PositiveInt = 4
    pattern_seed: int = 0

    def knows_fields(self) -> bool:
        return True

    def sample_shape(self) -> tuple[int, ...]:
        return (self.dim,)

    def class_count(self) -> int | None:
        return self.classes if self.classes > 1 else None


@register("data", "gaussian", version=1, impl="meanflow_core.data.gaussian:build")
class GaussianParams(Params):
    """One isotropic Gaussian N(mean, std²) in ``dim`` dimensions: every field in closed form. For checks."""

    dim: PositiveInt = 1
    mean: float = 1.0
    std: PositiveFloat = 0.5

    def knows_fields(self) -> bool:
        return True

    def sample_shape(self) -> tuple[int, ...]:
        return (self.dim,)


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
    fingerprint: Annotated[str | None, BeforeValidator(quoted)] = None

    def knows_fields(self) -> bool:
        return False

    def needs_check(self) -> bool:
        return True

    def sample_shape(self) -> tuple[int, ...]:
        return (self.channels, self.side, self.side)

    def class_count(self) -> int | None:
        return self.classes if self.classes > 1 else None

    def damage(self) -> list[str]:
        from meanflow_core.data.latentfiles import are_latents, folder_of, problems

        folder = folder_of(self.dataset)
        return problems(folder, self) if folder is not None and are_latents(folder) else []


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

    def knows_fields(self) -> bool:
        return True

    def sample_shape(self) -> tuple[int, ...]:
        return (self.channels, self.side, self.side)

    def class_count(self) -> int | None:
        return self.classes if self.classes > 1 else None

    @model_validator(mode="after")
    def _modes_fit(self) -> Self:
        if self.modes > self.side:
            raise ValueError(f"{self.modes} modes an axis do not fit a side of {self.side}")
        return self
