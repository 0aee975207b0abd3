"""Parameters of guidance inside the target."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from meanflow_core.components.intervals import Interval


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
