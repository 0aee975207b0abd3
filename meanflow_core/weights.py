"""Per-sample loss weights."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def adaptive_weight(squared_error: Tensor, c: float, p: float) -> Tensor:
    """w = sg(1 / (‖e‖² + c)^p), Eq. 7. squared_error (B,) → (B,), no gradient.

    With p = 1 the weighted loss is close to 1 whatever the error is, so the raw error must be logged beside it.
    """
    return (squared_error.detach() + c).pow(-p)


def beta(delta_t: Tensor, s: float, lam: float) -> Tensor:
    """β(Δt, s) = 1 − s + λ·s·(1 − Δt), Sec. 5. delta_t (B,) → (B,).

    With λ = 1/E[1 − Δt] its mean is 1 at every s.
    """
    return 1 - s + lam * s * (1 - delta_t)


def min_snr_alpha(t: Tensor, gamma: float, reading: Literal["v_prediction", "flow_matching"]) -> Tensor:
    """α(t) with SNR = ((1 − t)/t)²: min(SNR, γ)/(SNR + 1), or t²·min(SNR, γ). t (B,) in [0, 1] → (B,).

    Both are written with what SNR is made of, so that t = 0 gives no 0·∞.
    """
    signal, noise = (1 - t) ** 2, t**2
    clamped = (gamma * noise).minimum(signal)  # t²·min(SNR, γ)
    return clamped if reading == "flow_matching" else clamped / (signal + noise)
