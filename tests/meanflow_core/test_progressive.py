"""The progressive weight β(Δt, s): its schedule, its mean of 1, λ under a curriculum, and its dependence on T."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from meanflow_core.config import Dynamics, trajectory_key
from meanflow_core.progressive import Progressive
from meanflow_core.registry import HorizonError, parse_spec
from meanflow_core.trainer import Trainer
from meanflow_core.weights import beta
from tests.meanflow_core import dynamics, naive

SCHEDULES = ["falling", "constant", "rising"]
OFFICIAL = {"mean": -0.4, "std": 1.0}
TIMES = parse_spec("time_sampler", {"name": "logit_normal", **OFFICIAL}).build()
F64 = torch.float64
unit = st.floats(0, 1)


def transform(horizon: int | None = 100, **params: Any) -> Progressive:
    built: Progressive = parse_spec("transform", {"name": "progressive_weight", **params}).build(horizon, times=TIMES)
    return built


# --- β ------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(unit, unit, st.floats(1, 3))
def test_beta_mixes_all_alike_with_small_gaps_first(delta_t: float, s: float, lam: float) -> None:
    gap = torch.tensor([delta_t], dtype=F64)
    assert float(beta(gap, s, lam)) == pytest.approx(naive.beta(delta_t, s, lam))
    assert float(beta(gap, 0.0, lam)) == 1
    assert float(beta(gap, 1.0, lam)) == pytest.approx(lam * (1 - delta_t))
    assert float(beta(gap, s, lam)) >= float(beta(gap + 0.1, s, lam)), "never more for a larger gap"


@settings(max_examples=40)
@given(unit, st.floats(0, 0.95))
def test_beta_is_1_on_average_at_every_s(s: float, above: float) -> None:
    """E[β] = 1 − s + λ·s·E[1 − Δt] = 1, under the bound of any stage."""
    lam = 1 / (1 - TIMES.mean_gap(above))
    x, y = (torch.from_numpy(naive.quantiles(OFFICIAL, 500, a)) for a in (above, 0.0))
    gaps = (x[:, None] - y[None, :]).abs().flatten()
    assert float(beta(gaps, s, lam).mean()) == pytest.approx(1, abs=1e-4)


# --- s ------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.sampled_from(SCHEDULES), st.floats(0.25, 4), st.integers(1, 10_000), st.data())
def test_schedule(schedule: str, k: float, horizon: int, data: st.DataObject) -> None:
    step, later = sorted(data.draw(st.tuples(*[st.integers(0, horizon - 1)] * 2)))
    ours = transform(horizon, schedule=schedule, schedule_power=k)
    assert ours.s(step) == pytest.approx(naive.progress(schedule, step, horizon, k))
    assert 0 <= ours.s(step) <= 1
    assert ours.s(0) == (0 if schedule == "rising" else 1)
    way = {"falling": -1, "constant": 0, "rising": 1}[schedule]
    assert way * (ours.s(later) - ours.s(step)) >= 0
    if schedule == "falling":
        slower = transform(horizon, schedule_power=2 * k)
        assert slower.s(step) >= ours.s(step), "k > 1 stays longer with small gaps"


def test_linear_by_hand() -> None:
    assert [transform(4).s(i) for i in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [transform(4, schedule_power=2).s(i) for i in range(4)] == [1, 15 / 16, 3 / 4, 7 / 16]
    assert [transform(4, schedule="rising").s(i) for i in range(4)] == [0, 0.25, 0.5, 0.75]


# --- the transform -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v_rows", [0, 3, 8])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_multiplies_weights_where_r_is_not_t(schedule: str, v_rows: int) -> None:
    changes = {"fm_ratio": v_rows / 8, "batch_size": 8, "label_dropout": 0.0}
    batch = Trainer(dynamics(**changes), seed=0).draw_batch(0)
    ours = transform(schedule=schedule, schedule_power=2.0)
    weights = torch.arange(1.0, 9.0)
    found = ours.weights(30, batch, weights)
    s = naive.progress(schedule, 30, 100, 2.0)
    for i, gap in enumerate(batch.delta_t.tolist()):
        factor = 1.0 if i < v_rows else naive.beta(gap, s, 1.304500)
        assert float(found[i]) == pytest.approx((i + 1) * factor, rel=1e-4)
    assert torch.equal(found[:v_rows], weights[:v_rows])
    assert ours.logged() == {"schedule_s": pytest.approx(s)}


@pytest.mark.parametrize("stage", [1, 10, 20])
def test_lambda_is_that_of_the_stage(stage: int) -> None:
    """Monte Carlo over a batch that the trainer draws: β is 1 on average in every stage, with its own λ only."""
    transforms = ["dtd", {"name": "progressive_weight", "schedule": "constant"}]
    trainer = Trainer(dynamics(data="gaussian", fm_ratio=0.5, batch_size=200_000, transforms=transforms), seed=0)
    curriculum, progressive = trainer.transforms
    curriculum.stage = stage  # type: ignore[attr-defined]
    batch = trainer.draw_batch(0)
    assert batch.t_above == pytest.approx(1 - stage / 20)
    n = batch.v_rows
    weights = progressive.weights(0, batch, torch.ones(len(batch.t)))[n:]
    assert float(weights.mean()) == pytest.approx(1.0, abs=4 * float(weights.std()) / n**0.5)
    off = abs(float(beta(batch.delta_t[n:], 1.0, 1.3045).mean()) - 1)
    assert off > 0.02 if stage < 20 else off < 0.01, "the ordinary λ belongs to the last stage"


def test_lambda_over_all_rows() -> None:
    """1/(1 − (1 − P(t = r))·E[Δt]), which is 1.06198 at the official times and ratio; the same for a rank's share."""
    ours = transform(schedule="constant", lambda_over="all_rows")
    batch = Trainer(dynamics(fm_ratio=0.75, batch_size=16, label_dropout=0.0), seed=0).draw_batch(0)
    expected = [1.0] * 12 + [naive.beta(gap, 1.0, 1.061980) for gap in batch.delta_t[12:].tolist()]
    assert ours.weights(0, batch, torch.ones(16)).tolist() == pytest.approx(expected, rel=1e-5)
    half = replace(batch, x=batch.x[10:], eps=batch.eps[10:], r=batch.r[10:], t=batch.t[10:], v_rows=2, of=batch)
    assert ours.weights(0, half, torch.ones(6)).tolist() == pytest.approx(expected[10:], rel=1e-5)
    assert "lambda_over" not in parse_spec("transform", "progressive_weight").dump()


