"""Guidance in a study: ω or the effective ω′, its keys, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from meanflow_core.components import Guidance
from meanflow_core.config import Dynamics, trajectory_key
from meanflow_core.guidance import guided_rows
from meanflow_core.hooks import Batch
from meanflow_core.trainer import Trainer
from tests.meanflow_core import dynamics
from tests.meanflow_core.test_guidance import GUIDANCES, NULL, make_batch


def key(**given: Any) -> str:
    return trajectory_key(None, dynamics(guidance=given, label_dropout=0.1), seed=0)


@pytest.mark.parametrize(
    ("kappa", "effective", "omega"), [(0.92, 2.5, 0.2), (0.5, 2.0, 1.0), (0.0, 2.0, 2.0), (0.9, 3.0, 0.3)]
)
def test_effective_omega_is_omega_by_another_name(kappa: float, effective: float, omega: float) -> None:
    """Exactly, so that the two spellings have one key."""
    by_effect = Guidance.model_validate({"cfg_kappa": kappa, "effective_omega": effective})
    as_it_stands = Guidance(cfg_kappa=kappa, cfg_omega=omega)
    assert by_effect == as_it_stands
    assert by_effect.cfg_omega == omega
    assert by_effect.effective_omega == pytest.approx(effective)
    assert key(cfg_kappa=kappa, effective_omega=effective) == key(cfg_kappa=kappa, cfg_omega=omega)
    assert (key(cfg_kappa=kappa, effective_omega=effective) == key(cfg_kappa=kappa, cfg_omega=effective)) == (
        kappa == 0
    )


@settings(max_examples=100)
@given(st.floats(0, 0.95), st.floats(0.1, 20))
def test_guidance_is_read_back(kappa: float, effective: float) -> None:
    g = Guidance.model_validate({"cfg_kappa": kappa, "effective_omega": effective})
    assert Guidance.model_validate(g.model_dump(mode="json")) == g
    assert g.effective_omega == pytest.approx(effective, rel=1e-9)
    assert g.cfg_omega + g.cfg_kappa + g.null_share == pytest.approx(1, abs=1e-11)


def test_pinned_key() -> None:
    """Results made today must be found again by later versions."""
    d = Dynamics.model_validate(
        {"network": "mlp", "data": "digits", "label_dropout": 0.1, "time_sampler": "uniform",
         "guidance": {"effective_omega": 2.5, "cfg_kappa": 0.92, "hi": 0.75}}
    )  # fmt: skip
    assert trajectory_key(None, d, 0) == "d6e7aaa1991c7ef12c28"


def test_weights_of_zero_are_zero() -> None:
    """1 − 0.08 − 0.92 is 1e-17 by itself; no query is made for that."""
    assert Guidance(cfg_omega=0.08, cfg_kappa=0.92).null_share == 0
    assert Guidance(cfg_omega=0.7, cfg_kappa=0.3).null_share == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cfg_omega": 1.0, "effective_omega": 2.0, "cfg_kappa": 0.5}, "give cfg_omega .* or effective_omega .* one"),
        ({"cfg_kappa": 0.5}, "give cfg_omega .* or effective_omega"),
        ({"cfg_omega": None, "effective_omega": None, "cfg_kappa": 0.5}, "give cfg_omega .* or effective_omega"),
        ({"effective_omega": 2.0}, "effective_omega needs .* cfg_kappa beside it"),
        ({"effective_omega": "two", "cfg_kappa": 0.5}, "effective_omega needs a number"),
        ({"cfg_omega": 1.0}, r"cfg_kappa\s+Field required"),
        ({"cfg_omega": 1.0, "cfg_kappa": 1.0}, "less than 1"),
        ({"cfg_omega": 0.0, "cfg_kappa": 0.5}, "greater than 0"),
        ({"effective_omega": -1.0, "cfg_kappa": 0.5}, "greater than 0"),
        ({"cfg_omega": 1.0, "cfg_kappa": 0.5, "lo": 0.6, "hi": 0.4}, r"lo \(0.6\) must not exceed hi \(0.4\)"),
        ({"cfg_omega": 1.0, "cfg_kappa": 0.5, "hi": 1.5}, "less than or equal to 1"),
        ({"omega": 1.0, "cfg_kappa": 0.5, "cfg_omega": 1.0}, "omega"),
    ],
)  # fmt: skip
def test_wrong_guidance(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){words}"):
        dynamics(guidance=given, label_dropout=0.1)


def test_guidance_needs_labels_and_a_class_without() -> None:
    guidance = GUIDANCES["the paper's B/4"]
    with pytest.raises(ValidationError, match="asks the network without a label, which label_dropout 0 never trains"):
        dynamics(guidance=guidance)
    dynamics(guidance=GUIDANCES["no null"])  # asks with labels only
    unconditional = {"name": "mlp", "conditional": False}
    with pytest.raises(ValidationError, match=r"guidance needs a network that takes labels \(conditional: true\)"):
        dynamics(guidance=guidance, network=unconditional, label_dropout=0.1)
    with pytest.raises(ValueError, match="guidance needs labels, and the data have none: set guidance to null"):
        Trainer(dynamics(guidance=guidance, data="gaussian", label_dropout=0.1), seed=0)
    batch = make_batch(5)
    with pytest.raises(ValueError, match="guidance needs labels, and the data have none"):
        guided_rows(Batch(batch.x, batch.eps, batch.r, batch.t, None, 5), Guidance(**guidance), NULL)
