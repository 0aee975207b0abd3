"""Expansion: stages on trajectories, and where arms are measured."""

from __future__ import annotations

import pytest

from meanflow_core.config import Checkpoint
from studies.arms import ema_note, expand, expand_seed, initial_share, measured_epochs
from studies.errors import StudyError
from studies.loader import load_source, resolve
from studies.schema import ResolvedStudy

BARE = ("claims=[]", "figure=null", "measure=[{metric: {name: frechet, features: pixel}, every_epochs: 10}]")


def study(*overrides: str, scale: str = "cpu") -> ResolvedStudy:
    return resolve(load_source("obs_v_then_u"), scale, overrides)


def test_arms_of_figure_2() -> None:
    arms = {(a.panel, a.name): a for a in expand_seed(study(), seed=0)}
    assert len(arms) == 11
    zero, twenty = arms["top", "v0"], arms["top", "v20"]
    assert [s.name for s in zero.stages] == ["u_finetune"], "a stage of 0 epochs vanishes"
    assert [(s.start_epoch, s.stop_epoch) for s in twenty.stages] == [(0, 20), (20, 80)]
    v, u = (s.trajectory for s in twenty.stages)
    assert v.dynamics.fm_ratio == 1.0 and u.dynamics.fm_ratio == 0.0
    assert u.parent == Checkpoint(v.key, 800)
    assert v.parent is None
    same = arms["bottom", "v20"]
    assert same.stages == twenty.stages, "both panels share their 20 + 60 run"
    short, long = arms["top", "v5"].stages[-1], arms["bottom", "v5"].stages[-1]
    assert short.trajectory == long.trajectory and short.stop_step < long.stop_step
    assert arms["bottom", "joint"].control


def test_seeds_share_nothing() -> None:
    keys = [{s.trajectory.key for a in expand_seed(study(), seed) for s in a.stages} for seed in (0, 1)]
    assert not keys[0] & keys[1]


def test_an_arm_of_no_epochs_is_refused() -> None:
    with pytest.raises(StudyError, match="nothing to train"):
        expand_seed(study("panels.top.arms={v_epochs: [0], u_epochs: 0}", "claims=[]"), 0)


def test_equal_consecutive_stages_are_one_trajectory() -> None:
    more = "[{name: a, epochs: 5, fm_ratio: 1.0}, {name: b, epochs: $v_epochs, fm_ratio: 1.0}]"
    arms = expand_seed(study(f"stages={more}", *BARE), 0)
    last = next(a for a in arms if a.name == "v20" and a.panel == "top")
    assert last.stages[0].trajectory == last.stages[1].trajectory
    assert (last.stages[1].start_step, last.stages[1].stop_step) == (200, 1000)


def test_reset_starts_a_trajectory_of_its_own() -> None:
    stages = "[{name: a, epochs: 5, fm_ratio: 1.0}, {name: b, epochs: 5, fm_ratio: 1.0, reset: [optimiser]}]"
    arm = expand_seed(study(f"stages={stages}", *BARE, "controls={}",
                            'panels={p: {title: t, arms: {v_epochs: [1]}}}'), 0)[0]  # fmt: skip
    first, second = arm.stages
    assert first.trajectory.key != second.trajectory.key
    assert second.trajectory.parent == Checkpoint(first.trajectory.key, 200)


@pytest.mark.parametrize(
    ("length", "every", "expected"),
    [(60, 10, [0, 10, 20, 30, 40, 50, 60]), (75, 20, [0, 20, 40, 60, 75]), (5, 10, [0, 5]), (60, None, [60])],
)
def test_measured_at_start_every_so_many_and_end(length: int, every: int | None, expected: list[int]) -> None:
    arm = expand_seed(study(f"panels.top.arms={{v_epochs: [{length}], u_epochs: 1}}", "claims=[]"), 0)[0]
    assert measured_epochs(arm.stages[0], every) == expected


