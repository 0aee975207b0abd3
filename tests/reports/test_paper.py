"""The paper's values stand beside arms that are the paper's, and beside no other."""

from __future__ import annotations

import pytest

from reports.othermethods import other_methods
from reports.paper import paper_column, paper_values, speedups_in
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


def test_nor_do_their_speedups() -> None:
    source = load_source("convergence")
    panel, scale = "xl", "paper"
    assert speedups_in(resolve(source, scale), panel)
    assert speedups_in(resolve(source, scale, ["dynamics.batch_size=8"]), panel) == {}
    assert speedups_in(resolve(source, scale), "nowhere") == {}
