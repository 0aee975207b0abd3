"""What is left out of a study whose sweep's space was replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studies.arms import expand_seed
from studies.errors import StudyError
from studies.fitting import leave_out_misfits, misfit, resolve_fitted
from studies.loader import load_source, merged, validated

SWEEP = Path(__file__).parent.parent / "assets" / "sweep.yaml"
SOURCE = load_source(str(SWEEP))
TABLE = "table={row: '{lr}', reference: tuned_lr0.002, columns: [{id: d, label: distance}]}"


def fitted(*overrides: str, kept: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, list[str]]]:
    data, _ = merged(SOURCE, "cpu", overrides)
    return data, leave_out_misfits(data, kept)


def test_a_study_that_fits_stays_as_it_is() -> None:
    data, said = fitted()
    assert said == {} and misfit(data) == ""
    assert data == merged(SOURCE, "cpu")[0]
    assert len(validated(data, SOURCE, set()).claims) == 2


def test_claims_on_points_that_are_gone_are_left_out() -> None:
    data, said = fitted("sweep.space.lr=[0.002, 0.016]")
    assert said == {"there is no arm of panel 'wide' 'tuned_lr0.008'": ["claim fast_over_slow"]}
    study = validated(data, SOURCE, set())
    assert [claim.id for claim in study.claims] == ["faster_is_better"] and study.figure is not None


def test_attributes_that_are_gone_take_figure_and_claims_with_them() -> None:
    name = 'sweep.arm_name="w{width}"'
    data, said = fitted("sweep.space={width: [4, 8]}", name, TABLE.replace("{lr}", "{width}"))
    assert list(said.values()) == [["table"], ["figure"], ["claim faster_is_better"], ["claim fast_over_slow"]]
    assert list(said)[2] == "arms of 'wide' have no attribute 'lr'"
    study = validated(data, SOURCE, set())
    assert study.claims == () and study.figure is None and study.table is None


def test_what_the_user_gave_is_kept_and_what_is_wrong_is_left_to_validation() -> None:
    data, said = fitted("sweep.space.lr=[0.1]", "figure.x=nope", kept=("figure",))
    assert list(said.values()) == [["claim fast_over_slow"]] and data["figure"]["x"] == "nope"
    with pytest.raises(StudyError, match="no attribute in panel 'wide' 'nope'"):
        validated(data, SOURCE, set())
    for wrong in ("panels=3", "sweep.space.lr=[]", "steps_per_epoch=ten", "sweep.space.nothing=[1]"):
        data, said = fitted(wrong)
        assert said == {} and len(data["claims"]) == 2
        with pytest.raises(StudyError):
            validated(data, SOURCE, set())
    assert fitted("claims=3")[1] == {}


@pytest.mark.parametrize("panel", ["ratio75", "small"])
def test_one_panel_is_kept_with_all_that_belongs_to_it_alone(panel: str) -> None:
    overrides = ["points=3", "strategy=random"]
    source = load_source("k_schedule")
    whole, _ = resolve_fitted(source, "smoke", overrides)
    one, said = resolve_fitted(source, "smoke", overrides, panel=panel)
    assert list(one.panels) == [panel] and "regime" in whole.settings
    assert ("regime" in one.settings) == (panel == "small")
    kept = {name for name, control in whole.controls.items() if control.panel == panel}
    assert set(one.controls) == kept and kept
    assert {claim.panel for claim in one.claims} <= {panel} and any("there is no panel" in line for line in said)
    arms = {arm.name: arm for arm in expand_seed(whole, 0) if arm.panel == panel}
    assert {arm.name: arm for arm in expand_seed(one, 0)} == arms, "what is trained is the same"
    with pytest.raises(StudyError, match=r"--panel wide: there is no such panel \(available: ratio75, small\)"):
        resolve_fitted(source, "smoke", overrides, panel="wide")
