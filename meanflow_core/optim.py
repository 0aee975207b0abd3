"""Adam at a constant learning rate, and the exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from meanflow_core.components import AdamParams
from meanflow_core.registry import BuildContext


class Adam:
    """torch's fused Adam with linear warm-up over ``warmup_steps`` and optional gradient clipping.

    The step index counts from the root of the chain, so a stage boundary never warms up anew.
    """

    def __init__(self, params: AdamParams, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.params = params
        self.named = dict(named)
        self.torch = torch.optim.Adam(
            self.named.values(), lr=params.lr, betas=(params.beta1, params.beta2), eps=params.eps, fused=True
        )

    def learning_rate(self, step: int) -> float:
        """lr · min(1, (step + 1) / warmup_steps)."""
        warm = self.params.warmup_steps
        return self.params.lr * min(1.0, (step + 1) / warm) if warm else self.params.lr

    def step(self, step: int) -> None:
        """One update with the gradients at hand."""
        if self.params.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.named.values(), self.params.clip_norm)
        for group in self.torch.param_groups:
            group["lr"] = self.learning_rate(step)
        self.torch.step()

    def zero_grad(self) -> None:
        self.torch.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """``<moment>/<parameter>`` → tensor; empty before the first step."""
        return {
            f"{moment}/{name}": value
            for name, parameter in self.named.items()
            for moment, value in self.torch.state.get(parameter, {}).items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises: ValueError where a tensor belongs to no parameter."""
        self.torch.state.clear()
        for key, value in state.items():
            moment, _, name = key.partition("/")
            if name not in self.named:
                raise ValueError(f"optimiser state for an unknown parameter '{name}'")
            parameter = self.named[name]
            self.torch.state[parameter][moment] = value.to(parameter.device, copy=True)


def ema_update(average: Sequence[Tensor], online: Sequence[Tensor], decay: float) -> None:
    """θ̄ ← decay·θ̄ + (1 − decay)·θ, in place."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average), list(online), 1.0 - decay)


def build(params: AdamParams, context: BuildContext) -> Adam:
    """Facts: ``named_parameters`` of the network."""
    return Adam(params, context.facts["named_parameters"])
