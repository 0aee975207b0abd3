"""The tree shares prefixes, and counts what that saves."""

from __future__ import annotations

from studies.loader import load_source, resolve
from sweeps.session import open_session
from sweeps.tree import merge_trees


def session(scale: str = "paper", *overrides: str):  # type: ignore[no-untyped-def]
    return open_session([resolve(load_source("obs_v_then_u"), scale, overrides)])


def test_figure_2_needs_370_of_750_epochs() -> None:
    s = session()
    epochs = s.epochs()
    assert (epochs.naive, epochs.planned, epochs.control) == (750, 370, 80)
    assert s.tree.segments() == 4 + 2 + 2 + 2 + 2 + 1 + 1  # v, u after 0, 5, 10, 15, 20 epochs, the control


OBSERVATIONS = ["obs_v_then_u", "obs_gap_restriction", "obs_task_affinity"]


def test_figures_2_4_and_5_need_710_of_1350_epochs() -> None:
    for names in (OBSERVATIONS, OBSERVATIONS[::-1]):
        epochs = open_session([resolve(load_source(name), "paper") for name in names]).epochs()
        assert (epochs.naive, epochs.planned) == (1350, 710)
        # probed: 40 from each of three starts; ours: 40 more of Figure 2's joint control, and continuing v
        assert (epochs.probe, epochs.control) == (120, 80)


def test_figures_8_and_10_on_faces() -> None:
    s = open_session([resolve(load_source(name), "paper-ffhq") for name in OBSERVATIONS[:2]])
    longest = max(arm.epochs for arm in s.arms)
    assert longest == 300 and {study.steps_per_epoch for study in s.studies} == {273}
    assert {arm.epochs for arm in s.arms if arm.panel == "bottom"} == {200}


def test_what_is_wanted_by_several_counts_for_the_paper_first_then_for_probes() -> None:
    affinity = resolve(load_source("obs_task_affinity"), "smoke")
    alone = open_session([affinity]).epochs()
    assert (alone.naive, alone.planned, alone.probe, alone.control) == (80, 80, 120, 0)
    # the clean arm of Figure 3 is ordinary MeanFlow training, which Figure 5 probes from a random start
    both = open_session([affinity, resolve(load_source("obs_v_corruption"), "smoke")]).epochs()
    assert (both.planned, both.probe) == (80 + 640, 80)


def test_epochs_are_per_seed_at_every_scale() -> None:
    for scale in ("smoke", "cpu", "truth"):
        epochs = session(scale).epochs()
        assert (epochs.naive, epochs.planned, epochs.control) == (750, 370, 80)


def test_planned_epochs_equal_a_naive_count_of_distinct_steps() -> None:
    """Oracle: the set of all (trajectory, step) that the paper's arms pass through."""
    s = session("smoke")
    spe = s.studies[0].steps_per_epoch
    steps = {
        (stage.trajectory.key, i)
        for arm in s.arms
        if not arm.control
        for stage in arm.stages
        for i in range(stage.start_step, stage.stop_step)
    }
    assert len(steps) / spe == s.epochs().planned


def test_a_control_that_the_arms_cover_costs_nothing() -> None:
    covered = "controls={same: {panel: top, text: x, stages: [{name: u_finetune, epochs: 70, fm_ratio: 0.0}]}}"
    assert session("smoke", covered).epochs().control == 0
    longer = covered.replace("70", "90")
    assert session("smoke", longer).epochs().control == 10


def test_weights_are_kept_on_the_way_of_every_stage_but_at_its_start() -> None:
    plain, kept = session("smoke"), session("smoke", "keep_every_epochs=3")
    every = 3 * kept.studies[0].steps_per_epoch
    assert not any(node.kept_steps for node in plain.tree)
    for node in kept.tree:
        assert node.kept_steps == {s for s in range(node.start_step + 1, node.stop_step + 1) if s % every == 0}
        assert node.snapshot_steps() == plain.tree.nodes[node.key].snapshot_steps() | node.kept_steps
    assert merge_trees([plain.tree, kept.tree]).nodes == kept.tree.nodes


def test_parents_stand_before_children() -> None:
    seen: set[str] = set()
    for node in session("cpu").tree:
        if node.trajectory.parent:
            assert node.trajectory.parent.trajectory in seen
        seen.add(node.key)


def test_large_trees_are_planned_in_linear_time() -> None:
    """Not a timed test: the number of nodes and points is what grows."""
    few, many = session("cpu"), open_session([resolve(load_source("obs_v_then_u"), "cpu", (), range(60))])
    assert len(many.tree.nodes) == 5 * len(few.tree.nodes)
    assert many.tree.evaluations() == 5 * few.tree.evaluations()
