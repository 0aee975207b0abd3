"""Training n + m steps equals training n, saving, restoring and training m; and what a branch takes over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from meanflow_core.checkpoint import CheckpointError, Parts, load_checkpoint, write_checkpoint
from meanflow_core.trainer import Trainer
from tests.meanflow_core import DIT, MLP, dynamics
from tests.meanflow_core.trainers import GRAD_NORM, assert_same_state, equal_weights, frozen, train

pytestmark = pytest.mark.usefixtures("pace")


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
