"""Corrupted v-targets: the size and law of the noise, and that the u-loss never sees it."""

from __future__ import annotations

import pytest
import torch

from meanflow_core.config import Dynamics, trajectory_key
from meanflow_core.corruption import corrupt, corruption_scale
from meanflow_core.objectives import u_error, v_error
from meanflow_core.trainer import Trainer
from tests.meanflow_core import dynamics


def corrupted(sigma: float) -> dict[str, list[dict[str, object]]]:
    return {"transforms": [{"name": "target_corruption", "relative_noise": sigma}]}


def test_the_papers_scale() -> None:
    """k = 0.03 in 4096 dimensions has the relative size 1.92, which 64 dimensions reach with k = 0.24."""
    assert corruption_scale(1.92, 4096) == pytest.approx(0.03)
    assert corruption_scale(1.92, 64) == pytest.approx(0.24)


@pytest.mark.parametrize("dim", [4, 64, 1024])
def test_the_noise_has_the_relative_size_declared_in_any_dimension(dim: int) -> None:
    rng = torch.Generator().manual_seed(0)
    target = 3 * torch.randn(20_000, dim, generator=rng)
    noise = torch.randn(target.shape, generator=rng)
    added = corrupt(target, noise, corruption_scale(1.92, dim)) - target
    relative = (added.square().sum(1) / target.square().sum(1)).mean().sqrt()
    assert float(relative) == pytest.approx(1.92, rel=0.02)


def test_each_row_is_scaled_by_its_own_norm() -> None:
    target = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).reshape(2, 1, 2)
    noise = torch.ones_like(target)
    expected = torch.tensor([[3.0 + 2.5, 4.0 + 2.5], [0.0, 0.0]]).reshape(2, 1, 2)
    torch.testing.assert_close(corrupt(target, noise, 0.5), expected)


def test_only_the_v_loss_sees_the_noise() -> None:
    trainer = Trainer(dynamics(fm_ratio=0.5, **corrupted(1.92)), seed=0)
    with torch.no_grad():
        for p in trainer.network.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    batch = trainer.draw_batch(4)
    n, y = batch.v_rows, batch.y
    assert y is not None
    terms = trainer.objective.terms(trainer.network, batch, 4, trainer.transforms)
    clean = trainer.objective.terms(trainer.network, batch, 4)
    assert torch.equal(terms.squared_error[n:], clean.squared_error[n:])
    assert (terms.squared_error[:n] != clean.squared_error[:n]).all()
    target = trainer.transforms[0].v_target(4, batch, batch.v_t[:n])
    e = v_error(trainer.network(batch.z[:n], batch.t[:n], batch.t[:n], y[:n]), target)
    torch.testing.assert_close(terms.squared_error[:n], e.flatten(1).square().sum(1).detach())
    e = u_error(trainer.network, batch.z[n:], batch.r[n:], batch.t[n:], y[n:], batch.v_t[n:])
    torch.testing.assert_close(terms.squared_error[n:], e.flatten(1).square().sum(1).detach())


def test_the_noise_is_fresh_at_every_step_and_a_function_of_it() -> None:
    a, b = (Trainer(dynamics(fm_ratio=1.0, **corrupted(1.0)), seed=0) for _ in range(2))
    batch = a.draw_batch(0)
    targets = [t.transforms[0].v_target(step, batch, batch.v_t) for t, step in ((a, 3), (b, 3), (a, 4))]
    assert torch.equal(targets[0], targets[1])
    assert not torch.equal(targets[0], targets[2])


def test_no_noise_is_no_transform() -> None:
    """So the clean arm of Figure 3 is the trajectory of ordinary training."""
    clean, none = dynamics(), dynamics(**corrupted(0.0))
    assert none.transforms == ()
    assert trajectory_key(None, clean, 0) == trajectory_key(None, none, 0)
    assert trajectory_key(None, dynamics(**corrupted(1.0)), 0) != trajectory_key(None, clean, 0)
    assert Dynamics.model_validate(none.dump()) == none
