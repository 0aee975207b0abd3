"""One step of training, what it refuses, and whether the trained network approaches the truth."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from meanflow_core.optim import Adam, ema_update
from meanflow_core.registry import parse_spec
from meanflow_core.trainer import Diverged, Trainer
from tests.golden import trajectory as golden
from tests.meanflow_core import DIT, MLP, dynamics
from tests.meanflow_core.trainers import GRAD_NORM, assert_same_state, equal_weights, frozen, train

# --- one step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.9999])
def test_ema_by_hand(decay: float) -> None:
    trainer = Trainer(dynamics(ema_decay=decay), seed=0)
    expected = [p.clone().double() for p in trainer.online]
    for _ in range(4):
        trainer.advance()
        expected = [decay * e + (1 - decay) * p.double() for e, p in zip(expected, trainer.online, strict=True)]
    for average, e in zip(trainer.ema, expected, strict=True):
        torch.testing.assert_close(average.double(), e, rtol=1e-5, atol=1e-7)


def test_ema_update_in_closed_form() -> None:
    average, online = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 2.0])]
    ema_update(average, online, 0.75)
    assert average[0].tolist() == [1.5, 2.0]
    assert online[0].tolist() == [3.0, 2.0]


def adam(**params: Any) -> tuple[Adam, torch.nn.Parameter]:
    w = torch.nn.Parameter(torch.zeros(2))
    built: Adam = parse_spec("optimiser", {"name": "adam", **params}).build(named_parameters=[("w", w)])
    return built, w


def test_adam_by_hand() -> None:
    optimiser, w = adam(lr=0.1, beta1=0.8, beta2=0.9, eps=1e-3)
    g1, g2 = torch.tensor([1.0, -4.0]), torch.tensor([3.0, 2.0])
    w.grad = g1.clone()
    optimiser.step(0)
    torch.testing.assert_close(w.data, -0.1 * g1 / (g1.abs() + 1e-3))
    before = w.data.clone()
    w.grad = g2.clone()
    optimiser.step(1)
    m = (0.8 * 0.2 * g1 + 0.2 * g2) / (1 - 0.8**2)
    v = (0.9 * 0.1 * g1**2 + 0.1 * g2**2) / (1 - 0.9**2)
    torch.testing.assert_close(w.data, before - 0.1 * m / (v.sqrt() + 1e-3))


def test_warm_up() -> None:
    optimiser, w = adam(lr=0.4, warmup_steps=4)
    assert [optimiser.learning_rate(i) for i in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert adam(lr=0.4)[0].learning_rate(0) == 0.4
    w.grad = torch.tensor([1.0, 1.0])
    optimiser.step(1)
    torch.testing.assert_close(w.data, torch.tensor([-0.2, -0.2]))


def test_clipping() -> None:
    optimiser, w = adam(clip_norm=1.0)
    w.grad = torch.tensor([3.0, 4.0])
    optimiser.step(0)
    torch.testing.assert_close(w.grad, torch.tensor([0.6, 0.8]), rtol=1e-5, atol=0)
    torch.testing.assert_close(optimiser.state_dict()["exp_avg/w"], torch.tensor([0.06, 0.08]), rtol=1e-5, atol=0)
    w.grad = torch.tensor([0.3, 0.4])
    optimiser.step(1)
    assert w.grad.tolist() == pytest.approx([0.3, 0.4]), "a short gradient stays as it is"


def test_gradients_do_not_pile_up() -> None:
    """Each step uses the gradient of its own batch: a step by hand from the same state gives the same weights."""
    trainer = Trainer(dynamics(), seed=0)
    train(trainer, 3)
    by_hand = Trainer(dynamics(), seed=0)
    by_hand.restore(frozen(trainer), 3)
    trainer.advance()
    terms = by_hand.objective.terms(by_hand.network, by_hand.draw_batch(3), 3, [])
    terms.loss.mean().backward()
    by_hand.optimiser.step(3)
    assert equal_weights(trainer.online, by_hand.online)


def test_what_is_logged() -> None:
    assert set(Trainer(dynamics(), seed=0).advance(log=True)) == {"loss", "v_mse", "u_mse"}
    assert set(Trainer(dynamics(fm_ratio=1.0), seed=0).advance(log=True)) == {"loss", "v_mse"}
    assert set(Trainer(dynamics(fm_ratio=0.0), seed=0).advance(log=True)) == {"loss", "u_mse"}
    trainer = Trainer(dynamics(), seed=0, observers=[GRAD_NORM])
    assert trainer.advance() == {}
    assert set(trainer.advance(log=True)) == {"loss", "v_mse", "u_mse", "grad_norm"}
    values = Trainer(dynamics(), seed=0).advance(log=True)
    assert values["loss"] == pytest.approx(1.0, abs=0.01), "the weighted loss is 1 from the start"
    assert values["v_mse"] == pytest.approx(64 * (1 + 0.6), rel=0.2), "‖eps − x‖² of an untrained network"


def test_another_stream_is_the_same_law_from_the_same_weights() -> None:
    first, second, again = (Trainer(dynamics(stream=n), seed=3) for n in (0, 1, 1))
    weights = [torch.cat([p.flatten() for p in trainer.network.parameters()]) for trainer in (first, second)]
    assert torch.equal(*weights)
    a, b, c = (trainer.draw_batch(0) for trainer in (first, second, again))
    for name in ("x", "eps", "t"):
        assert not torch.equal(getattr(a, name), getattr(b, name)), name
        assert torch.equal(getattr(b, name), getattr(c, name)), name
    assert torch.equal(a.x, Trainer(dynamics(), seed=3).draw_batch(0).x) and "stream" not in dynamics().dump()
    assert dynamics(stream=1).dump()["stream"] == 1
    assert dynamics(stream=1).canonical() == {**dynamics().canonical(), "stream": 1}


def test_training_helps() -> None:
    trainer = Trainer(dynamics(batch_size=64, optimiser={"name": "adam", "lr": 5e-3}), seed=0)
    rows = train(trainer, 60)
    for name in ("v_mse", "u_mse"):
        assert sum(r[name] for r in rows[-10:]) < 0.85 * sum(r[name] for r in rows[:10])


# --- precision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [MLP, DIT], ids=["mlp", "dit"])
def test_bf16_stays_near_fp32(network: dict[str, Any]) -> None:
    rows = {}
    for precision in ("fp32", "bf16"):
        trainer = Trainer(dynamics(network=network, precision=precision, fm_ratio=0.5), seed=0)
        rows[precision] = train(trainer, 20)
        assert all(p.dtype == torch.float32 for p in (*trainer.online, *trainer.ema))
    for exact, rounded in zip(rows["fp32"], rows["bf16"], strict=True):
        for name in ("v_mse", "u_mse"):
            assert rounded[name] == pytest.approx(exact[name], rel=0.03)
    assert rows["fp32"] != rows["bf16"]


@pytest.mark.parametrize("before", ["highest", "high"])
def test_tf32_is_of_the_step_alone(monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """Forwards and backwards, whatever the process computed before, and no longer afterwards."""
    seen: list[tuple[str, bool]] = []

    def state() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    torch.set_float32_matmul_precision(before)
    try:
        outside = state()
        for precision, expected in (("tf32", ("high", True)), ("fp32", ("highest", False))):
            trainer = Trainer(dynamics(precision=precision), seed=0)
            for part in trainer.network.parameters():
                part.register_post_accumulate_grad_hook(lambda _: seen.append(state()))
            trainer.network.register_forward_hook(lambda *_: seen.append(state()))
            trainer.advance()
            assert len(seen) > len(trainer.online) and set(seen) == {expected} and state() == outside
            seen.clear()
    finally:
        torch.set_float32_matmul_precision("highest")


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [30.0, 1e30])
def test_divergence_is_seen(lr: float) -> None:
    trainer = Trainer(dynamics(optimiser={"name": "adam", "lr": lr}), seed=0)
    with pytest.raises(Diverged, match=r"(v_mse|u_mse|loss) is .* at step \d+"):
        train(trainer, 60)
    assert trainer.step > 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nothing_is_trained_on_after_a_nan(value: float) -> None:
    trainer = Trainer(dynamics(), seed=0)
    train(trainer, 2)
    trainer.check()
    with torch.no_grad():
        trainer.online[-1][0] = value
    with pytest.raises(Diverged, match=r"the weight output\.bias is not finite at step 2"):
        trainer.check()
    before = frozen(trainer)
    with pytest.raises(Diverged, match=r"is (nan|inf) at step 3"):
        trainer.advance(log=True)
    assert trainer.step == 2
    after = frozen(trainer)
    assert before["online"].pop("output.bias").nan_to_num().equal(after["online"].pop("output.bias").nan_to_num())
    assert_same_state(before, after)


def test_the_limit_of_divergence() -> None:
    """An untrained network's error is ‖v_t‖² itself, so a limit below it is passed at once."""
    Trainer(dynamics(), seed=0, divergence=1.5).advance(log=True)
    with pytest.raises(Diverged, match=r"over 0\.5 times the mean squared velocity: training diverges"):
        Trainer(dynamics(), seed=0, divergence=0.5).advance(log=True)


