"""Panels that are trained with different guidance have a protocol each for one true error: reports show them all."""

from __future__ import annotations

import pytest

from reports.ranking import rank_sweep
from reports.rankingtext import records
from reports.versions import TRUTH
from studies.loader import load_source, resolve

from .sweeps import SWEEP
from .synthetic import draw_case, measured, noisy

GUIDED = (
    "claims=[]", "sweep.space.lr=[0.5, 1]", "truth=v_error", "dynamics.data=gmm", "dynamics.label_dropout=0.1",
    "panels.wide.arms.omega=1.5", "panels.narrow.arms.omega=2.0", "stages.0.guidance={cfg_omega: $omega, cfg_kappa: 0}",
    "controls={}", "measure=[{metric: {name: frechet, features: pixel}, every_epochs: 2}, {metric: v_error}]",
)  # fmt: skip


@pytest.mark.parametrize(
    "figure",
    [
        "{kind: curves, colour_by: method, colour_label: method, stage: train}",
        "{kind: bars, colour_by: method, colour_label: method, x: setup, x_label: setup}",
        "{kind: levels, x: cfg_kappa, x_label: κ}",
    ],
)
def test_every_kind_of_figure_shows_all_panels(figure: str) -> None:
    resolved = resolve(load_source("cfg_configs"), "truth", [f"figure={figure}"], [0, 1])
    frame, protocols = measured(resolved, lambda arm, point: noisy(arm, point, 0.1))
    points = draw_case(resolved, frame, protocols, TRUTH).points
    assert set(points["metric"]) == {resolved.truth}
    assert points["protocol"].nunique() == 3
    assert set(points["panel"]) == set(resolved.panels)


def test_a_ranking_ranks_all_panels() -> None:
    resolved = resolve(load_source(str(SWEEP)), "cpu", GUIDED, range(3))
    frame, protocols = measured(resolved, lambda arm, point: noisy(arm, point, 0.1))
    ranking = rank_sweep(resolved, frame, protocols, TRUTH)
    assert [panel.panel for panel in ranking.panels] == ["wide", "narrow"]
    assert all(len(panel.rows) == 3 for panel in ranking.panels)
    said = {(one["panel"], one["protocol"]) for one in records([ranking])}
    assert len({protocol for _, protocol in said}) == len(said) == 2
