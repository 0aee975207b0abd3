"""The trainer: a step is a function of (state, dynamics, seed, i); and the trained network approaches the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from meanflow_core.checkpoint import CheckpointError, Parts, load_checkpoint, write_checkpoint
from meanflow_core.hooks import Batch, Transform
from meanflow_core.objectives import Terms
from meanflow_core.optim import Adam, ema_update
from meanflow_core.registry import BuildContext, Params, parse_spec
from meanflow_core.trainer import Diverged, NotBuilt, Trainer, build_network
from tests.golden import trajectory as golden
from tests.meanflow_core import DIT, MLP, dynamics, registered

HERE = "tests.meanflow_core.test_trainer"
GRAD_NORM = parse_spec("observer", "grad_norm")


class PaceParams(Params):
    strength: float = 1.0


class Pace(Transform):
    """A transform that uses everything it may: state, its own randomness, times, targets, weights."""

    def __init__(self, params: PaceParams, context: BuildContext) -> None:
        self.strength, self.rng = params.strength, context.facts["rng"]
        self.mean = torch.zeros(())
        self.count = torch.zeros((), dtype=torch.long)

    def batch(self, step: int, batch: Batch) -> Batch:
        shrink = torch.rand(len(batch.t), generator=self.rng(step))
        shrink[: batch.v_rows] = 0
        return Batch(batch.x, batch.eps, batch.r + shrink * batch.delta_t, batch.t, batch.y, batch.v_rows)

    def v_target(self, step: int, batch: Batch, target: Tensor) -> Tensor:
        return target + 0.01 * self.mean

    def weights(self, step: int, batch: Batch, weights: Tensor) -> Tensor:
        return weights * (1 + self.strength * self.mean)

    def after_step(self, step: int, terms: Terms) -> None:
        self.mean = 0.9 * self.mean + 0.1 * terms.squared_error.mean() / 100
        self.count = self.count + 1

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean, self.count = state["mean"].clone(), state["count"].clone()


@pytest.fixture(autouse=True)
def _pace() -> Iterator[None]:
    with registered("transform", "pace", PaceParams, f"{HERE}:Pace"):
        yield


def train(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    return [trainer.advance(log=True) for _ in range(steps)]


def frozen(trainer: Trainer) -> Parts:
    """A copy of the state, as a checkpoint would be."""
    return {part: {k: v.clone() for k, v in tensors.items()} for part, tensors in trainer.parts().items()}


def assert_same_state(one: Parts, other: Parts) -> None:
    assert {p: set(t) for p, t in one.items()} == {p: set(t) for p, t in other.items()}
    for part, tensors in one.items():
        for name, tensor in tensors.items():
            assert tensor.dtype == other[part][name].dtype
            assert torch.equal(tensor, other[part][name]), f"{part}/{name}"


def equal_weights(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- n + m -------------------------------------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {
    "mlp": {},
    "dit": {"network": DIT, "batch_size": 8},
    "v only": {"fm_ratio": 1.0},
    "u only": {"fm_ratio": 0.0},
    "label dropout": {"label_dropout": 0.3},
    "label dropout, dit": {"network": DIT, "batch_size": 8, "label_dropout": 0.3, "fm_ratio": 0.5},
    "stateful transform": {"transforms": [{"name": "pace", "strength": 2}]},
    "stateful transform, dit": {"network": DIT, "batch_size": 8, "transforms": ["pace"]},
    "warm-up and clipping": {"optimiser": {"name": "adam", "lr": 2e-3, "warmup_steps": 6, "clip_norm": 0.5}},
    "no labels": {"data": "gaussian"},
    "exact data": {"data": "gmm"},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("observers", [[], [GRAD_NORM]], ids=["", "observed"])
@pytest.mark.parametrize("case", CASES)
def test_n_plus_m_steps_in_one_or_two_runs(case: str, observers: list[Any], tmp_path: Path) -> None:
    """Bitwise, through files; the second run's trainer is built anew, after other random numbers were drawn."""
    d, n, m = dynamics(**CASES[case]), 5, 4
    whole = Trainer(d, seed=3, observers=observers)
    logged = train(whole, n + m)

    first = Trainer(d, seed=3, observers=observers)
    head = train(first, n)
    write_checkpoint(tmp_path / "5", first.parts(), {"step": first.step})
    del first
    torch.manual_seed(99)
    loaded = load_checkpoint(tmp_path / "5", expect={"step": n})
    second = Trainer(d, seed=3, observers=observers)
    train(second, 2)  # a trainer that was used before carries nothing over
    second.restore(loaded.parts, n)
    assert second.step == n
    tail = train(second, m)

    assert_same_state(second.parts(), whole.parts())
    assert head + tail == logged


