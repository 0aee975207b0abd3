"""Gap restriction: what it does to (r, t), how often r would be negative, and that only the u-rows see it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from meanflow_core.components import GapRange, LogitNormalParams
from meanflow_core.gaps import restrict_gap
from meanflow_core.times import LogitNormal
from meanflow_core.trainer import Trainer
from tests.meanflow_core import dynamics

RANGES = [(0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9)]
POLICIES = ["clamp", "resample_t", "allow_negative"]
N = 200_000


def restricted(lo: float, hi: float, policy: Any, std: float = 1.0, n: int = N) -> tuple[Tensor, ...]:
    """(r_raw, t_raw, r, t, outside) of the official sampler."""
    rng = torch.Generator().manual_seed(0)
    sampler = LogitNormal(LogitNormalParams(std=std))
    r, t = sampler.draw(n, rng)
    return (
        r,
        t,
        *restrict_gap(r, t, GapRange(lo=lo, hi=hi, negative_r=policy), lambda b: sampler.draw_t_above(b, rng)),
    )


@pytest.mark.parametrize(("gap", "share"), [*zip(RANGES, [0.002, 0.137, 0.52, 0.90], strict=True)], ids=str)
def test_how_often_r_would_be_negative(gap: tuple[float, float], share: float) -> None:
    """The fractions for the official sampler, known to the digits given."""
    outside = restricted(*gap, "clamp")[-1].double()
    assert outside.mean() == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize("gap", RANGES, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_gap_is_the_raw_one_mapped_onto_the_range(policy: str, gap: tuple[float, float]) -> None:
    r_raw, t_raw, r, t, outside = restricted(*gap, policy, n=5000)
    wanted = gap[0] + (gap[1] - gap[0]) * (t_raw - r_raw)
    assert torch.equal(outside, t_raw < wanted)
    inside = ~outside
    torch.testing.assert_close((t - r)[inside], wanted[inside], atol=1e-6, rtol=0)
    assert torch.equal(t[inside], t_raw[inside])
    if policy == "clamp":
        assert torch.equal(t, t_raw) and (r[outside] == 0).all()
    elif policy == "allow_negative":
        assert torch.equal(t, t_raw) and (r[outside] < 0).all()
        torch.testing.assert_close(t - r, wanted, atol=1e-6, rtol=0)
    else:
        assert (r >= 0).all() and (t < 1).all()
        torch.testing.assert_close(t - r, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("std", [1.0, 1.6])
@pytest.mark.parametrize("bound", [1e-3, 0.3, 0.9])
def test_t_above_a_bound_has_the_conditional_law(bound: float, std: float) -> None:
    """Oracle: rejection from the larger of two draws, by a two-sample Kolmogorov–Smirnov test."""
    rng = torch.Generator().manual_seed(1)
    sampler = LogitNormal(LogitNormalParams(std=std))
    t = sampler.draw(2_000_000, rng)[1]
    kept = t[t >= bound][:20_000].numpy()
    drawn = sampler.draw_t_above(torch.full((20_000,), bound), rng).numpy()
    assert drawn.min() >= np.float32(bound)
    assert stats.ks_2samp(kept, drawn).pvalue > 1e-3


@settings(max_examples=50)
@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.3, 3.0))
def test_t_above_any_bound_is_a_time(bound: float, std: float) -> None:
    sampler = LogitNormal(LogitNormalParams(std=std))
    t = sampler.draw_t_above(torch.full((100,), bound), torch.Generator().manual_seed(0))
    assert torch.isfinite(t).all() and (t >= torch.tensor(bound)).all() and (t < 1).all()


def test_rows_that_train_v_keep_r_equal_to_t() -> None:
    plain = Trainer(dynamics(fm_ratio=0.5), seed=0)
    gap = Trainer(dynamics(fm_ratio=0.5, transforms=[{"name": "gap_restriction", "lo": 0.7, "hi": 0.9}]), seed=0)
    before, after = plain.draw_batch(3), gap.draw_batch(3)
    n = before.v_rows
    assert torch.equal(after.r[:n], after.t[:n]) and torch.equal(after.t[:n], before.t[:n])
    delta_t = after.delta_t[n:]
    assert (delta_t > 0.7 - 1e-6).all() and (delta_t < 0.9 + 1e-6).all()
    assert torch.equal(before.x, after.x) and torch.equal(before.eps, after.eps)


def test_the_log_holds_the_fraction_of_draws_concerned() -> None:
    transforms = [{"name": "gap_restriction", "lo": 0.5, "hi": 0.7}]
    trainer = Trainer(dynamics(fm_ratio=0.5, transforms=transforms), seed=0)
    batch = trainer.draw_batch(0)
    values = trainer.advance(log=True)
    assert values["gap_out_of_range"] == pytest.approx(float((batch.r[batch.v_rows :] < 0).float().mean()))
    assert math.isfinite(values["u_mse"])


def test_resampling_is_a_function_of_the_step_alone() -> None:
    transforms = [{"name": "gap_restriction", "lo": 0.7, "hi": 0.9, "negative_r": "resample_t"}]
    a, b = (Trainer(dynamics(fm_ratio=0.0, transforms=transforms), seed=0) for _ in range(2))
    a.draw_batch(5)
    assert torch.equal(a.draw_batch(7).t, b.draw_batch(7).t)
    assert not torch.equal(a.draw_batch(7).t, a.draw_batch(8).t)
