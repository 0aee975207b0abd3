"""Per-sample loss weights."""

from __future__ import annotations

from torch import Tensor


def adaptive_weight(squared_error: Tensor, c: float, p: float) -> Tensor:
    """w = sg(1 / (‖e‖² + c)^p), Eq. 7. squared_error (B,) → (B,), no gradient.

    With p = 1 the weighted loss is close to 1 whatever the error is, so the raw error must be logged beside it.
    """
    return (squared_error.detach() + c).pow(-p)
