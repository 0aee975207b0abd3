"""DTD: which times a stage draws, when it ends, and that its pace survives saving, restoring and branching."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from meanflow_core.checkpoint import CheckpointError, load_checkpoint, write_checkpoint
from meanflow_core.components import DTDParams
from meanflow_core.curriculum import DTD, stage_bounds
from meanflow_core.objectives import Terms
from meanflow_core.registry import parse_spec
from meanflow_core.trainer import Trainer
from tests.meanflow_core import dynamics
from tests.meanflow_core.trainers import assert_same_state, equal_weights, frozen, train

TIMES = parse_spec("time_sampler", "logit_normal").build()


def transform(times: Any = TIMES, **params: Any) -> DTD:
    built: DTD = parse_spec("transform", {"name": "dtd", **params}).build(times=times)
    return built


def terms(v_mse: float) -> Terms:
    """A step whose raw v-loss is given, and whose weighted loss is 1 as ever."""
    squared = torch.tensor([v_mse, v_mse, 7.0])
    return Terms(torch.ones(3), squared, 2, squared.mean())


def paced(clusters: int = 3, patience: int = 3, **changes: Any) -> Trainer:
    """A trainer whose curriculum is over after some ten steps."""
    dtd = {"name": "dtd", "clusters": clusters, "patience": patience}
    return Trainer(dynamics(**{"transforms": [dtd], "fm_ratio": 0.5, **changes}), seed=0, horizon_steps=40)


def of(trainer: Trainer) -> DTD:
    (found,) = [hook for hook in trainer.transforms if isinstance(hook, DTD)]
    return found


# --- clusters -----------------------------------------------------------------------------------------------


def test_uniform_clusters() -> None:
    assert stage_bounds(DTDParams(clusters=4), TIMES) == [0.75, 0.5, 0.25, 0.0]
    twenty = stage_bounds(DTDParams(), TIMES)
    assert twenty == pytest.approx([1 - n / 20 for n in range(1, 21)])
    assert twenty[-1] == 0.0, "not merely next to it: the last stage is the ordinary sampler"


@pytest.mark.parametrize(
    "sampler", [{"name": "logit_normal"}, {"name": "logit_normal", "mean": -2, "std": 2}, "uniform"]
)
def test_clusters_of_equal_mass(sampler: Any) -> None:
    times = parse_spec("time_sampler", sampler).build()
    bounds = stage_bounds(DTDParams(clusters=5, spacing="equal_mass"), times)
    assert [times.cdf(a) for a in bounds] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0], abs=1e-9)
    assert bounds[-1] == 0.0
    if sampler == "uniform":
        assert bounds == pytest.approx(stage_bounds(DTDParams(clusters=5), times))


def test_one_cluster_is_no_curriculum() -> None:
    plain = dynamics()
    assert dynamics(transforms=[{"name": "dtd", "clusters": 1}]).canonical() == plain.canonical()


def test_a_cluster_in_which_no_time_is_drawn_is_refused() -> None:
    narrow = parse_spec("time_sampler", {"name": "logit_normal", "std": 0.2}).build()
    with pytest.raises(ValueError, match=r"no time is drawn in the first of 20 clusters, t ≥ 0\.95: .*equal_mass"):
        transform(narrow)
    transform(narrow, spacing="equal_mass")
    transform(narrow, clusters=4)


# --- pace ---------------------------------------------------------------------------------------------------


def stages_of(losses: list[float], patience: int, clusters: int) -> list[int]:
    """The stage after each step, from whole windows: stage n is over when its first lowest loss is ``patience`` old."""
    stages, stage, start = [], 1, 0
    for now in range(len(losses)):
        window = losses[start : now + 1]
        if stage < clusters and now - start - window.index(min(window)) == patience:
            stage, start = stage + 1, now + 1
        stages.append(stage)
    return stages


@settings(max_examples=300)
@given(st.lists(st.integers(1, 6).map(float), max_size=80), st.integers(1, 5), st.integers(2, 6))
def test_pace_is_that_of_a_loop_over_the_losses(losses: list[float], patience: int, clusters: int) -> None:
    dtd, found, said = transform(clusters=clusters, patience=patience), [], []
    for step, loss in enumerate(losses):
        before = dtd.stage
        assert dtd.t_above(step) == pytest.approx(1 - before / clusters)
        said.append(dtd.after_step(step, terms(loss)))
        found.append(dtd.stage)
        assert said[-1] == ({} if dtd.stage == before else dtd.logged())
    assert found == stages_of(losses, patience, clusters)
    assert found == sorted(found) and max(found, default=1) <= clusters
    assert len([one for one in said if one]) == max(found, default=1) - 1, "each stage is told once"


def test_a_falling_loss_never_ends_a_stage_and_a_flat_one_does_at_once() -> None:
    falling, flat = (transform(clusters=5, patience=3) for _ in range(2))
    for step in range(30):
        falling.after_step(step, terms(100.0 - step))
        flat.after_step(step, terms(1.0))
    assert falling.stage == 1
    assert flat.stage == 5
    assert stages_of([1.0] * 16, 3, 5) == [1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5]


def test_pace_is_that_of_the_raw_v_loss() -> None:
    """Neither the weighted loss, which is 1 always, nor the u-loss."""
    dtd = transform(clusters=3, patience=2)
    for step in range(6):
        squared = torch.tensor([50.0 - step, 60.0 - step, 10.0 + step])
        dtd.after_step(step, Terms(torch.ones(3), squared, 2, squared.mean()))
    assert (dtd.stage, dtd.best) == (1, 50.0)


def test_a_loss_that_is_not_a_number_is_no_improvement() -> None:
    dtd = transform(clusters=3, patience=2)
    for step, loss in enumerate([math.nan, math.nan]):
        dtd.after_step(step, terms(loss))
    assert dtd.stage == 2


# --- in training ---------------------------------------------------------------------------------------------


def test_times_are_drawn_above_the_bound_of_the_stage() -> None:
    trainer, plain = paced(batch_size=512), paced(batch_size=512, transforms=[])
    for stage in (1, 2, 3):
        of(trainer).stage = stage
        batch, ordinary = trainer.draw_batch(4), plain.draw_batch(4)
        bound = [2 / 3, 1 / 3, 0.0][stage - 1]
        assert batch.t_above == pytest.approx(bound)
        assert (batch.t >= torch.tensor(bound)).all(), "of both losses"
        assert torch.equal(batch.r[:256], batch.t[:256])
        if stage < 3:
            assert (batch.r[256:] < bound).any(), "r is free"
            assert not torch.equal(batch.t, ordinary.t)
        else:
            assert torch.equal(batch.r, ordinary.r) and torch.equal(batch.t, ordinary.t)
        assert torch.equal(batch.x, ordinary.x) and torch.equal(batch.eps, ordinary.eps)


def test_the_last_stage_is_ordinary_training_bitwise() -> None:
    curriculum, plain = paced(), paced(transforms=[])
    train(curriculum, 25)
    assert of(curriculum).stage == 3
    plain.restore({part: tensors for part, tensors in frozen(curriculum).items() if "dtd" not in part}, 25)
    for _ in range(3):
        theirs = plain.advance(log=True)
        ours = curriculum.advance(log=True)
        assert {name: ours[name] for name in theirs} == theirs
    assert equal_weights(curriculum.online, plain.online)


def test_the_change_of_a_stage_is_logged_at_its_very_step() -> None:
    """Also where nothing else is; between, the stage stands among what is logged."""
    quiet, loud = paced(), paced()
    said = {i: values for i in range(1, 31) if (values := quiet.advance())}
    rows = train(loud, 30)
    stages = [row["dtd_stage"] for row in rows]
    changes = [i + 1 for i in range(30) if stages[i] != ([1.0, *stages])[i]]
    assert [*said] == changes and len(changes) == 2
    assert [values["dtd_stage"] for values in said.values()] == [2, 3]
    assert [values["dtd_t_above"] for values in said.values()] == pytest.approx([1 / 3, 0])
    assert stages_of([row["v_mse"] for row in rows], 3, 3) == stages


def test_without_a_v_loss_there_is_no_pace() -> None:
    with pytest.raises(ValidationError, match="paced by the v-loss, and with fm_ratio 0 there is none"):
        dynamics(transforms=["dtd"], fm_ratio=0.0)


# --- state ---------------------------------------------------------------------------------------------------

BOTH: dict[str, Any] = {
    "alone": {},
    "with the weight of u": {"transforms": [{"name": "dtd", "clusters": 3, "patience": 3}, "progressive_weight"]},
    "guided": {"guidance": {"cfg_omega": 1.0, "cfg_kappa": 0.5, "hi": 0.9}, "label_dropout": 0.2},
}


@pytest.mark.parametrize("n", [2, 5, 8])
@pytest.mark.parametrize("case", BOTH)
def test_n_plus_m_steps_in_the_middle_of_the_curriculum(case: str, n: int, tmp_path: Path) -> None:
    whole, first, second = (paced(**BOTH[case]) for _ in range(3))
    logged = train(whole, n + 15)
    head = train(first, n)
    assert (of(first).stage, of(first).stale) != (1, 0)
    write_checkpoint(tmp_path / "n", first.parts(), {"step": n})
    second.restore(load_checkpoint(tmp_path / "n").parts, n)
    assert head + train(second, 15) == logged
    assert_same_state(second.parts(), whole.parts())
    assert logged[n - 1]["dtd_stage"] < logged[-1]["dtd_stage"] == 3, "a stage ended after restoring"


def test_without_its_state_training_would_go_another_way() -> None:
    """What the test above guards."""
    one, other = paced(), paced()
    train(one, 8)
    state = frozen(one)
    state["transform.dtd"] = paced().parts()["transform.dtd"]
    other.restore(state, 8)
    assert train(one, 15) != train(other, 15)


def test_the_best_loss_is_kept_exactly() -> None:
    dtd, again = transform(), transform()
    dtd.after_step(0, terms(1 / 3))
    dtd.after_step(1, terms(0.5))
    again.load_state_dict(dtd.state_dict())
    assert (again.stage, again.best, again.stale) == (1, float(torch.tensor(1 / 3)), 1)
    fresh = transform()
    fresh.load_state_dict(transform().state_dict())
    assert fresh.best == math.inf


def test_a_branch_continues_the_curriculum_of_its_parent() -> None:
    parent = paced()
    train(parent, 11)
    child = paced(fm_ratio=0.25)
    child.restore(frozen(parent), 11, branch=True)
    assert of(child).state_dict()["pace"].equal(of(parent).state_dict()["pace"])


def test_a_stage_that_the_curriculum_does_not_have_is_refused() -> None:
    parent = paced(clusters=6, patience=1)
    train(parent, 30)
    assert of(parent).stage > 3
    with pytest.raises(CheckpointError, match=r"is at stage [456] of 6; this curriculum has 3"):
        paced().restore(frozen(parent), 30)
    with pytest.raises(CheckpointError, match=r"is at stage [456] of 6; this curriculum has 12"):
        paced(clusters=12).restore(frozen(parent), 30)