def test_a_checkpoint_of_step_0(tmp_path: Path) -> None:
    one, other = Trainer(dynamics(), seed=0), Trainer(dynamics(), seed=1)
    write_checkpoint(tmp_path / "0", one.parts(), {})
    other.restore(load_checkpoint(tmp_path / "0").parts, 0)
    assert_same_state(one.parts(), other.parts())
    assert other.parts()["optimiser"] == {}


def test_restoring_copies(tmp_path: Path) -> None:
    """Training on must not write into the tensors that it was restored from."""
    one = Trainer(dynamics(transforms=["pace"]), seed=0)
    train(one, 3)
    given_ = frozen(one)
    kept = frozen(one)
    other = Trainer(dynamics(transforms=["pace"]), seed=0)
    other.restore(given_, 3)
    train(other, 2)
    assert_same_state(given_, kept)


def test_adams_state_is_complete() -> None:
    trainer = Trainer(dynamics(), seed=0)
    train(trainer, 3)
    state = trainer.parts()["optimiser"]
    assert set(state) == {f"{m}/{n}" for m in ("step", "exp_avg", "exp_avg_sq") for n in trainer.names}
    steps = [v for k, v in state.items() if k.startswith("step/")]
    assert all(s.dtype == torch.float32 and s.item() == 3 for s in steps)


def test_adam_without_its_step_count_would_differ() -> None:
    """What the test above guards: bias correction restarts if the step tensor is lost."""
    one = Trainer(dynamics(), seed=0)
    train(one, 5)
    parts = frozen(one)
    for key in parts["optimiser"]:
        if key.startswith("step/"):
            parts["optimiser"][key].fill_(0.0)
    other = Trainer(dynamics(), seed=0)
    other.restore(parts, 5)
    train(one, 1)
    train(other, 1)
    assert not equal_weights(one.online, other.online)


# --- branches ----------------------------------------------------------------------------------------------


@pytest.fixture
def parent() -> Parts:
    trainer = Trainer(dynamics(), seed=0)
    train(trainer, 6)
    return frozen(trainer)


@pytest.mark.parametrize(
    "reset", [(), ("optimiser",), ("ema",), ("online",), ("online", "ema"), ("online", "ema", "optimiser")]
)
def test_what_a_branch_carries_over(parent: Parts, reset: tuple[str, ...]) -> None:
    d = dynamics(fm_ratio=0.5, reset=reset)
    child = Trainer(d, seed=7)
    fresh = frozen(child)["online"]
    child.restore(parent, 6, branch=True)
    assert child.step == 6
    state = child.parts()
    online = fresh if "online" in reset else parent["online"]
    assert equal_weights(state["online"].values(), online.values())
    assert not equal_weights(fresh.values(), parent["online"].values())
    average = online if "ema" in reset else parent["ema"]
    assert equal_weights(state["ema"].values(), average.values())
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(child.ema, child.online, strict=True))
    assert_same_state(
        {"optimiser": state["optimiser"]}, {"optimiser": {} if "optimiser" in reset else parent["optimiser"]}
    )
    train(child, 2)


def test_reset_matters_only_at_the_branch(parent: Parts) -> None:
    """Restoring the child's own checkpoint takes all of it, whatever ``reset`` says."""
    d = dynamics(fm_ratio=0.5, reset=["optimiser", "ema"])
    whole = Trainer(d, seed=7)
    whole.restore(parent, 6, branch=True)
    train(whole, 2)
    again = Trainer(d, seed=7)
    again.restore(frozen(whole), 8)
    train(whole, 3)
    train(again, 3)
    assert_same_state(whole.parts(), again.parts())


def test_a_branch_may_have_another_network_where_all_is_reset(parent: Parts) -> None:
    child = Trainer(dynamics(network=DIT, reset=["online", "ema", "optimiser"]), seed=0)
    child.restore(parent, 6, branch=True)
    assert equal_weights(child.ema, child.online)


def test_a_transform_new_in_the_branch_starts_anew(parent: Parts) -> None:
    child = Trainer(dynamics(transforms=["pace"]), seed=0)
    child.restore(parent, 6, branch=True)
    assert child.parts()["transform.pace"] == {"mean": torch.zeros(()), "count": torch.zeros(())}
    train(child, 2)
    grandchild = Trainer(dynamics(transforms=[{"name": "pace", "strength": 3}]), seed=0)
    grandchild.restore(frozen(child), 8, branch=True)
    assert grandchild.parts()["transform.pace"]["count"] == 2, "one that the parent has goes on"


