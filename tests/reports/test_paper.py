"""The paper's values stand beside arms that are the paper's, and beside no other."""

from __future__ import annotations

import pytest

from reports.othermethods import other_methods
from reports.paper import claimed_effect, paper_column, paper_values, rank_groups, speedups_in
from studies.cli.sweeping import choose_sweep
from studies.loader import load_source, resolve

BEST = ("k1", "fid_1nfe")


def test_points_of_another_space_have_the_papers_values_where_they_are_its_arms() -> None:
    more, _ = choose_sweep("k_schedule", "smoke", None, ["space.schedule_power=[1, 4]"], "wide")
    assert paper_values(more)[BEST] == 10.20 and paper_column(more, "fid_1nfe")[1]["meanflow"] == 11.58


@pytest.mark.parametrize("override", ["base.method=u_weight", "constants.dtd_patience=3", "dynamics.batch_size=8"])
def test_changed_arms_have_none(override: str) -> None:
    changed, said = choose_sweep("k_schedule", "smoke", None, [override], "d3")
    assert changed.table is not None and "left out" not in said
    assert paper_values(changed) == {} and paper_column(changed, "fid_1nfe") == ("", {})
    assert other_methods(changed) is None


def effect(name: str, claim: str) -> float | None:
    one = resolve(load_source(name), "cpu")
    (found,) = [c for c in one.claims if c.id == claim]
    return claimed_effect(one, found, paper_values(one))


def test_the_effect_that_the_paper_gives_a_claim() -> None:
    assert effect("model_sizes", "dtd_over_min_snr_m") == pytest.approx(100 * (4.43 - 4.61) / 4.61)
    assert effect("model_sizes", "dtd_xl_2nfe") == pytest.approx(100 * (2.64 - 2.93) / 2.93)
    assert effect("model_sizes", "l_matches_xl") == pytest.approx(100 * (3.47 - 3.43) / 3.43), "across two panels"
    assert effect("convergence", "faster_xl") == 2.5 and effect("convergence", "faster_b") is None
    assert effect("components", "progressive_over_constant") is None, "a control of ours"
    assert effect("obs_v_then_u", "fixed_u_budget") is None, "its figure prints no numbers"


def test_groups_among_which_the_paper_marks_the_best() -> None:
    groups = rank_groups(resolve(load_source("cfg_configs"), "cpu"))
    assert len(groups) == 8 and groups["meanflow_l_kappa50"] == groups["dtd_u_weight_xl_kappa50"]
    assert len(set(groups.values())) == 2
    assert rank_groups(resolve(load_source("model_sizes"), "cpu")) == {}, "Table 1 marks by model"


def test_nor_do_their_speedups() -> None:
    source = load_source("convergence")
    panel, scale = "xl", "paper"
    assert speedups_in(resolve(source, scale), panel)
    assert speedups_in(resolve(source, scale, ["dynamics.batch_size=8"]), panel) == {}
    assert speedups_in(resolve(source, scale), "nowhere") == {}
