"""Adam at a constant learning rate, and the exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from meanflow_core.components import AdamParams
from meanflow_core.registry import BuildContext


class Adam:
    """Adam (Kingma & Ba, 2015) with linear warm-up over ``warmup_steps`` and optional gradient clipping.

    The step index counts from the root of the chain, so a stage boundary never warms up anew. An update is torch's
    fused kernel, as `torch.optim.Adam(fused=True)` calls it, bit for bit; that class itself would import the compiler
    with its first step, two seconds in every worker.
    """

    def __init__(self, params: AdamParams, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.params = params
        self.named = dict(named)
        self.moments: dict[str, dict[str, Tensor]] = {}  # by parameter, from its first gradient on

    def learning_rate(self, step: int) -> float:
        """lr · min(1, (step + 1) / warmup_steps)."""
        warm = self.params.warmup_steps
        return self.params.lr * min(1.0, (step + 1) / warm) if warm else self.params.lr

    @torch.no_grad()
    def step(self, step: int) -> None:
        """One update with the gradients at hand."""
        if self.params.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.named.values(), self.params.clip_norm)
        trained = {name: p for name, p in self.named.items() if p.grad is not None}
        if not trained:
            return
        for name, p in trained.items():
            if name not in self.moments:
                count = torch.zeros((), dtype=torch.float32, device=p.device)
                self.moments[name] = {"step": count, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        moments = [self.moments[name] for name in trained]
        counts = [m["step"] for m in moments]
        torch._foreach_add_(counts, 1)
        torch._fused_adam_(
            list(trained.values()),
            [p.grad for p in trained.values() if p.grad is not None],
            [m["exp_avg"] for m in moments],
            [m["exp_avg_sq"] for m in moments],
            [],
            counts,
            lr=self.learning_rate(step),
            beta1=self.params.beta1,
            beta2=self.params.beta2,
            weight_decay=0.0,
            eps=self.params.eps,
            amsgrad=False,
            maximize=False,
        )

    def zero_grad(self) -> None:
        for p in self.named.values():
            p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """``<moment>/<parameter>`` → tensor; empty before the first step."""
        return {
            f"{moment}/{name}": value for name in self.named for moment, value in self.moments.get(name, {}).items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises: ValueError where a tensor belongs to no parameter."""
        self.moments.clear()
        for key, value in state.items():
            moment, _, name = key.partition("/")
            if name not in self.named:
                raise ValueError(f"optimiser state for an unknown parameter '{name}'")
            self.moments.setdefault(name, {})[moment] = value.to(self.named[name].device, copy=True)


def ema_update(average: Sequence[Tensor], online: Sequence[Tensor], decay: float) -> None:
    """θ̄ ← decay·θ̄ + (1 − decay)·θ, in place."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average), list(online), 1.0 - decay)


def build(params: AdamParams, context: BuildContext) -> Adam:
    """Facts: ``named_parameters`` of the network."""
    return Adam(params, context.facts["named_parameters"])
