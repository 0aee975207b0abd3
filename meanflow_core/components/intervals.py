"""Intervals of times and gaps, of which other parameters are made."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from meanflow_core.registry import Params

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