def test_the_start_of_a_stage_is_the_end_of_the_one_before() -> None:
    arm = next(a for a in expand_seed(study(), 0) if a.name == "v10" and a.panel == "top")
    v, u = (s.trajectory.key for s in arm.stages)
    start = next(p for p in arm.points if p.stage == "u_finetune" and p.stage_epoch == 0)
    end = next(p for p in arm.points if p.stage == "v_pretrain" and p.stage_epoch == 10)
    assert start.checkpoint == Checkpoint(v, 400)
    assert start.evaluation == end.evaluation
    assert {p.checkpoint.trajectory for p in arm.points if p.stage_epoch and p.stage == "u_finetune"} == {u}


def test_every_point_has_its_own_key_unless_it_is_the_same_measurement() -> None:
    points = {p.evaluation: (p.checkpoint, p.protocol.key) for a in expand(study()) for p in a.points}
    assert len(points) == len(set(points.values()))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages=[{name: a, epochs: $nothing}]", r"\$nothing"),
        ("stages=[{name: a, epochs: 3, fm_raito: 1.0}]", "unknown key"),
        ("stages=[{name: a, epochs: 3, fm_ratio: 0.3333}]", "must be whole"),
        ("arm_name=x", "two arms"),
        ("arm_name='{nothing}'", "arm_name"),
    ],
)
def test_bad_declarations(override: str, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        expand(study(*BARE, override))


def test_what_is_trained_with_guidance_is_measured_against_the_guided_field() -> None:
    """Stage by stage, and only where the metric knows of guidance and the study says no other."""
    guided = ("dynamics.guidance={cfg_omega: 1.0, cfg_kappa: 0.5}", "dynamics.label_dropout=0.1")
    source = load_source("obs_gap_restriction")
    plain, all_guided, u_plain = (
        {
            (p.stage, p.protocol.metric_label): p.protocol
            for arm in expand_seed(resolve(source, "truth", overrides), 0)
            for p in arm.points
            if arm.name == "pretrained_01_03"
        }
        for overrides in ((), guided, (*guided, "stages.1.guidance=null"))
    )
    assert plain.keys() == all_guided.keys() == u_plain.keys()
    for (stage, label), protocol in all_guided.items():
        true_error = "error" in label
        assert (protocol.key != plain[stage, label].key) == true_error
        if true_error:
            assert protocol.metric.params.guidance.effective_omega == 2.0
        expected = plain if stage == "u_finetune" else all_guided
        assert u_plain[stage, label].key == expected[stage, label].key


@pytest.mark.parametrize("name", ["obs_v_then_u", "obs_task_affinity", "k_schedule", "cfg_configs"])
def test_other_seeds_are_expanded_as_the_first_is(name: str) -> None:
    """They are made from the arms of the first; each is what it would be alone, horizons and parents included."""
    resolved = resolve(load_source(name), "smoke", (), [3, 0, 7])
    assert expand(resolved, "v") == [arm for seed in (3, 0, 7) for arm in expand_seed(resolved, seed, "v")]


def test_the_share_of_the_initial_weights_in_what_is_measured() -> None:
    arms = {arm.name: arm for arm in expand_seed(study(), 0) if arm.panel == "top"}
    assert initial_share(arms["v20"]) == pytest.approx(0.995 ** (80 * 40))
    assert ema_note(list(arms.values())) is None
    slow = {arm.name: arm for arm in expand_seed(study("dynamics.ema_decay=0.9999"), 0) if arm.panel == "top"}
    assert initial_share(slow["v0"]) == pytest.approx(0.9999 ** (60 * 40))
    note = ema_note(list(slow.values()))
    assert note is not None and note.startswith("the EMA weights measured at the end of 5 arms")
    assert "(78.7 % in top/v0)" in note
    anew = expand_seed(study("dynamics.ema_decay=0.9999", "stages.1.reset=[ema]"), 0)
    assert initial_share(next(a for a in anew if a.name == "v20")) == pytest.approx(0.9999 ** (60 * 40))
    online = expand_seed(study("dynamics.ema_decay=0.9999", "claims=[]", "measure=[{metric: v_error, weights: online}]",
                               "primary=v_error", "truth=null", scale="truth"), 0)  # fmt: skip
    assert {initial_share(arm) for arm in online} == {0.0}
