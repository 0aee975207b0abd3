"""True errors under guidance, their names and keys, and the time that each measurement takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from meanflow_core.components import Guidance, UErrorParams
from meanflow_core.config import Protocol
from meanflow_core.data.base import DataSet
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.evaluate import evaluate, preflight
from meanflow_core.registry import parse_spec

GUIDANCE = {"cfg_omega": 1.0, "cfg_kappa": 0.5, "hi": 0.75}
TINY = {"name": "synthetic_latents", "channels": 1, "side": 8, "classes": 3}


def protocol(metric: Any, reference: Any = TINY, samples: int = 64) -> Protocol:
    return Protocol(metric=metric, reference=reference, samples=samples)


class GuidedNetwork(nn.Module):
    """The exact guided u times ``factor``."""

    conditional = True

    def __init__(self, data: DataSet, factor: float = 1.0) -> None:
        super().__init__()
        assert data.exact is not None
        self.fields, self.factor = data.exact, factor

    def forward(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.factor * self.fields.guided_u(z, r, t, y, Guidance(**GUIDANCE)).float()


def test_a_guided_network_is_measured_against_the_guided_field() -> None:
    data: DataSet = parse_spec("data", TINY).build()
    metrics = [
        {"name": "v_error", "guidance": GUIDANCE},
        {"name": "u_error", "guidance": GUIDANCE},
        {"name": "u_error", "guidance": GUIDANCE, "lo": 0.3, "hi": 0.5},
    ]
    protocols = [protocol(metric) for metric in metrics]
    context = EvaluationContext(GuidedNetwork(data, 1.1), data)
    assert [found.value for found in evaluate(context, protocols).values()] == pytest.approx([0.1] * 3, abs=1e-5)
    unguided = protocol("u_error", samples=16)
    assert evaluate(EvaluationContext(GuidedNetwork(data), data), [unguided])[unguided.key].value > 0.1


def test_guided_errors_need_classes_and_a_network_that_takes_them() -> None:
    guided = {"name": "u_error", "guidance": GUIDANCE}
    assert preflight(protocol(guided)) == []
    assert preflight(protocol(guided, "gaussian")) == ["a guided field needs classes, and the data 'gaussian' has none"]
    with pytest.raises(EvaluationError, match="this network takes no labels"):
        evaluate(EvaluationContext(lambda z, r, t, y: z, parse_spec("data", TINY).build()), [protocol(guided)])


def test_without_guidance_names_and_keys_are_as_before() -> None:
    for metric in ("v_error", "u_error"):
        spelled = {"name": metric, "guidance": None}
        assert parse_spec("metric", spelled).canonical() == [metric, 1, {}]
        assert protocol(spelled).key == protocol(metric).key
    assert protocol("v_error", "gmm", 5000).key == "b8e79e84967dddab1bf8"
    assert protocol("v_error").metric_label == "v_error"
    assert protocol({"name": "u_error", "lo": 0.1, "hi": 0.3}).metric_label == "u_error[0.1,0.3]"


def test_guidance_has_its_own_key_and_is_read_back() -> None:
    v, u = (protocol({"name": name, "guidance": GUIDANCE}) for name in ("v_error", "u_error"))
    assert (v.metric_label, u.metric_label) == ("v_error", "u_error[1,1]"), "a study names them alike"
    assert v.key != protocol("v_error").key
    for one in (v, u):
        assert Protocol.model_validate(one.dump()) == one
        assert Protocol.model_validate(one.dump()).key == one.key
    assert isinstance(u.metric.params, UErrorParams) and u.metric.params.guidance == Guidance(**GUIDANCE)


def test_each_protocol_is_timed_and_the_first_to_ask_pays_for_what_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that the network's passes drive: one for the samples, one for v."""
    now = [0.0]
    monkeypatch.setattr("meanflow_core.evaluation.evaluate.perf_counter", lambda: now[0])

    def network(z: Tensor, r: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        now[0] += 1
        return torch.zeros_like(z)

    metrics = [{"name": "frechet", "features": "pixel"}, {"name": "frechet", "features": "coarse"}, "v_error"]
    protocols = [protocol(metric) for metric in metrics]
    found = evaluate(EvaluationContext(network, parse_spec("data", TINY).build()), protocols)
    assert [found[p.key].seconds for p in protocols] == [1, 0, 1]
