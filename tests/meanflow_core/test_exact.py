"""The exact fields against derivations that do not share their code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import meanflow_core.components  # noqa: F401  (registers the built-in components)
from meanflow_core.data.base import DataSet
from meanflow_core.data.exact import ExactFields
from meanflow_core.registry import parse_spec

F64 = torch.float64


def gmm() -> DataSet:
    return parse_spec("data", "gmm").build()


def small_mixture(K: int = 3, d: int = 2) -> ExactFields:
    g = torch.Generator().manual_seed(1)
    A = torch.randn(K, d, d, generator=g, dtype=F64)
    covariances = 0.3 * A @ A.mT + 0.1 * torch.eye(d, dtype=F64)
    means = 1.5 * torch.randn(K, d, generator=g, dtype=F64)
    return ExactFields(torch.rand(K, generator=g) + 0.2, means, covariances, (d,))


def points(fields: ExactFields, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """n points z at t uniform in [0.02, 1], with some r < t and the labels."""
    g = torch.Generator().manual_seed(seed)
    t = 0.02 + 0.98 * torch.rand(n, generator=g, dtype=F64)
    r = t * torch.rand(n, generator=g, dtype=F64)
    z, y = fields.draw_marginal(t, g)
    return z, r, t, y


def gaussian_parts(fields: ExactFields, k: int) -> tuple[Tensor, Tensor]:
    covariance = fields._Q[k] @ torch.diag(fields._lam[k]) @ fields._Q[k].T
    return fields.means[k], covariance


def test_isotropic_gaussian_in_one_dimension_by_hand() -> None:
    """x ~ N(1, 0.25): at t = 1 the flow ends at 1 + 0.5·z, so u(z, 0, 1) = z/2 − 1, and v(z, 1) = z − 1."""
    fields = parse_spec("data", "gaussian").build().exact
    z = torch.tensor([[-1.0], [0.0], [3.0]])
    one, zero = torch.ones(3), torch.zeros(3)
    torch.testing.assert_close(fields.u(z, zero, one), (z / 2 - 1).double())
    torch.testing.assert_close(fields.v(z, one), (z - 1).double())
    # t = 0: E[eps − x | x = z] = −z
    torch.testing.assert_close(fields.v(z, zero), -z.double())


def test_v_of_one_class_is_the_linear_regression_of_eps_minus_x_on_z() -> None:
    """For jointly Gaussian (x, eps): E[eps − x | z] = −m + (t·I − (1−t)Σ)((1−t)²Σ + t²I)⁻¹(z − (1−t)m)."""
    fields = small_mixture(d=3)
    for k in range(3):
        m, S = gaussian_parts(fields, k)
        for t in (0.0, 0.3, 1.0):
            z = torch.randn(5, 3, dtype=F64)
            eye = torch.eye(3, dtype=F64)
            gain = (t * eye - (1 - t) * S) @ torch.linalg.inv((1 - t) ** 2 * S + t**2 * eye)
            expected = -m + (z - (1 - t) * m) @ gain.T
            found = fields.v(z, torch.full((5,), t, dtype=F64), torch.full((5,), k))
            torch.testing.assert_close(found, expected)


def test_marginal_v_is_the_score_of_the_mixture_density() -> None:
    """E[x | z] = (z + t²∇log p)/(1−t) and E[eps | z] = −t·∇log p, with the score by autograd."""
    fields = small_mixture()
    z, _, t, _ = points(fields, 64)
    t = t.clamp(max=0.98)
    z.requires_grad_(True)
    a, eye = (1 - t)[:, None], torch.eye(2, dtype=F64)
    log_p = []
    for k in range(3):
        m, S = gaussian_parts(fields, k)
        covariance = a[..., None] ** 2 * S + t[:, None, None] ** 2 * eye
        law = torch.distributions.MultivariateNormal(a * m, covariance)
        log_p.append(fields.weights[k].log() + law.log_prob(z))
    score = torch.autograd.grad(torch.logsumexp(torch.stack(log_p), 0).sum(), z)[0]
    tt = t[:, None]
    expected = -tt * score - (z + tt**2 * score) / (1 - tt)
    torch.testing.assert_close(fields.v(z.detach(), t), expected.detach(), rtol=1e-8, atol=1e-8)


def test_marginal_v_is_the_best_regression_of_eps_minus_x() -> None:
    """By Monte Carlo, without any density: E[(eps − x)·φ(z)] = E[v·φ(z)] for test functions φ."""
    fields = small_mixture()
    g = torch.Generator().manual_seed(3)
    n = 400_000
    x, _ = fields.draw(n, g)
    eps = torch.randn(x.shape, generator=g, dtype=F64)
    t = torch.full((n,), 0.4, dtype=F64)
    z = 0.6 * x + 0.4 * eps
    residual = eps - x - fields.v(z, t)
    for phi in (torch.ones(n, 1), z, z.sin(), (z[:, :1] > 0.3).double(), z[:, :1] * z[:, 1:]):
        product = residual * phi
        standard_error = product.std(0) / math.sqrt(n)
        assert (product.mean(0).abs() < 4.5 * standard_error).all()


@pytest.mark.parametrize("conditional", [False, True])
def test_meanflow_identity(conditional: bool) -> None:
    """u = v − (t − r)·du/dt along the flow, du/dt by central differences in float64."""
    fields = small_mixture()
    z, r, t, y = points(fields, 128)
    label = y if conditional else None
    v = fields.v(z, t, label)
    h = 1e-4
    # z(t ± h) = z ± h·v + h²/2·dv/dt + …: the term in h² is the same on both sides and cancels.
    ahead = fields.u(z + h * v, r, t + h, label, steps=256)
    behind = fields.u(z - h * v, r, t - h, label, steps=256)
    dudt = (ahead - behind) / (2 * h)
    u = fields.u(z, r, t, label, steps=256)
    torch.testing.assert_close(u, v - (t - r)[:, None] * dudt, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("conditional", [False, True])
def test_two_jumps_are_one_long_jump(conditional: bool) -> None:
    """(t − r)·u(z_t, r, t) = (t − s)·u(z_t, s, t) + (s − r)·u(z_s, r, s)."""
    fields = small_mixture()
    z, r, t, y = points(fields, 64)
    label = y if conditional else None
    s = (r + t) / 2
    first = (t - s)[:, None] * fields.u(z, s, t, label, steps=128)
    second = (s - r)[:, None] * fields.u(z - first, r, s, label, steps=128)
    whole = (t - r)[:, None] * fields.u(z, r, t, label, steps=128)
    torch.testing.assert_close(first + second, whole, rtol=1e-6, atol=1e-7)


def test_u_is_continuous_where_r_meets_t() -> None:
    fields = small_mixture()
    z, _, t, y = points(fields, 64)
    for label in (None, y):
        v = fields.v(z, t, label)
        torch.testing.assert_close(fields.u(z, t, t, label), v)
        torch.testing.assert_close(fields.u(z, t - 1e-9, t, label), v, rtol=1e-6, atol=1e-6)


def test_rk4_is_of_fourth_order_and_exact_enough_on_the_real_mixture() -> None:
    """Halving the step divides the error by about 16; at 32 steps it is 1e-4 of u at most (Richardson)."""
    fields = gmm().exact
    assert fields is not None
    z, r, t, _ = points(fields, 64)
    coarse, fine, finest = (fields.u(z, r, t, steps=n) for n in (32, 64, 128))
    error, halved = (coarse - finest).norm(), (fine - finest).norm()
    assert error / halved > 8
    estimate = (fine - coarse).norm() * 16 / 15
    assert estimate < 1e-4 * finest.norm()


def test_rk4_agrees_with_the_closed_form_of_one_gaussian() -> None:
    """A mixture of two equal components is one Gaussian, but goes the way of the ODE."""
    mean, covariance = torch.tensor([[0.5, -1.0]]), torch.tensor([[[1.0, 0.3], [0.3, 0.5]]])
    one = ExactFields(torch.ones(1), mean, covariance, (2,))
    twice = ExactFields(torch.tensor([0.3, 0.7]), mean.repeat(2, 1), covariance.repeat(2, 1, 1), (2,))
    z, r, t, _ = points(one, 256)
    torch.testing.assert_close(twice.v(z, t), one.v(z, t))
    torch.testing.assert_close(twice.u(z, r, t), one.u(z, r, t), rtol=1e-5, atol=1e-6)


def test_v_is_finite_at_both_ends_of_time_and_far_from_the_data() -> None:
    data = gmm()
    z = torch.cat([torch.randn(8, 1, 8, 8), 100 * torch.randn(8, 1, 8, 8), data.reference_samples(8)])
    for t in (0.0, 1e-12, 1e-6, 0.5, 1.0):
        assert data.exact is not None
        assert data.exact.v(z, torch.full((24,), t)).isfinite().all()


def test_moments_agree_with_draws() -> None:
    fields = small_mixture()
    x, y = fields.draw(200_000, torch.Generator().manual_seed(5))
    mean, covariance = fields.moments()
    torch.testing.assert_close(x.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(x.T.cov(), covariance, atol=0.04, rtol=0)
    torch.testing.assert_close(torch.bincount(y) / len(y), fields.weights.float(), atol=0.005, rtol=0)


def test_a_singular_covariance_is_refused() -> None:
    with pytest.raises(ValueError, match="singular"):
        ExactFields(torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1.0, 1.0], [1.0, 1.0]]]), (2,))
    with pytest.raises(ValueError, match="larger shrinkage"):
        parse_spec("data", {"name": "gmm", "shrinkage": 0.0}).build()
