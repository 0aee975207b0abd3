"""One component of every kind, of one's own. A study names them by ``use: ./my.py:CosineGap`` (see mine.yaml).

What is torch's is imported where something is built, so that planning and reporting need no torch.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from meanflow_core.registry import BuildContext, Params, component


@component("network", version=1)
class Plain(Params):
    """A plain MLP on z, r, t and the label."""

    width: PositiveInt = 32

    def build(self, context: BuildContext) -> Any:
        """Facts: ``shape`` and ``num_classes`` of the data. Returns: a module that is called with (z, r, t, y)."""
        import torch
        from torch import nn

        shape, classes = context.facts["shape"], context.facts["num_classes"]
        dim, width = torch.Size(shape).numel(), self.width

        class Network(nn.Module):
            conditional = classes is not None  # then labels are drawn for its samples, too

            def __init__(self) -> None:
                super().__init__()
                self.label = nn.Embedding((classes or 0) + 1, width)  # the last one stands for a dropped label
                self.first = nn.Linear(dim + 2, width)
                self.last = nn.Linear(width, dim)

            def forward(self, z: Any, r: Any, t: Any, y: Any = None) -> Any:
                h = self.first(torch.cat([z.flatten(1), r[:, None], t[:, None]], 1))
                h = h if y is None else h + self.label(y)
                return self.last(nn.functional.silu(h)).reshape(z.shape)

        return Network()

    def forward_flops(self, shape: tuple[int, ...]) -> float:
        """For `study plan`; left out, it says that the cost is unknown."""
        dim = 1
        for side in shape:
            dim *= side
        return 2.0 * self.width * (2 * dim + 2)


@component("data", version=1)
class Rings(Params):
    """Two rings in the plane, a class each."""

    radius: PositiveFloat = 0.5
    noise: PositiveFloat = 0.05

    def sample_shape(self) -> tuple[int, ...]:
        return (2,)

    def class_count(self) -> int:
        return 2

    def build(self, context: BuildContext) -> Any:
        """Returns: a `meanflow_core.data.base.DataSet`."""
        import torch

        from meanflow_core.data.base import REFERENCE_SEED, DataSet
        from meanflow_core.seeding import generator

        params = self

        class Data(DataSet):
            shape, num_classes = (2,), 2

            def draw(self, n: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
                y = self.labels(n, rng)
                angle = 2 * torch.pi * torch.rand(n, generator=rng)
                radius = params.radius * (1 + y) + params.noise * torch.randn(n, generator=rng)
                return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1), y

            def batch(self, seed: int, step: int, batch_size: int, device: Any) -> Any:
                x, y = self.draw(batch_size, generator(seed, "rings", step))  # a pure function of (seed, step)
                return x.to(device), y.to(device)

            def labels(self, n: int, rng: torch.Generator) -> torch.Tensor:
                return torch.randint(2, (n,), generator=rng)

            def reference_samples(self, n: int) -> torch.Tensor:
                return self.draw(n, generator(REFERENCE_SEED, "rings reference"))[0]

        return Data()


@component("objective", version=1)
class Squared(Params):
    """MeanFlow's regression without the adaptive weight."""

    def build(self, context: BuildContext) -> Any:
        """Facts: ``guidance`` and ``null_label``. Returns: what has ``terms`` (`meanflow_core.objectives.MeanFlow`)."""
        from meanflow_core.components import MeanFlowParams
        from meanflow_core.objectives import MeanFlow

        params = MeanFlowParams(adaptive_p=0.0)
        return MeanFlow(params, context.facts.get("guidance"), context.facts.get("null_label"))


