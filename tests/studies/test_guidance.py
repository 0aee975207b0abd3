"""Guidance and the transforms of Section 5 in study files and overrides, and what is said where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from meanflow_core.components import Guidance
from studies.arms import expand
from studies.errors import StudyError
from studies.loader import load_source, resolve
from tests.homes import TINY

DROP = "dynamics.label_dropout=0.1"
BY_EFFECT = "dynamics.guidance={effective_omega: 2.5, cfg_kappa: 0.92, hi: 0.75}"


def keys(*overrides: str, path: Path = TINY) -> set[str]:
    study = resolve(load_source(str(path)), "cpu", (*overrides, DROP))
    arms = expand(study)
    assert all(s.trajectory.dynamics.guidance is not None for arm in arms for s in arm.stages)
    return {point.evaluation for arm in arms for point in arm.points}


def test_either_spelling_has_the_same_keys_wherever_it_is_written(tmp_path: Path) -> None:
    as_it_stands = keys("dynamics.guidance={cfg_omega: 0.2, cfg_kappa: 0.92, hi: 0.75}")
    assert as_it_stands == keys(BY_EFFECT)
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        f"study: mine\nextends: {TINY}\nscales:\n  cpu:\n    dynamics:\n"
        "      guidance: {effective_omega: 2.5, cfg_kappa: 0.92, hi: 0.75}\n"
    )
    assert as_it_stands == keys(path=mine)
    assert as_it_stands == keys("dynamics.guidance.effective_omega=2.5", "dynamics.guidance.cfg_kappa=0.92",
                                "dynamics.guidance.hi=0.75")  # fmt: skip
    assert not as_it_stands & keys("dynamics.guidance={cfg_omega: 2.5, cfg_kappa: 0.92, hi: 0.75}"), "ω is not ω′"


def test_one_option_of_several_is_overridden() -> None:
    study = resolve(load_source(str(TINY)), "cpu", (BY_EFFECT, DROP, "dynamics.guidance.hi=0.8"))
    (guidance,) = {s.trajectory.dynamics.guidance for arm in expand(study) for s in arm.stages}
    assert guidance == Guidance(cfg_omega=0.2, cfg_kappa=0.92, hi=0.8)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((BY_EFFECT, "dynamics.guidance.cfg_omega=1.0", DROP), "guidance: give cfg_omega .* or effective_omega"),
        (("dynamics.guidance={cfg_kappa: 0.5}", DROP), "guidance: give cfg_omega .* or effective_omega"),
        (("dynamics.guidance={effective_omega: 2.0}", DROP), "effective_omega needs a number, and cfg_kappa beside it"),
        (
            ("dynamics.guidance={cfg_omega: 1.0, cfg_kappa: 0.5, high: 1}", DROP),
            "guidance.high: unknown key .did you mean .hi.",
        ),
        ((BY_EFFECT,), "label_dropout 0 never trains"),
        ((BY_EFFECT, DROP, "dynamics.network.conditional=false"), "a network that takes labels"),
        (("dynamics.transforms=[dtd]",), "'dtd' is paced by the v-loss, and with fm_ratio 0 there is none"),
        (
            ("dynamics.transforms=[progressive_weight, {name: gap_restriction, lo: 0.1, hi: 0.3}]",),
            "takes λ from the time sampler",
        ),
        (("dynamics.transforms=[{name: min_snr, reading: exact}]",), "'min_snr': reading: .*v_prediction"),
        (("dynamics.transforms=[{name: progressive_weight, schedule_power: 0}]",), "schedule_power: .*greater than 0"),
        (("dynamics.transforms=[{name: dtd, clusters: 0}]",), "clusters: .*greater than 0"),
    ],
)
def test_what_is_wrong_is_said(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(StudyError, match=words) as error:
        expand(resolve(load_source(str(TINY)), "cpu", overrides))
    assert "Field required" not in str(error.value) and "pydantic" not in str(error.value)