# --- T ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_is_bound_to_its_horizon_and_a_constant_is_not(schedule: str) -> None:
    d = dynamics(transforms=[{"name": "progressive_weight", "schedule": schedule}])
    keys = {trajectory_key(None, d, 0, horizon) for horizon in (100, 200)}
    bound = schedule != "constant"
    assert (d.uses_horizon, len(keys)) == (bound, 2 if bound else 1)
    if bound:
        with pytest.raises(ValueError, match="give horizon_steps"):
            trajectory_key(None, d, 0)
        with pytest.raises(HorizonError, match="'progressive_weight' needs the horizon T"):
            Trainer(d, seed=0)
    else:
        assert trajectory_key(None, d, 0) in keys
        assert Trainer(d, seed=0).advance(log=True)["schedule_s"] == 1


def test_pinned_key() -> None:
    """Results made today must be found again by later versions."""
    transforms = ["dtd", {"name": "progressive_weight", "schedule_power": 2}, {"name": "min_snr", "normalise": True}]
    d = Dynamics.model_validate({"network": "mlp", "data": "digits", "transforms": transforms})
    assert trajectory_key(None, d, 0, 2400) == "ac5a4bb67bfb5917d63d"


def test_steps_count_from_the_root() -> None:
    """A child trajectory goes on where its parent's schedule stands."""
    d = dynamics(transforms=["progressive_weight"])
    parent, child = (Trainer(d, seed=0, horizon_steps=8) for _ in range(2))
    logged = [parent.advance(log=True)["schedule_s"] for _ in range(2)]
    child.restore(parent.parts(), 2, branch=True)
    logged += [child.advance(log=True)["schedule_s"] for _ in range(2)]
    assert logged == [1, 7 / 8, 6 / 8, 5 / 8]


def test_not_beside_a_restriction_of_the_gap() -> None:
    gap = {"name": "gap_restriction", "lo": 0.1, "hi": 0.3}
    with pytest.raises(ValidationError, match="takes λ from the time sampler, whose gaps 'gap_restriction' changes"):
        Dynamics.model_validate({"network": "mlp", "data": "digits", "transforms": [gap, "progressive_weight"]})
