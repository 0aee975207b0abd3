"""Hooks: what a transform may change, and that no observer changes anything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from meanflow_core.hooks import Batch, Observer, Transform, View
from meanflow_core.interpolant import conditional_velocity, interpolate
from meanflow_core.objectives import Terms
from meanflow_core.registry import BuildContext, Params, components, parse_spec
from meanflow_core.trainer import Trainer
from tests.golden.components import built_in
from tests.meanflow_core import DIT, dynamics, registered

HERE = "tests.meanflow_core.test_hooks"
OBSERVERS = [c.name for c in built_in() if c.kind == "observer"]


class NoParams(Params):
    pass


def weights_of(trainer: Trainer) -> list[Tensor]:
    return [t.clone() for part in trainer.parts().values() for t in part.values()]


def trained(observers: list[Any], log: bool = True, **changes: Any) -> tuple[list[Tensor], dict[str, float]]:
    trainer = Trainer(dynamics(**changes), seed=0, observers=[parse_spec("observer", o) for o in observers])
    values: dict[str, float] = {}
    for _ in range(4):
        values = trainer.advance(log=log)
    return weights_of(trainer), values


# --- observers ---------------------------------------------------------------------------------------------


def test_there_are_observers() -> None:
    assert "grad_norm" in OBSERVERS


@pytest.mark.parametrize("changes", [{}, {"network": DIT}, {"fm_ratio": 1.0}, {"fm_ratio": 0.0}], ids=str)
@pytest.mark.parametrize("name", OBSERVERS)
def test_an_observer_leaves_training_bitwise_unchanged(name: str, changes: dict[str, Any]) -> None:
    torch.manual_seed(1)
    watched, values = trained([name], **changes)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    alone, own = trained([], **changes)
    assert torch.equal(state, torch.get_rng_state()), "it drew global random numbers"
    for a, b in zip(watched, alone, strict=True):
        assert torch.equal(a, b)
    assert set(own) < set(values), "it logged nothing"
    assert {k: values[k] for k in own} == own, "it changed what the trainer logs"


def test_logging_leaves_training_bitwise_unchanged() -> None:
    for a, b in zip(trained([], log=True)[0], trained([], log=False)[0], strict=True):
        assert torch.equal(a, b)


class Meddler(Observer):
    """What an observer must not be: this one breaks the test above."""

    def __init__(self, params: NoParams, context: BuildContext) -> None:
        pass

    def observe(self, view: View) -> dict[str, float]:
        with torch.no_grad():
            next(view.network.parameters()).add_(1e-6)
        return {"meddled": 1.0}


def test_the_test_sees_a_meddling_observer() -> None:
    with registered("observer", "meddler", NoParams, f"{HERE}:Meddler"):
        watched = trained(["meddler"])[0]
    assert not all(torch.equal(a, b) for a, b in zip(watched, trained([])[0], strict=True))


def test_grad_norm_by_hand() -> None:
    trainer = Trainer(dynamics(), seed=0, observers=[parse_spec("observer", "grad_norm")])
    for _ in range(3):
        logged = trainer.advance(log=True)["grad_norm"]
        grads = torch.cat([p.grad.flatten() for p in trainer.network.parameters()])  # type: ignore[union-attr]
        assert logged == pytest.approx(float(grads.double().norm()), rel=1e-6)
        assert logged > 0


# --- transforms --------------------------------------------------------------------------------------------


def test_the_plain_transform_returns_its_last_argument() -> None:
    base = Transform()
    x = torch.randn(4, 2)
    batch = Batch(x, x, torch.zeros(4), torch.ones(4), None, 0)
    assert base.batch(0, batch) is batch
    assert base.v_target(0, batch, x) is x
    assert base.weights(0, batch, x) is x
    assert base.state_dict() == {}
    base.load_state_dict({})
    with pytest.raises(ValueError, match=r"Transform keeps no state, but the checkpoint holds \['a'\]"):
        base.load_state_dict({"a": x})


def test_batch_properties() -> None:
    x, eps = torch.randn(2, 3, 2)
    r, t = torch.tensor([0.0, 0.2, 0.5]), torch.tensor([0.0, 0.6, 1.0])
    batch = Batch(x, eps, r, t, None, 0)
    assert torch.equal(batch.z, interpolate(x, eps, t))
    assert torch.equal(batch.v_t, conditional_velocity(x, eps))
    torch.testing.assert_close(batch.delta_t, torch.tensor([0.0, 0.4, 0.5]))


class Spy(Transform):
    """Notes in which order it is called, and with what."""

    calls: list[tuple[str, int]]
    draws: list[Tensor]

    def __init__(self, params: NoParams, context: BuildContext) -> None:
        self.calls, self.draws = [], []
        self.rng = context.facts["rng"]

    def batch(self, step: int, batch: Batch) -> Batch:
        self.calls.append(("batch", step))
        self.draws.append(torch.rand(2, generator=self.rng(step)))
        return Batch(batch.x, batch.eps, batch.r, batch.t.clone(), batch.y, batch.v_rows)

    def v_target(self, step: int, batch: Batch, target: Tensor) -> Tensor:
        self.calls.append(("v_target", step))
        assert len(target) == batch.v_rows == 12
        return target

    def weights(self, step: int, batch: Batch, weights: Tensor) -> Tensor:
        self.calls.append(("weights", step))
        assert weights.shape == batch.t.shape
        assert not weights.requires_grad
        return weights

    def after_step(self, step: int, terms: Terms) -> dict[str, float]:
        self.calls.append(("after_step", step))
        assert not terms.squared_error.requires_grad
        return {}


def test_when_a_transform_is_called() -> None:
    with registered("transform", "spy", NoParams, f"{HERE}:Spy"):
        trainer = Trainer(dynamics(transforms=["spy"]), seed=0)
        (spy,) = trainer.transforms
        assert isinstance(spy, Spy)
        for _ in range(2):
            trainer.advance()
        other = Trainer(dynamics(transforms=["spy"]), seed=1)
        other.advance()
    hooks = ["batch", "v_target", "weights", "after_step"]
    assert spy.calls == [(hook, step) for step in (0, 1) for hook in hooks]
    assert not torch.equal(spy.draws[0], spy.draws[1])
    assert torch.equal(spy.draws[1], torch.rand(2, generator=spy.rng(1))), "its numbers are a function of the step"
    assert not torch.equal(spy.draws[0], other.transforms[0].draws[0])  # type: ignore[attr-defined]


def test_a_transform_that_does_nothing_leaves_training_bitwise_unchanged() -> None:
    with registered("transform", "spy", NoParams, f"{HERE}:Spy"):
        seen = trained([], transforms=["spy"])[0]
    for a, b in zip(seen, trained([])[0], strict=True):
        assert torch.equal(a, b)


def test_every_hook_has_the_registered_base() -> None:
    bases = {"observer": Observer, "transform": Transform}
    for kind, base in bases.items():
        for c in components(kind):
            loaded = c.load()
            assert not isinstance(loaded, type) or issubclass(loaded, base), c.name