def test_a_transforms_state_must_be_there_otherwise(parent: Parts) -> None:
    with pytest.raises(CheckpointError, match="step 6 does not fit these dynamics"):
        Trainer(dynamics(transforms=["pace"]), seed=0).restore(parent, 6)


def test_a_branch_continues_the_count_of_steps(parent: Parts) -> None:
    """Data, noise and warm-up go by the steps from the root."""
    d = dynamics(optimiser={"name": "adam", "lr": 1.0, "warmup_steps": 10})
    child = Trainer(d, seed=0)
    child.restore(parent, 6, branch=True)
    assert child.optimiser.learning_rate(child.step) == pytest.approx(0.7)
    assert torch.equal(child.draw_batch(child.step).x, Trainer(dynamics(), seed=0).draw_batch(6).x)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda p: p.pop("ema"),
        lambda p: p.pop("optimiser"),
        lambda p: p["online"].popitem(),
        lambda p: p["online"].update(more=torch.ones(1)),
        lambda p: p["online"].update({"output.bias": torch.ones(3)}),
        lambda p: p["optimiser"].update({"exp_avg/more": torch.ones(1)}),
    ],
)
def test_parts_that_do_not_fit(parent: Parts, break_it: Any) -> None:
    break_it(parent)
    with pytest.raises(CheckpointError, match="the checkpoint at step 6 does not fit these dynamics"):
        Trainer(dynamics(), seed=0).restore(parent, 6)


def test_another_architecture_does_not_fit(parent: Parts) -> None:
    for network in (DIT, {**MLP, "width": 24}, {**MLP, "depth": 3}):
        with pytest.raises(CheckpointError, match="does not fit"):
            Trainer(dynamics(network=network), seed=0).restore(parent, 6)


# --- pure functions of (seed, i) ---------------------------------------------------------------------------


def same_batch(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("x", "eps", "r", "t", "y"))


def test_a_batch_has_no_history() -> None:
    d = dynamics(label_dropout=0.2)
    one, other = Trainer(d, seed=0), Trainer(d, seed=0)
    expected = [one.draw_batch(i) for i in range(5)]
    train(other, 3)
    torch.manual_seed(123)
    for i in (4, 0, 2, 2, 1, 3):
        assert same_batch(other.draw_batch(i), expected[i])
    assert not any(same_batch(expected[i], expected[i + 1]) for i in range(4))
    assert not same_batch(Trainer(d, seed=1).draw_batch(0), expected[0])


def test_arms_share_their_noise() -> None:
    """Two dynamics of one seed see the same data, noise and times, so their difference is not noise."""
    a = Trainer(dynamics(fm_ratio=0.25), seed=0).draw_batch(3)
    b = Trainer(dynamics(fm_ratio=0.75, network=DIT), seed=0).draw_batch(3)
    for f in ("x", "eps", "t", "y"):
        assert torch.equal(getattr(a, f), getattr(b, f))
    assert torch.equal(a.r[12:], b.r[12:])


def test_streams_are_apart() -> None:
    """Data, noise, times and dropped labels come from different generators: noise is not a function of the data."""
    b = Trainer(dynamics(batch_size=512, data={"name": "gaussian", "dim": 2}, fm_ratio=0.0), seed=0).draw_batch(0)
    columns = torch.stack([b.x[:, 0], b.x[:, 1], b.eps[:, 0], b.eps[:, 1], b.t.logit() + b.r.logit()])
    correlation = torch.corrcoef(columns) - torch.eye(5)
    assert correlation.abs().max() < 0.17


