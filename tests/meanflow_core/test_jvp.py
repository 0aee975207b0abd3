"""du/dt by dual numbers, against torch.func.jvp and central differences in float64; and its cost."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from meanflow_core import dual
from meanflow_core.jvp import Dual, generic_jvp, jvp
from meanflow_core.objectives import u_error
from tests.meanflow_core import NETWORKS, make_inputs, make_network

F64 = {"rtol": 1e-10, "atol": 1e-12}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def func_jvp(f: Callable[..., Tensor], primals: list[Tensor], tangents: list[Tensor]) -> tuple[Tensor, Tensor]:
    with sdpa_kernel(SDPBackend.MATH):
        value, derivative = torch.func.jvp(f, tuple(primals), tuple(tangents))
    return value, derivative


def central_difference(
    f: Callable[..., Tensor], primals: list[Tensor], tangents: list[Tensor], h: float = 1e-4
) -> Tensor:
    """Fourth order: the error is about h⁴ = 1e-16 beside a rounding error of about 1e-12."""

    def at(k: int) -> Tensor:
        return f(*(p + k * h * t for p, t in zip(primals, tangents, strict=True)))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)


def as_dual(f: Callable[..., Any], primals: list[Tensor], tangents: list[Tensor]) -> Dual:
    out = f(*(Dual(p, t) for p, t in zip(primals, tangents, strict=True)))
    assert isinstance(out, Dual), "the operation dropped its tangent"
    return out


# --- each rule ---------------------------------------------------------------------------------------------

A, B, ROW = numbers(3, 4, seed=1), numbers(3, 4, seed=2), numbers(1, 4, seed=3)
W, BIAS, GAIN = numbers(5, 4, seed=4), numbers(5, seed=5), numbers(4, seed=6)
Q, K, V = numbers(3, 2, 2, 5, 4, seed=8)

# name: (f, shapes of its arguments)
RULES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "add": (operator.add, [(3, 4), (3, 4)]),
    "add, broadcast": (operator.add, [(3, 1), (1, 4)]),
    "add, plain right": (lambda x: x + B, [(3, 4)]),
    "add, plain left": (lambda x: B + x, [(3, 4)]),
    "add, plain right, broadcast": (lambda x: x + B, [(1, 4)]),
    "add, plain left, broadcast": (lambda x: ROW + x, [(3, 1)]),
    "add, number": (lambda x: 1.5 + x + 2, [(3, 4)]),
    "torch.add": (lambda x: torch.add(x, B) + torch.add(B, x), [(3, 4)]),
    "sub": (operator.sub, [(3, 4), (3, 4)]),
    "sub, broadcast": (operator.sub, [(3, 1), (1, 4)]),
    "sub, plain right": (lambda x: x - B, [(3, 4)]),
    "sub, plain left": (lambda x: B - x, [(3, 4)]),
    "sub, plain left, broadcast": (lambda x: B - x, [(1, 4)]),
    "sub, number": (lambda x: 1.5 - x, [(3, 4)]),
    "torch.sub": (lambda x: torch.sub(x, B) + 2 * torch.sub(B, x), [(3, 4)]),
    "mul": (operator.mul, [(3, 4), (3, 4)]),
    "mul, broadcast": (operator.mul, [(3, 1), (1, 4)]),
    "mul, plain right": (lambda x: x * B, [(3, 4)]),
    "mul, plain left": (lambda x: B * x, [(3, 4)]),
    "mul, plain left, broadcast": (lambda x: B * x, [(1, 4)]),
    "mul, number": (lambda x: 1.5 * x * -2, [(3, 4)]),
    "torch.mul": (lambda x: torch.mul(x, B) + torch.mul(B, x), [(3, 4)]),
    "neg": (operator.neg, [(3, 4)]),
    "torch.neg": (torch.neg, [(3, 4)]),
    "sin": (torch.sin, [(3, 4)]),
    "cos": (torch.cos, [(3, 4)]),
    "methods sin, cos": (lambda x: x.sin() + 2 * x.cos(), [(3, 4)]),
    "cat": (lambda x, y: torch.cat([x, y], -1), [(3, 4), (3, 2)]),
    "cat, plain first": (lambda x: torch.cat([B, x, B], 1), [(3, 2)]),
    "concat": (lambda x: torch.concat((x, B)), [(3, 4)]),
    "linear": (lambda x: F.linear(x, W, BIAS), [(3, 4)]),
    "linear, no bias, batched": (lambda x: F.linear(x, W), [(2, 3, 4)]),
    "silu": (F.silu, [(3, 4)]),
    "gelu": (F.gelu, [(3, 4)]),
    "gelu, tanh": (lambda x: F.gelu(x, approximate="tanh"), [(3, 4)]),
    "layer_norm": (lambda x: F.layer_norm(x, (4,), eps=1e-6), [(3, 4)]),
    "layer_norm, affine": (lambda x: F.layer_norm(x, (4,), GAIN, GAIN + 1, 1e-3), [(3, 4)]),
    "layer_norm, two dimensions": (lambda x: F.layer_norm(x, (3, 4)), [(2, 3, 4)]),
    "attention": (F.scaled_dot_product_attention, [(2, 2, 5, 4)] * 3),
    "attention, scale": (lambda q: F.scaled_dot_product_attention(q, q, q, scale=0.3), [(2, 2, 5, 4)]),
    "attention, q": (lambda q: F.scaled_dot_product_attention(q, K, V), [(2, 2, 5, 4)]),
    "attention, k": (lambda k: F.scaled_dot_product_attention(Q, k, V), [(2, 2, 5, 4)]),
    "attention, v": (lambda v: F.scaled_dot_product_attention(Q, K, v), [(2, 2, 5, 4)]),
    "attention, other length": (F.scaled_dot_product_attention, [(2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 6)]),
    "reshape": (lambda x: x.reshape(4, 3), [(3, 4)]),
    "torch.reshape": (lambda x: torch.reshape(x, (2, -1)), [(3, 4)]),
    "view": (lambda x: x.view(2, 6), [(3, 4)]),
    "view of an expanded tangent": (lambda x: (x + B).view(12), [(1, 4)]),
    "flatten": (lambda x: x.flatten(1), [(2, 3, 4)]),
    "unflatten": (lambda x: x.unflatten(-1, (2, -1)), [(3, 4)]),
    "transpose": (lambda x: x.transpose(0, 1), [(3, 4)]),
    "permute": (lambda x: x.permute(2, 0, 1), [(2, 3, 4)]),
    "movedim": (lambda x: x.movedim(0, -1), [(2, 3, 4)]),
    "chunk": (lambda x: operator.sub(*x.chunk(2, -1)), [(3, 4)]),
    "torch.chunk": (lambda x: operator.sub(*torch.chunk(x, 2, dim=1)), [(3, 4)]),
    "split": (lambda x: operator.sub(*x.split(2, -1)), [(3, 4)]),
    "unbind": (lambda x: operator.mul(*x.unbind(1)), [(3, 2)]),
    "squeeze": (lambda x: x.squeeze(1), [(3, 1)]),
    "unsqueeze": (lambda x: x.unsqueeze(-1), [(3,)]),
    "expand": (lambda x: x.expand(3, 4), [(1, 4)]),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 0), [(3, 4)]),
    "contiguous": (lambda x: x.transpose(0, 1).contiguous().view(12), [(3, 4)]),
    "to": (lambda x: x.to(torch.float64), [(3, 4)]),
    "index": (lambda x: x[1:, 2], [(3, 4)]),
    "index, ellipsis and None": (lambda x: x[..., None, ::2], [(3, 4)]),
    "index, list": (lambda x: x[[2, 0, 0]], [(3, 4)]),
    "iteration": (lambda x: operator.sub(*x), [(2, 4)]),
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    f, shapes = RULES[name]
    primals = [numbers(*shape, seed=10 + i) for i, shape in enumerate(shapes)]
    tangents = [numbers(*shape, seed=20 + i) for i, shape in enumerate(shapes)]
    out = as_dual(f, primals, tangents)
    value, derivative = func_jvp(f, primals, tangents)
    assert (out.shape, out.dtype) == (out.tangent.shape, out.tangent.dtype) == (value.shape, value.dtype)
    torch.testing.assert_close(out.primal, value, **F64)
    torch.testing.assert_close(out.tangent, derivative, **F64)
    torch.testing.assert_close(out.tangent, central_difference(f, primals, tangents), rtol=1e-8, atol=1e-9)


def test_every_rule_is_tested() -> None:
    """A rule that no case above reaches would be trusted untested."""
    reached = set()
    rules = dict(dual.RULES)
    try:
        for f, r in rules.items():
            dual.RULES[f] = lambda *a, _f=f, _r=r, **k: (reached.add(_f), _r(*a, **k))[1]
        methods = set()
        original = dual._reshape_both
        dual._reshape_both = lambda name, *a, **k: (methods.add(name), original(name, *a, **k))[1]  # type: ignore[assignment]
        for f, shapes in RULES.values():
            as_dual(f, [numbers(*s) for s in shapes], [numbers(*s) for s in shapes])
    finally:
        dual.RULES.update(rules)
        dual._reshape_both = original
    assert methods == dual._SHAPE_METHODS
    shape_functions = {getattr(space, n, None) for n in methods for space in (torch, torch.Tensor)}
    aliases = {torch.Tensor.neg, torch.Tensor.sin, torch.Tensor.cos, torch.Tensor.add}  # reached as operators
    assert set(rules) - reached - shape_functions <= aliases | {torch.Tensor.sub, torch.Tensor.mul}


def test_properties_are_the_primals() -> None:
    x = Dual(A, B)
    assert (x.shape, x.ndim, x.dtype, x.device) == (A.shape, 2, torch.float64, A.device)
    assert (x.size(), x.size(1)) == (A.size(), 4)


def test_copies_like_an_object() -> None:
    x = copy.copy(Dual(A, B))
    assert x.primal is A
    assert x.tangent is B
    assert not hasattr(x, "__array_interface__")


# --- whole networks ----------------------------------------------------------------------------------------


def along_path(net: Any, n: int = 6) -> tuple[Callable[..., Tensor], Any, Any]:
    z, r, t, y, v = make_inputs(n)
    return lambda z, r, t: net(z, r, t, y), (z, r, t), (v, None, torch.ones_like(t))


def test_network_against_func_jvp_and_differences(network: Any) -> None:
    f, (z, r, t), (v, _, one) = along_path(network)
    value, derivative = jvp(f, (z, r, t), (v, None, one))
    expected = func_jvp(f, [z, r, t], [v, torch.zeros_like(r), one])
    assert derivative.norm() > 0.1 * value.norm(), "a trivial derivative tests nothing"
    torch.testing.assert_close(value, network(z, r, t, make_inputs(6)[3]), rtol=0, atol=0)
    torch.testing.assert_close(value, expected[0], **F64)
    torch.testing.assert_close(derivative, expected[1], rtol=1e-10, atol=1e-11)
    difference = central_difference(f, [z, r, t], [v, torch.zeros_like(r), one])
    torch.testing.assert_close(derivative, difference, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("moving", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_any_argument_may_move(network: Any, moving: tuple[int, ...]) -> None:
    f, primals, _ = along_path(network)
    tangents = [numbers(*p.shape, seed=i) if i in moving else None for i, p in enumerate(primals)]
    value, derivative = jvp(f, primals, tangents)
    dense = [torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True)]
    torch.testing.assert_close(derivative, func_jvp(f, list(primals), dense)[1], rtol=1e-10, atol=1e-11)
    generic = generic_jvp(f, primals, tangents)
    torch.testing.assert_close(generic[0], value, **F64)
    torch.testing.assert_close(generic[1], derivative, rtol=1e-10, atol=1e-11)


def test_nothing_moves() -> None:
    value, derivative = jvp(lambda x: x + 1, (A,), (None,))
    assert torch.equal(value, A + 1)
    assert torch.equal(derivative, torch.zeros_like(A))


def test_weight_gradients_equal_func_jvps(network: Any) -> None:
    z, r, t, y, v = make_inputs(6)
    gradients = []
    for derivative in (jvp, generic_jvp):
        network.zero_grad()
        u_error(network, z, r, t, y, v, derivative).square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 1e-6, f"{name} gets no gradient"
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-9, atol=1e-12)


def test_no_graph_on_the_derivative(network: Any) -> None:
    f, primals, (v, _, one) = along_path(network)
    for take in (jvp, generic_jvp):
        value, derivative = take(f, primals, (v.requires_grad_(), None, one))
        assert value.requires_grad
        assert not derivative.requires_grad
        assert derivative.grad_fn is None


@pytest.mark.parametrize("f", [operator.neg, lambda x: x[0], lambda x: x])
def test_no_graph_from_the_tangent_itself(f: Callable[[Any], Any]) -> None:
    _, derivative = jvp(f, (A,), (B.clone().requires_grad_(),))
    assert not derivative.requires_grad


def test_not_one_more_graph_node_than_a_forward_pass(network: Any) -> None:
    def nodes(out: Tensor) -> int:
        seen, stack = set(), [out.grad_fn]
        while stack:
            node = stack.pop()
            if node is not None and node not in seen:
                seen.add(node)
                stack += [child for child, _ in node.next_functions]
        return len(seen)

    f, primals, tangents = along_path(network)
    assert nodes(jvp(f, primals, tangents)[0]) == nodes(f(*primals))


# --- cost --------------------------------------------------------------------------------------------------


class CountProducts(TorchDispatchMode):
    """Multiply-adds of matrix products with a weight and of those between activations (attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.with_weight = self.between = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in {"mm", "addmm"}:
            self.with_weight += out.numel() * args[1 if name == "addmm" else 0].shape[-1]
        elif name in {"bmm", "baddbmm"}:
            self.between += out.numel() * args[0].shape[-1]
        else:
            assert name not in {"matmul", "linear", "convolution", "einsum"}, f"{name} is not counted"
            if "attention" in name:
                q, k = args[0], args[1]
                self.between += 2 * q.numel() * k.shape[-2]
        return out


def products(f: Callable[[], Any]) -> tuple[int, int]:
    with CountProducts() as count:
        f()
    return count.with_weight, count.between


def test_no_product_with_a_zero_tangent(network: Any) -> None:
    """u and du/dt together form each weight's product twice, one for the primal, one for the tangent.

    torch.func.jvp forms a third, with the weight's tangent, zero. Attention takes 2 products for the primal and 5
    for the tangent: the scores once more, dQ·Kᵀ, Q·dKᵀ, dP·V and P·dV.
    """
    f, primals, tangents = along_path(network)
    weight, between = products(lambda: f(*primals))
    assert weight > 0
    assert products(lambda: jvp(f, primals, tangents)) == (2 * weight, 7 * between // 2)
    assert products(lambda: generic_jvp(f, primals, tangents))[0] == 3 * weight


def test_backward_costs_two_forwards(network: Any) -> None:
    """A step on L_u is 4F in products with weights: 1 primal, 1 tangent, 2 backward (less the input's own)."""
    z, r, t, y, v = make_inputs(6)
    forward, _ = products(lambda: network(z, r, t, y))
    total, _ = products(lambda: u_error(network, z, r, t, y, v).square().mean().backward())
    plain, _ = products(lambda: network(z, r, t, y).square().mean().backward())
    assert total == plain + forward
    assert plain <= 3 * forward
    assert total <= 4 * forward


def test_the_label_has_no_tangent(monkeypatch: pytest.MonkeyPatch, network: Any) -> None:
    f, primals, tangents = along_path(network)
    seen: list[bool] = []
    plain = network.condition.label.forward
    monkeypatch.setattr(network.condition.label, "forward", lambda y: (seen.append(isinstance(y, Dual)), plain(y))[1])
    jvp(f, primals, tangents)
    assert seen == [False]


# --- precision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_is_close(name: str) -> None:
    z, r, t, y, v = make_inputs(6)
    expected = jvp(lambda *x: make_network(name)(*x, y), (z, r, t), (v, None, torch.ones_like(t)))[1]
    single = make_network(name, dtype=torch.float32)
    z, r, t, v = z.float(), r.float(), t.float(), v.float()
    got = jvp(lambda *x: single(*x, y), (z, r, t), (v, None, torch.ones_like(t)))[1]
    assert got.dtype == torch.float32
    assert (got - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_bf16_autocast_is_close(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a few per cent for u, du/dt and the gradients; each dual's tangent has its primal's dtype."""
    network = make_network(name, dtype=torch.float32)
    z, r, t, y, v = make_inputs(32, dtype=torch.float32)
    init = Dual.__init__

    def checked(self: Dual, primal: Tensor, tangent: Tensor) -> None:
        assert (primal.dtype, primal.shape) == (tangent.dtype, tangent.shape)
        init(self, primal, tangent)

    monkeypatch.setattr(Dual, "__init__", checked)
    results = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            u, du_dt = jvp(lambda z, r, t: network(z, r, t, y), (z, r, t), (v, None, torch.ones_like(t)))
        u.float().square().mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in network.parameters()])  # type: ignore[union-attr]
        results.append((u.detach().float(), du_dt.float(), gradient))
        assert u.dtype == (torch.bfloat16 if enabled else torch.float32)
    for exact, rounded in zip(*results, strict=True):
        error = (exact - rounded).norm() / exact.norm()
        assert 1e-5 < error < 0.04


def test_a_weight_is_first_used_in_grad_mode(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast before pytorch#165068 keeps the first cast of a weight; one made under no_grad gives no gradient."""
    first: dict[int, bool] = {}
    plain = F.linear

    def spy(x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
        if not isinstance(x, Dual):
            first.setdefault(id(weight), torch.is_grad_enabled())
        return plain(x, weight, bias)

    monkeypatch.setattr(F, "linear", spy)
    f, primals, tangents = along_path(network)
    jvp(f, primals, tangents)
    assert len(first) == sum(p.ndim == 2 for p in network.parameters()) - 1  # less the table of classes
    assert all(first.values())