@component("time_sampler", version=1)
class Power(Params):
    """Single draws with F(x) = x^power: below 1 they crowd near the data, above near the noise."""

    power: PositiveFloat = 2.0

    def build(self, context: BuildContext) -> Any:
        """Returns: a `meanflow_core.times.TimeSampler`."""
        import torch

        from meanflow_core.times import TimeSampler

        power = self.power

        class Times(TimeSampler):
            def cdf(self, x: float) -> float:
                return float(x**power)

            def quantile(self, p: float) -> float:
                return float(p ** (1 / power))

            def draw(self, n: int, rng: torch.Generator, t_above: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
                u = torch.rand(2, n, generator=rng, device=rng.device)
                low = self.cdf(t_above)
                u[0] = low + (1 - low) * u[0]
                times = u ** (1 / power)
                return times.amin(0), times.amax(0).clamp(min=t_above)

        return Times()


@component("optimiser", version=1)
class Momentum(Params):
    """θ ← θ − lr·m, m ← beta·m + ∂L/∂θ."""

    lr: PositiveFloat = 1e-3
    beta: float = Field(default=0.9, ge=0.0, lt=1.0)

    def build(self, context: BuildContext) -> Any:
        """Facts: ``named_parameters``. State must be tensors in ``state_dict``."""
        import torch

        params, named = self, dict(context.facts["named_parameters"])

        class Optimiser:
            def __init__(self) -> None:
                self.m = {name: torch.zeros_like(p) for name, p in named.items()}

            def step(self, step: int) -> None:
                with torch.no_grad():
                    for name, p in named.items():
                        if p.grad is not None:
                            self.m[name].mul_(params.beta).add_(p.grad)
                            p.sub_(params.lr * self.m[name])

            def zero_grad(self) -> None:
                for p in named.values():
                    p.grad = None

            def state_dict(self) -> dict[str, torch.Tensor]:
                return {f"m/{name}": value for name, value in self.m.items()}

            def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
                for name, value in self.m.items():
                    value.copy_(state[f"m/{name}"])

        return Optimiser()


@component("transform", version=1, uses_horizon=True)
class CosineGap(Params):
    """Weighs the u-loss by cos(π/2·Δt)^power, with a power that falls to 0 over training. Counts its steps."""

    power: PositiveFloat = 1.0

    def build(self, context: BuildContext) -> Any:
        """Facts: ``rng`` and ``times``; ``context.horizon`` is T. Returns: a `meanflow_core.hooks.Transform`."""
        import torch

        from meanflow_core.hooks import Batch, Transform
        from meanflow_core.objectives import Terms

        power, horizon = self.power, context.horizon

        class Weight(Transform):
            def __init__(self) -> None:
                self.steps = torch.zeros((), dtype=torch.long)

            def weights(self, step: int, batch: Batch, weights: torch.Tensor) -> torch.Tensor:
                k = power * (1 - step / horizon)
                beta = torch.cos(torch.pi / 2 * batch.delta_t[batch.v_rows :]) ** k
                return torch.cat([weights[: batch.v_rows], weights[batch.v_rows :] * beta])

            def after_step(self, step: int, terms: Terms) -> dict[str, float]:
                self.steps += 1
                return {}

            def logged(self) -> dict[str, float]:
                return {"cosine_steps": float(self.steps)}

            def state_dict(self) -> dict[str, torch.Tensor]:
                return {"steps": self.steps}

            def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
                self.steps = state["steps"].clone()

        return Weight()


@component("observer", version=1)
class MeanTime(Params):
    """Logs the mean t of a batch."""

    def build(self, context: BuildContext) -> Any:
        """Returns: a `meanflow_core.hooks.Observer`."""
        from meanflow_core.hooks import Observer, View

        class MeanOfTimes(Observer):
            def observe(self, view: View) -> dict[str, float]:
                return {"mean_t": float(view.batch.t.mean())}

        return MeanOfTimes()


@component("metric", version=1)
class RadiusError(Params):
    """Mean distance of samples from the nearer of the two rings."""

    radius: PositiveFloat = 0.5

    def build(self, context: BuildContext) -> Any:
        """Returns: what has ``compute(context, protocol)`` (`meanflow_core.evaluation.context.EvaluationContext`)."""
        import torch

        rings = torch.tensor([self.radius, 2 * self.radius])

        class Metric:
            def compute(self, context: Any, protocol: Any) -> float:
                radius = context.samples(protocol).norm(dim=1)
                return float((radius[:, None] - rings).abs().amin(1).mean())

        return Metric()
