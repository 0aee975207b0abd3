"""Parameters of the networks."""

from __future__ import annotations

from typing import Any, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

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

    def problem_on(self, shape: tuple[int, ...]) -> str | None:
        if len(shape) == 3 and shape[1] == shape[2] and shape[1] % self.patch == 0:
            return None
        fit = [size for size in range(1, shape[-1] + 1) if shape[-1] % size == 0] if len(shape) == 3 else []
        hint = f" (patch: {', '.join(map(str, fit))})" if fit and shape[1] == shape[2] else "; 'mlp' takes any shape"
        return f"dit needs square images whose side is a multiple of {self.patch}, not {shape}{hint}"


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
