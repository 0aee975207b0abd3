"""du/dt of what the dual numbers have no rule for: torch.func.jvp takes it, the same, and says so once."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from meanflow_core import dual
from meanflow_core import jvp as module
from meanflow_core.jvp import Dual, NoTangentRule, generic_jvp, jvp, rule
from meanflow_core.objectives import u_error
from tests.meanflow_core import make_inputs
from tests.meanflow_core.test_jvp import F64, A, B, W, along_path, as_dual, func_jvp, numbers


@pytest.fixture
def warnings_of_fallback(caplog: pytest.LogCaptureFixture) -> Any:
    module._say_fallback.cache_clear()
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        yield lambda: [r.getMessage() for r in caplog.records if "torch.func.jvp" in r.getMessage()]
    module._say_fallback.cache_clear()


# Each is differentiable; none has a rule, or is used with an option that the rule does not know.
NO_RULE: dict[str, Callable[[Any], Any]] = {
    "a function": torch.sigmoid,
    "a method": lambda x: x.tanh(),
    "a reduction": lambda x: x.mean(-1),
    "an attribute": lambda x: x.T * 2,
    "matrix product": lambda x: x @ W.T,
    "matrix product, plain left": lambda x: A.T @ x,
    "division": lambda x: x / 3,
    "division, plain left": lambda x: B / (x * x + 1),
    "power": lambda x: x**3,
    "absolute value": abs,
    "stack": lambda x: torch.stack([x, B]),
    "where": lambda x: torch.where(B > 0, x, -x),
    "comparison": lambda x: x * (x > 0),
    "equality": lambda x: x * (x == A),
    "inequality": lambda x: x * (x != 0),
    "in place, operator": lambda x: in_place(x, operator.iadd),
    "in place, operator mul": lambda x: in_place(x, operator.imul),
    "in place, method": lambda x: in_place(x, lambda h, y: h.add_(y)),
    "in place, silu": lambda x: in_place(x, lambda h, y: F.silu(h, inplace=True)),
    "assignment": lambda x: assigned(x, 2),
    "add with alpha": lambda x: torch.add(x, B, alpha=2),
    "linear by keyword": lambda x: F.linear(input=x, weight=W),
    "linear with a moving bias": lambda x: F.linear(B, W[:4], x[0]),
    "linear with a moving weight": lambda x: F.linear(B, x),
    "layer_norm with a moving weight": lambda x: F.layer_norm(x, (4,), x[0]),
    "attention with a mask": lambda x: F.scaled_dot_product_attention(x, x, x, x.new_ones(3, 3)),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "cast to integers": lambda x: x * (10 * x).to(torch.long).to(x.dtype),
    "type_as": lambda x: x.type_as(B),
    "no tensor": lambda x: x * torch.zeros_like(x) + x.detach(),
    "length": lambda x: x * len(x),
    "truth": lambda x: x if (x[0, 0] * 0) else 2 * x,
    "embedding": lambda x: F.embedding(torch.tensor([0, 1]), x),
}


def in_place(x: Any, change: Callable[[Any, Any], Any]) -> Any:
    """The alias sees a change in place."""
    h = x * 2
    alias = h
    change(h, B)
    return alias * 1


def assigned(x: Any, factor: float) -> Any:
    h = x * 1
    h[0] = factor * x[1]
    return h


@pytest.mark.parametrize("name", NO_RULE)
def test_without_a_rule_the_result_is_the_same_and_it_is_said_once(name: str, warnings_of_fallback: Any) -> None:
    f = NO_RULE[name]
    tangent = numbers(3, 4, seed=9)
    with pytest.raises(NoTangentRule):
        f(Dual(A, tangent))
    value, derivative = jvp(f, (A,), (tangent,))
    expected = func_jvp(f, [A], [tangent])
    torch.testing.assert_close(value, expected[0], **F64)
    torch.testing.assert_close(derivative, expected[1], **F64)
    assert len(warnings_of_fallback()) == 1
    jvp(f, (A,), (tangent,))
    assert len(warnings_of_fallback()) == 1


def test_a_mistake_in_the_network_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        jvp(lambda x: F.linear(x, W.T), (A,), (B,))
    with pytest.raises(TypeError):
        jvp(lambda x: x + "one", (A,), (B,))
    with pytest.raises(AttributeError):
        jvp(lambda x: x.no_such_method(), (A,), (B,))


def test_a_network_with_an_unknown_layer_falls_back_wholly(network: Any, warnings_of_fallback: Any) -> None:
    z, r, t, y, v = make_inputs(6)
    gradients = []
    for derivative in (jvp, generic_jvp):
        network.zero_grad()
        u_error(lambda *a: torch.tanh(network(*a)), z, r, t, y, v, derivative).square().mean().backward()  # type: ignore[arg-type]
        gradients.append([p.grad.clone() for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    assert len(warnings_of_fallback()) == 1


def test_built_in_networks_need_no_fallback(network: Any, warnings_of_fallback: Any) -> None:
    f, primals, tangents = along_path(network)
    jvp(f, primals, tangents)
    z, r, t, _, v = make_inputs(6)
    jvp(lambda z, r, t: network(z, r, t, None), (z, r, t), (v, None, torch.ones_like(t)))
    assert warnings_of_fallback() == []


def test_a_rule_can_be_added() -> None:
    @rule(torch.square)
    def _square(x: Dual) -> Dual:
        return x * x

    try:
        out = as_dual(torch.square, [A], [B])
    finally:
        del dual.RULES[torch.square]
    torch.testing.assert_close(out.tangent, 2 * A * B, **F64)
