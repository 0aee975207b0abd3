"""The loss against a naive implementation written from the equations: one JVP over the whole batch, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from meanflow_core.hooks import Batch, Transform
from meanflow_core.interpolant import conditional_velocity, interpolate, squared_norm
from meanflow_core.objectives import MeanFlow, Terms, u_error, u_target, v_error
from meanflow_core.registry import parse_spec
from meanflow_core.weights import adaptive_weight
from tests.meanflow_core import NETWORKS, make_inputs, make_network

EXACT = {"rtol": 1e-11, "atol": 1e-13}


def make_batch(n: int = 8, v_rows: int = 6, labels: bool = True) -> Batch:
    x, r, t, y, eps = make_inputs(n)
    r = torch.cat([t[:v_rows], r[v_rows:]])
    return Batch(x, eps, r, t, y if labels else None, v_rows)


def objective(**params: Any) -> MeanFlow:
    built: MeanFlow = parse_spec("objective", {"name": "meanflow", **params}).build()
    return built


def naive(network: nn.Module, b: Batch, p: float = 1.0, c: float = 0.01) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of MeanFlow as written: the JVP of every row, those with r = t included. Losses, raw errors."""
    t, r = b.t.view(-1, 1, 1, 1), b.r.view(-1, 1, 1, 1)
    z = (1 - t) * b.x + t * b.eps
    v = b.eps - b.x
    with sdpa_kernel(SDPBackend.MATH):
        u, du_dt = torch.func.jvp(
            lambda z, r, t: network(z, r, t, b.y), (z, b.r, b.t), (v, torch.zeros_like(b.r), torch.ones_like(b.t))
        )
    target = (v - (t - r) * du_dt).detach()
    squared = ((u - target) ** 2).sum((1, 2, 3))
    return squared / (squared.detach() + c) ** p, squared.detach()


def gradients(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    loss.mean().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


# --- the whole loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("v_rows", [0, 1, 6, 8])
@pytest.mark.parametrize("labels", [True, False])
def test_split_batch_equals_one_jvp_over_the_whole_batch(name: str, v_rows: int, labels: bool) -> None:
    network, batch = make_network(name), make_batch(8, v_rows, labels)
    terms = objective().terms(network, batch)
    loss, squared = naive(network, batch)
    torch.testing.assert_close(terms.loss, loss, **EXACT)
    torch.testing.assert_close(terms.squared_error, squared, **EXACT)
    ours, theirs = gradients(network, terms.loss), gradients(network, loss)
    assert set(ours) == set(theirs) == {n for n, _ in network.named_parameters()}
    scale = max(g.abs().max() for g in theirs.values())
    for n, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[n], rtol=1e-9, atol=1e-12 * float(scale))


@pytest.mark.parametrize(("p", "c"), [(0.0, 1.0), (0.5, 0.1), (1.0, 0.01), (2.0, 3.0)])
def test_adaptive_exponents(p: float, c: float) -> None:
    network, batch = make_network("mlp"), make_batch()
    terms = objective(adaptive_p=p, adaptive_c=c).terms(network, batch)
    loss, _ = naive(network, batch, p, c)
    torch.testing.assert_close(terms.loss, loss, **EXACT)
    ours, theirs = gradients(network, terms.loss), gradients(network, loss)
    for n, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[n], rtol=1e-9, atol=1e-11)


def test_the_order_of_rows_is_the_batchs() -> None:
    network, batch = make_network("mlp"), make_batch(8, 3)
    terms = objective().terms(network, batch)
    for i in range(8):
        rows = slice(i, i + 1)
        y = batch.y[rows] if batch.y is not None else None
        one = Batch(batch.x[rows], batch.eps[rows], batch.r[rows], batch.t[rows], y, int(i < 3))
        alone = objective().terms(network, one)
        torch.testing.assert_close(alone.loss[0], terms.loss[i], **EXACT)


# --- its pieces --------------------------------------------------------------------------------------------


def test_path_and_its_velocity() -> None:
    x, _, t, _, eps = make_inputs(5)
    assert torch.equal(interpolate(x, eps, torch.zeros(5)), x)
    assert torch.equal(interpolate(x, eps, torch.ones(5)), eps)
    h = 1e-3
    slope = (interpolate(x, eps, t + h) - interpolate(x, eps, t - h)) / (2 * h)
    torch.testing.assert_close(slope, conditional_velocity(x, eps), rtol=1e-9, atol=1e-9)


def test_squared_norm_is_a_sum() -> None:
    e = torch.arange(24.0).view(2, 3, 4)
    assert squared_norm(e).tolist() == [sum(i * i for i in range(12)), sum(i * i for i in range(12, 24))]


def test_u_target_by_hand() -> None:
    v, du_dt = torch.tensor([[3.0], [3.0]]), torch.tensor([[2.0], [2.0]])
    assert u_target(v, du_dt, torch.tensor([0.5, 0.25])).tolist() == [[2.0], [2.5]]


def test_u_target_is_v_where_the_interval_is_empty() -> None:
    v, du_dt = torch.randn(2, 4, 1, 8, 8, dtype=torch.float64)
    v.requires_grad_()
    target = u_target(v, du_dt, torch.tensor([0.0, 0.5, 0.0, 1.0], dtype=torch.float64))
    assert torch.equal(target[[0, 2]], v[[0, 2]])
    assert not torch.equal(target[1], v[1])
    assert not target.requires_grad