def test_global_random_numbers_are_not_touched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trainer = Trainer(dynamics(label_dropout=0.2, transforms=["pace"]), seed=0)
    train(trainer, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_depend_on_architecture_and_seed_alone() -> None:
    d = dynamics()
    one = Trainer(d, seed=0).online
    torch.manual_seed(77)
    assert equal_weights(one, Trainer(dynamics(fm_ratio=0.5, ema_decay=0.5), seed=0).online)
    assert not equal_weights(one, Trainer(d, seed=1).online)
    data = d.data.build()
    assert equal_weights(one, [p.data for p in build_network(d, data, 0).parameters()])
    assert equal_weights(Trainer(d, seed=0).ema, one)


# --- the law of what is drawn ------------------------------------------------------------------------------


def large(n: int = 20_000, **changes: Any) -> Batch:
    trainer = Trainer(dynamics(batch_size=n, **{"data": "gaussian", **changes}), seed=0)
    return trainer.draw_batch(0)


@pytest.mark.parametrize(("mean", "std"), [(-0.4, 1.0), (0.5, 1.6)])
def test_times_are_two_sorted_logit_normals(mean: float, std: float) -> None:
    b = large(fm_ratio=0.0, time_sampler={"name": "logit_normal", "mean": mean, "std": std})
    assert bool((b.t >= b.r).all())
    assert b.r.min() > 0
    assert b.t.max() < 1

    def normal(x: Any) -> Any:
        return stats.norm.cdf((x - mean) / std)

    assert stats.kstest(b.t.logit().numpy(), lambda x: normal(x) ** 2).pvalue > 1e-3
    assert stats.kstest(b.r.logit().numpy(), lambda x: 1 - (1 - normal(x)) ** 2).pvalue > 1e-3
    assert stats.kstest(b.t.logit().numpy(), normal).pvalue < 1e-10, "the test can tell one draw from two"
    # Sorted, they are dependent; either is the first draw with equal probability.
    first = torch.where(torch.rand(len(b.t)) < 0.5, b.r, b.t)
    assert stats.kstest(first.logit().numpy(), normal).pvalue > 1e-3


def test_rows_of_v_have_an_empty_interval_and_the_larger_time() -> None:
    b = large(fm_ratio=0.75)
    n = 15_000
    assert b.v_rows == n
    assert torch.equal(b.r[:n], b.t[:n])
    assert bool((b.r[n:] < b.t[n:]).all())
    assert b.t[:n].mean() == pytest.approx(0.535, abs=0.006)
    assert b.t[n:].mean() == pytest.approx(0.535, abs=0.01)
    assert b.delta_t[n:].mean() == pytest.approx(0.535 - (2 * 0.418 - 0.535), abs=0.01)


def test_noise_is_normal() -> None:
    b = large(fm_ratio=0.0)
    assert stats.kstest(b.eps.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(b.x.flatten().numpy(), lambda x: stats.norm.cdf((x - 1.0) / 0.5)).pvalue > 1e-3


def test_labels_are_dropped_independently_of_everything() -> None:
    """Of the row's kind (v or u), of its class and of its times, with the probability asked for."""
    trainer = Trainer(dynamics(batch_size=64, data="gmm", label_dropout=0.3, fm_ratio=0.5), seed=0)
    plain = Trainer(dynamics(batch_size=64, data="gmm", fm_ratio=0.5), seed=0)
    kinds, dropped, classes, times = [], [], [], []
    for i in range(150):
        b, kept = trainer.draw_batch(i), plain.draw_batch(i)
        assert b.y is not None
        assert kept.y is not None
        gone = b.y == 10
        assert torch.equal(b.y[~gone], kept.y[~gone])
        kinds.append(torch.arange(64) < b.v_rows)
        dropped.append(gone)
        classes.append(kept.y)
        times.append(b.t)
    kind, gone, label, t = (torch.cat(x) for x in (kinds, dropped, classes, times))
    assert stats.binomtest(int(gone.sum()), len(gone), 0.3).pvalue > 1e-3
    for other, n in ((kind.long(), 2), (label, 10), ((t > 0.5).long(), 2)):
        table = torch.zeros(2, n)
        table.index_put_((gone.long(), other), torch.ones(len(gone)), accumulate=True)
        assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3


def test_no_label_is_dropped_unless_asked() -> None:
    b = Trainer(dynamics(batch_size=256), seed=0).draw_batch(0)
    assert b.y is not None
    assert b.y.max() == 9
    all_dropped = Trainer(dynamics(batch_size=256, label_dropout=1.0), seed=0).draw_batch(0).y
    assert all_dropped is not None
    assert bool((all_dropped == 10).all())


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


def test_tf32_is_switched_on_and_off() -> None:
    for precision, expected in (("tf32", "high"), ("fp32", "highest")):
        Trainer(dynamics(precision=precision), seed=0).advance()
        assert torch.get_float32_matmul_precision() == expected


# --- what is refused ---------------------------------------------------------------------------------------


def test_guidance_is_refused() -> None:
    with pytest.raises(NotBuilt, match="guidance inside training is not built yet: set guidance to null"):
        Trainer(dynamics(guidance={"cfg_omega": 1.0, "cfg_kappa": 0.5}), seed=0)


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
    trainer.check_finite()
    with torch.no_grad():
        trainer.online[-1][0] = value
    with pytest.raises(Diverged, match=r"the weight output\.bias is not finite at step 2"):
        trainer.check_finite()
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
        batch_size=256,
        fm_ratio=0.5,
        ema_decay=0.995,
        optimiser={"name": "adam", "lr": 4e-3},
        objective={"name": "meanflow", "adaptive_p": 0},
        time_sampler={"name": "logit_normal", "std": 1.6},
    )
    trainer = Trainer(d, seed=0)
    for _ in range(1500):
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