# --- against the past and against the truth ----------------------------------------------------------------


@pytest.mark.parametrize("name", golden.DYNAMICS)
def test_golden_trajectory(name: str) -> None:
    now, then = golden.run(name), golden.load()[name]
    assert set(now) == set(then)
    for key, values in then.items():
        assert now[key] == pytest.approx(values, rel=golden.RTOL, abs=1e-7), key


def test_a_gaussian_is_learnt() -> None:
    """v and u of a trained network against the closed form, under the law that it is trained on."""
    d = dynamics(
        network={"name": "mlp", "width": 32, "depth": 2, "max_frequency": 2},
        data="gaussian",
        batch_size=1024,  # few steps of large batches take a third of the time of many small ones
        fm_ratio=0.5,
        ema_decay=0.98,
        optimiser={"name": "adam", "lr": 1e-2},
        objective={"name": "meanflow", "adaptive_p": 0},
        time_sampler={"name": "logit_normal", "std": 1.6},
    )
    trainer = Trainer(d, seed=0)
    for _ in range(400):
        trainer.advance()
    exact = trainer.data.exact
    assert exact is not None
    rng = torch.Generator().manual_seed(5)
    r, t = trainer.times.draw(8000, rng)
    z, _ = exact.draw_marginal(t, rng)
    trainer.restore({**frozen(trainer), "online": trainer.ema_part()}, trainer.step)
    with torch.no_grad():
        v, u = trainer.network(z.float(), t, t), trainer.network(z.float(), r, t)

    def error(got: Tensor, truth: Tensor) -> float:
        return float((got - truth).norm() / truth.norm())

    true_v, true_u = exact.v(z, t), exact.u(z, r, t)
    assert error(true_v, true_u) > 0.2, "u is not just v"
    assert error(v, true_v) < 0.06
    assert error(u, true_u) < 0.08