def test_exact_u_has_no_error() -> None:
    """For x = 0: v = eps = z_t/t; the field z/t gives straight lines, so u(z, r, t) = z/t and du/dt = 0."""
    batch = make_batch(8, 3)
    batch = Batch(torch.zeros_like(batch.x), batch.eps, batch.r, batch.t, None, 3)

    def exact(z: Any, r: Any, t: Any, y: Any) -> Any:
        return z / t.reshape(-1, 1, 1, 1)

    terms = objective().terms(exact, batch)  # type: ignore[arg-type]
    torch.testing.assert_close(terms.squared_error, torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-20)


def test_errors_at_an_empty_interval_agree() -> None:
    """L_u at r = t is L_v."""
    network = make_network("dit")
    x, _, t, y, eps = make_inputs(5)
    z, v = interpolate(x, eps, t), eps - x
    torch.testing.assert_close(u_error(network, z, t, t, y, v), v_error(network(z, t, t, y), v), **EXACT)


def test_adaptive_weight_in_closed_form() -> None:
    squared = torch.tensor([0.0, 0.99, 3.99], requires_grad=True)
    torch.testing.assert_close(adaptive_weight(squared, 0.01, 1.0), torch.tensor([100.0, 1.0, 0.25]))
    torch.testing.assert_close(adaptive_weight(squared, 0.01, 0.5), torch.tensor([10.0, 1.0, 0.5]))
    torch.testing.assert_close(adaptive_weight(squared, 0.01, 0.0), torch.ones(3))
    assert not adaptive_weight(squared, 0.01, 1.0).requires_grad


def test_gradient_of_the_weighted_loss_is_that_of_a_logarithm() -> None:
    """With p = 1: ∂(w·‖e‖²) = ∂ log(‖e‖² + c), as the weight is held fixed."""
    network, batch = make_network("mlp"), make_batch(8, 8)
    ours = gradients(network, objective().terms(network, batch).loss)
    squared = squared_norm(v_error(network(batch.z, batch.t, batch.t, batch.y), batch.v_t))
    theirs = gradients(network, (squared + 0.01).log())
    for n, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[n], rtol=1e-9, atol=1e-13)


# --- what is logged ----------------------------------------------------------------------------------------


def test_logged_errors_are_raw_means() -> None:
    network, batch = make_network("mlp"), make_batch(8, 6)
    terms = objective().terms(network, batch)
    _, squared = naive(network, batch)
    torch.testing.assert_close(terms.v_mse, squared[:6].mean(), **EXACT)
    torch.testing.assert_close(terms.u_mse, squared[6:].mean(), **EXACT)
    torch.testing.assert_close(terms.target_power, ((batch.eps - batch.x) ** 2).sum((1, 2, 3)).mean(), **EXACT)
    assert not terms.squared_error.requires_grad
    assert terms.v_mse > 10 * terms.loss.mean(), "the weighted loss says nothing about the error"


@pytest.mark.parametrize(("v_rows", "missing"), [(0, "v_mse"), (8, "u_mse")])
def test_error_without_rows_is_nan(v_rows: int, missing: str) -> None:
    terms = objective().terms(make_network("mlp"), make_batch(8, v_rows))
    assert torch.isnan(getattr(terms, missing))
    assert torch.isfinite(getattr(terms, {"v_mse": "u_mse", "u_mse": "v_mse"}[missing]))


# --- transforms --------------------------------------------------------------------------------------------


class Toy(Transform):
    """Doubles weights, then adds the row's number; shifts v's target; notes what it was given."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def weights(self, step: int, batch: Batch, weights: Tensor) -> Tensor:
        self.seen.append(weights.clone())
        return weights * (2 + torch.arange(len(weights)))

    def v_target(self, step: int, batch: Batch, target: Tensor) -> Tensor:
        return target + 0.5


class Offset(Transform):
    def weights(self, step: int, batch: Batch, weights: Tensor) -> Tensor:
        return weights + 3

    def v_target(self, step: int, batch: Batch, target: Tensor) -> Tensor:
        return target * 2


def run(transforms: Sequence[Transform], v_rows: int = 5) -> tuple[Terms, Batch, nn.Module]:
    network, batch = make_network("mlp"), make_batch(8, v_rows)
    return objective().terms(network, batch, 7, transforms), batch, network


def test_weights_are_applied_after_normalisation() -> None:
    """Eqs 8, 9: the transform sees Eq. 7's weights, and what it returns multiplies the raw error as it is."""
    toy = Toy()
    terms, _, _ = run([toy], v_rows=0)
    (given,) = toy.seen
    torch.testing.assert_close(given, 1 / (terms.squared_error + 0.01), **EXACT)
    torch.testing.assert_close(terms.loss, given * (2 + torch.arange(8)) * terms.squared_error, **EXACT)


def test_transforms_apply_in_order() -> None:
    terms, batch, network = run([Toy(), Offset()])
    assert batch.y is not None
    shifted = (batch.v_t[:5] + 0.5) * 2
    squared = squared_norm(v_error(network(batch.z[:5], batch.t[:5], batch.t[:5], batch.y[:5]), shifted))
    torch.testing.assert_close(terms.squared_error[:5], squared.detach(), **EXACT)
    weights = (2 + torch.arange(8)) / (terms.squared_error + 0.01) + 3
    torch.testing.assert_close(terms.loss, weights * terms.squared_error, **EXACT)


def test_v_target_leaves_the_u_loss_alone() -> None:
    plain, changed = run([])[0], run([Toy()])[0]
    assert torch.equal(plain.squared_error[5:], changed.squared_error[5:])
    assert not torch.isclose(plain.squared_error[:5], changed.squared_error[:5]).any()


def test_a_transform_that_does_nothing_does_nothing() -> None:
    plain, same = run([])[0], run([Transform(), Transform()])[0]
    assert torch.equal(plain.loss, same.loss)
