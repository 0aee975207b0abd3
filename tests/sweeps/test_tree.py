"""The tree shares prefixes, and counts what that saves."""

from __future__ import annotations

from studies.loader import load_source, resolve
from sweeps.session import open_session


def session(scale: str = "paper", *overrides: str):  # type: ignore[no-untyped-def]
    return open_session([resolve(load_source("obs_v_then_u"), scale, overrides)])


def test_figure_2_needs_370_of_750_epochs() -> None:
    s = session()
    epochs = s.epochs()
    assert (epochs.naive, epochs.planned, epochs.control) == (750, 370, 80)
    assert s.tree.segments() == 4 + 2 + 2 + 2 + 2 + 1 + 1  # v, u after 0, 5, 10, 15, 20 epochs, the control


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
