"""The training loop's body: state, one step, save and restore.

Step i of a trajectory is a pure function of the state before it, the dynamics, the seed and i. So training n + m steps
equals training n, saving, restoring and training m.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from meanflow_core.checkpoint import CheckpointError, Parts
from meanflow_core.config import Dynamics, Protocol
from meanflow_core.data.base import DataSet
from meanflow_core.evaluation.evaluate import as_number
from meanflow_core.hooks import Batch, Measured, Observer, Probe, Situation, Transform, View
from meanflow_core.objectives import Terms
from meanflow_core.optim import ema_update
from meanflow_core.precision import float32_products
from meanflow_core.ranks import Ranks
from meanflow_core.registry import Spec
from meanflow_core.seeding import derived_seed, generator, seeded
from meanflow_core.state import buffers_of, parameters_of, put, untouched

ALONE = Ranks()


class Diverged(RuntimeError):
    """Training produced a non-finite or exploding loss; it must not go on."""


def build_network(dynamics: Dynamics, data: DataSet, seed: int, device: torch.device | str = "cpu") -> nn.Module:
    """The network with its initial weights, a function of (architecture, seed) alone on every device."""
    with seeded(derived_seed(seed, "init", 0)):
        network: nn.Module = dynamics.network.build(shape=data.shape, num_classes=data.num_classes)
    return network.to(device)


class Trainer:
    """A trajectory in motion. ``step`` is the number of steps done, counted from the root of the chain."""

    def __init__(
        self,
        dynamics: Dynamics,
        seed: int,
        *,
        horizon_steps: int | None = None,
        device: torch.device | str = "cpu",
        observers: Sequence[Spec] = (),
        divergence: float = 1e4,
        ranks: Ranks = ALONE,
        data: DataSet | None = None,
        network: nn.Module | None = None,
    ) -> None:
        """``data`` and ``network`` (by `build_network`), where they were made already."""
        self.dynamics, self.seed, self.device, self.divergence = dynamics, seed, torch.device(device), divergence
        self.ranks = ranks
        ranks.check_shares(dynamics.batch_size, dynamics.v_rows)
        self.step = 0
        self.data: DataSet = data or dynamics.data.build()
        if network is None:
            network = build_network(dynamics, self.data, seed, self.device)
        self.network = network.train()
        if dynamics.stream:  # all else is drawn anew
            self.seed = derived_seed(seed, "stream", dynamics.stream)
        named = parameters_of(self.network)
        self.names = list(named)
        self.online = [p.data for p in named.values()]
        self.ema = [p.clone() for p in self.online]
        self.optimiser = dynamics.optimiser.build(horizon_steps, named_parameters=list(named.items()))
        self.objective = dynamics.objective.build(
            horizon_steps, guidance=dynamics.guidance, null_label=self.data.num_classes
        )
        self.times = dynamics.time_sampler.build(horizon_steps)
        self.transforms: list[Transform] = [
            spec.build(horizon_steps, rng=self._rng(f"transform/{spec.name}"), times=self.times)
            for spec in dynamics.transforms
        ]
        self.observers: list[Observer] = [spec.build() for spec in observers]

    def _rng(self, purpose: str) -> Any:
        return lambda step: generator(self.seed, purpose, step, self.device)

    def draw_batch(self, step: int) -> Batch:
        """The global batch of step i: data, noise, times and dropped labels, each a pure function of (seed, i)."""
        d = self.dynamics
        x, y = self.data.batch(self.seed, step, d.batch_size, self.device)
        eps = torch.randn(x.shape, generator=self._rng("noise")(step), device=self.device)
        above = max((transform.t_above(step) for transform in self.transforms), default=0.0)
        r, t = self.times.draw(d.batch_size, self._rng("times")(step), above)
        n = d.v_rows
        r = torch.cat([t[:n], r[n:]])
        if y is not None and self.data.num_classes is not None and d.label_dropout > 0:
            dropped = torch.rand(y.shape, generator=self._rng("labels")(step), device=self.device) < d.label_dropout
            y = torch.where(dropped, self.data.num_classes, y)
        batch = Batch(x, eps, r, t, y, n, above)
        for transform in self.transforms:
            batch = transform.batch(step, batch)
        return batch

    def _float32_products(self) -> AbstractContextManager[None]:
        return float32_products(tf32=self.dynamics.precision == "tf32")

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dynamics.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _chance(self) -> AbstractContextManager[Any]:
        """A network of your own may draw global random numbers (dropout): those of a step follow from (seed, i)."""
        if self.dynamics.network.params.declared is None:
            return nullcontext()
        return seeded(derived_seed(self.seed, "network", self.step), self.device)

    def advance(self, log: bool = False) -> dict[str, float]:
        """Train one step. Returns the step's logged values if asked, and what transforms have to say at once.

        Raises: Diverged, on logged steps, if the error is not finite or exceeds ``divergence`` times ‖v_t‖².
        """
        with self._float32_products():
            return self._advance(log)

    def _advance(self, log: bool) -> dict[str, float]:
        i, batch = self.step, self.ranks.rows_of(self.draw_batch(self.step))
        with self._autocast(), self._chance():
            terms: Terms = self.objective.terms(self.network, batch, i, self.transforms)
            loss = self.ranks.loss(terms, batch)
        self.optimiser.zero_grad()
        loss.backward()
        self.ranks.sum_gradients(self.network.parameters())
        self.ranks.share(self.network)
        terms = self.ranks.whole(terms, batch)
        values = self._log(i, batch, terms) if log else {}
        self.optimiser.step(i)
        ema_update(self.ema, self.online, self.dynamics.ema_decay)
        for transform in self.transforms:
            values.update(transform.after_step(i, terms))
        self.step += 1
        return values

    def _log(self, i: int, batch: Batch, terms: Terms) -> dict[str, float]:
        values = {"loss": float(terms.loss.detach().mean()), "v_mse": float(terms.v_mse), "u_mse": float(terms.u_mse)}
        present = {"loss": True, "v_mse": terms.v_rows > 0, "u_mse": terms.v_rows < len(terms.squared_error)}
        values = {name: value for name, value in values.items() if present[name]}
        limit = self.divergence * float(terms.target_power)
        for name, value in values.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} at step {i + 1}")
            if name != "loss" and value > limit:
                raise Diverged(
                    f"{name} is {value:.3g} at step {i + 1}, over {self.divergence:g} times the mean squared "
                    "velocity: training diverges"
                )
        view = View(i, self.network, batch, terms)
        said = [(hook, hook.logged()) for hook in self.transforms]
        for hook, seen in [*said, *((observer, observer.observe(view)) for observer in self.observers)]:
            if taken := sorted(values.keys() & seen.keys()):
                raise ValueError(f"{type(hook).__name__} logs {taken}, names that are taken already")
            values.update(seen)
        return values

    def measure(self, protocols: Sequence[Protocol]) -> Measured:
        """What probes find at the present step, with the weights in training, under protocols that are ``observed``.

        Raises: EvaluationError with the reason, as `evaluation.evaluate.measure`.
        """
        found = Measured({}, {})
        situation = Situation(self.network, self.data, self.objective, self.times, self.seed, self.step, self.device)
        for name in dict.fromkeys(protocol.metric.name for protocol in protocols):
            wanted = [protocol for protocol in protocols if protocol.metric.name == name]
            probe: Probe = wanted[0].metric.build()
            with self._float32_products(), self._autocast(), untouched(self.network), self._chance():
                seen = probe.measure(situation, wanted)
            found.values.update({p.key: as_number(p.metric_label, seen.values.get(p.key)) for p in wanted})
            found.details.update(seen.details)
        return found

    def check(self) -> None:
        """To be called before weights are published, by every rank at the same steps.

        Raises: Diverged if any weight is not finite, RanksDiffer if the ranks' weights differ.
        """
        weights = dict(zip(self.names, self.online, strict=True))
        for name, value in weights.items():
            if not bool(torch.isfinite(value).all()):
                raise Diverged(f"the weight {name} is not finite at step {self.step}")
        self.ranks.check_equal(weights)

    def online_part(self) -> dict[str, Tensor]:
        return {**dict(zip(self.names, self.online, strict=True)), **buffers_of(self.network)}

    def ema_part(self) -> dict[str, Tensor]:
        return {**dict(zip(self.names, self.ema, strict=True)), **buffers_of(self.network)}

    def parts(self) -> Parts:
        """The full state as checkpoint parts."""
        state: Parts = {
            "online": self.online_part(),
            "ema": self.ema_part(),
            "optimiser": self.optimiser.state_dict(),
        }
        for spec, transform in zip(self.dynamics.transforms, self.transforms, strict=True):
            if tensors := transform.state_dict():
                state[f"transform.{spec.name}"] = tensors
        return state

    def restore(self, parts: Mapping[str, Mapping[str, Tensor]], step: int, *, branch: bool = False) -> None:
        """Take over a checkpoint's state. With ``branch``, it is the parent's: what ``reset`` names stays fresh, and a
        transform without state there starts anew.

        Raises: CheckpointError if the tensors do not fit these dynamics.
        """
        reset = self.dynamics.reset if branch else ()
        try:
            if "online" not in reset:
                put(self.online_part(), parts["online"])
            averaged = self.online_part() if "ema" in reset else parts["ema"]
            buffers = {name: buffer.clone() for name, buffer in buffers_of(self.network).items()}  # online's stay
            put({**dict(zip(self.names, self.ema, strict=True)), **buffers}, averaged)
            if "optimiser" not in reset:
                self.optimiser.load_state_dict(dict(parts["optimiser"]))
            for spec, transform in zip(self.dynamics.transforms, self.transforms, strict=True):
                state = parts.get(f"transform.{spec.name}")
                if state is not None or (not branch and transform.state_dict()):
                    transform.load_state_dict(dict(state or {}))
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint at step {step} does not fit these dynamics: {error}") from error
        self.step = step
