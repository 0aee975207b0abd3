"""How far the oracle may be trusted: its own error, its guided fields, and fields in many dimensions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from meanflow_core.components import Guidance
from meanflow_core.data.exact import ExactFields
from meanflow_core.data.fields import FINE_STEPS, RK4_STEPS, Fields, mean_along_flow
from meanflow_core.data.synthetic import BandLimitedFields
from meanflow_core.interpolant import per_row
from meanflow_core.registry import parse_spec

F64 = torch.float64
TINY = {"name": "synthetic_latents", "channels": 2, "side": 8, "classes": 4}
WHOLE = Guidance(cfg_omega=1.0, cfg_kappa=0.5)  # ω′ = 2 everywhere
PART = Guidance(cfg_omega=1.5, cfg_kappa=0.0, lo=0.2, hi=0.8)

# Relative errors of the oracle that are admitted; those of networks at any scale here are above 1e-2.
ORACLE = 1e-6
MARGINAL_JUMP = 2e-5  # of the mixture fitted to the digits, from noise to data in 32 steps without labels


def fields_of(spec: Any) -> Fields:
    fields: Fields = parse_spec("data", spec).build().exact
    return fields


def points(fields: Fields, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z at t uniform in [0.02, 1], r < t and labels; the second half from noise to data, t = 1 and r = 0."""
    g = torch.Generator().manual_seed(seed)
    t = 0.02 + 0.98 * torch.rand(n, generator=g, dtype=F64)
    r = t * torch.rand(n, generator=g, dtype=F64)
    t[n // 2 :], r[n // 2 :] = 1.0, 0.0
    z, y = fields.draw_marginal(t, g)
    return z, r, t, y


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def worst_half(a: Tensor, b: Tensor) -> float:
    n = len(a) // 2
    return max(relative(a[:n], b[:n]), relative(a[n:], b[n:]))


# --- the error of the integration (Richardson: halving the step of RK4 leaves 1/16 of its error) -----------


@pytest.mark.parametrize(("spec", "steps", "bound"), [("gmm", RK4_STEPS, MARGINAL_JUMP), (TINY, FINE_STEPS, ORACLE)])
def test_error_of_the_marginal_u(spec: Any, steps: int, bound: float) -> None:
    fields = fields_of(spec)
    z, r, t, _ = points(fields, 48)
    default, fine = fields.u(z, r, t), fields.u(z, r, t, steps=2 * steps)
    assert torch.equal(default, fields.u(z, r, t, steps=steps))
    assert 16 / 15 * worst_half(default, fine) < bound


@pytest.mark.parametrize(("spec", "guidance"), [("gmm", WHOLE), (TINY, WHOLE), (TINY, PART)])
def test_error_of_the_guided_u(spec: Any, guidance: Guidance) -> None:
    fields = fields_of(spec)
    z, r, t, y = points(fields, 12)
    half, default = fields.guided_u(z, r, t, y, guidance, FINE_STEPS // 2), fields.guided_u(z, r, t, y, guidance)
    assert 1 / 15 * worst_half(half, default) < ORACLE
    quarter = fields.guided_u(z, r, t, y, guidance, FINE_STEPS // 4)
    assert (quarter - half).norm() > 8 * (half - default).norm(), "of lower order: a jump in the path?"


def test_error_at_the_size_of_the_paper() -> None:
    fields = fields_of("synthetic_latents")
    z, r, t, y = points(fields, 8)
    guided = [fields.guided_u(z, r, t, y, WHOLE, steps) for steps in (FINE_STEPS // 2, FINE_STEPS)]
    marginal = [fields.u(z, r, t, steps=steps) for steps in (FINE_STEPS // 2, FINE_STEPS)]
    assert 1 / 15 * worst_half(*guided) < ORACLE
    assert 1 / 15 * worst_half(*marginal) < 5 * ORACLE


def test_integrating_one_gaussian_is_its_closed_form() -> None:
    """Guidance of ω′ = 1 changes nothing, but goes the way of the ODE."""
    for spec, steps in (("gmm", 64), (TINY, 32)):
        fields = fields_of(spec)
        z, r, t, y = points(fields, 16)
        none = Guidance(cfg_omega=0.5, cfg_kappa=0.5)
        assert worst_half(fields.guided_u(z, r, t, y, none, steps), fields.u(z, r, t, y)) < ORACLE


def test_u_beyond_the_data_continues_the_path() -> None:
    """r < 0: the closed form of one Gaussian, and the marginal u, against integrating v from t to r."""
    for spec, steps in (("gmm", 128), (TINY, 64)):
        fields = fields_of(spec)
        z, r, t, y = points(fields, 8)
        r = r - 0.5
        integrated = mean_along_flow(lambda z, t: fields.v(z, t, y), z, r, t, 64)  # noqa: B023
        assert worst_half(fields.u(z, r, t, y), integrated) < ORACLE
        s = torch.zeros_like(r)
        first = per_row(t, z) * fields.u(z, s, t, steps=steps // 2)
        rest = per_row(-r, z) * fields.u(z - first, r, s, steps=steps // 2)
        whole = per_row(t - r, z) * fields.u(z, r, t, steps=steps)
        assert worst_half(first + rest, whole) < ORACLE


# --- identities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "kind"),
    [("gmm", "marginal"), ("gmm", "class"), (TINY, "class"), (TINY, "guided"), (TINY, "guided in part")],
)
def test_meanflow_identity(spec: Any, kind: str) -> None:
    """u = v − (t − r)·du/dt along the flow of v. du/dt by forward differentiation where u is in closed form; where it
    is integrated that costs twenty times as much as differences of fourth order, which are as exact as RK4 here."""
    fields = fields_of(spec)
    z, r, t, y = points(fields, 8)
    r, t = 0.99 * r, 0.99 * t  # off the end of guidance at t = 1, where du/dt jumps
    guidance = PART if kind == "guided in part" else WHOLE
    if kind == "class":
        v, u = fields.v(z, t, y), lambda z, t: fields.u(z, r, t, y)
    elif kind == "marginal":
        v, u = fields.v(z, t), lambda z, t: fields.u(z, r, t, steps=64)
    else:
        v, u = fields.guided_v(z, t, y, guidance), lambda z, t: fields.guided_u(z, r, t, y, guidance, 32)
    if kind == "class":
        mean, du_dt = torch.func.jvp(u, (z, t), (v, torch.ones_like(t)))
        tolerance = 1e-10
    else:
        h, mean = 1e-3, u(z, t)
        far_back, back, ahead, far_ahead = (u(z + n * h * v, t + n * h) for n in (-2, -1, 1, 2))
        du_dt = (8 * (ahead - back) - (far_ahead - far_back)) / (12 * h)
        tolerance = 1e-5
    assert worst_half(v - per_row(t - r, z) * du_dt, mean) < tolerance


def test_guided_v_is_the_fixed_point_of_the_training_target() -> None:
    """v_g ← ω·v(z,t|y) + κ·v_g + (1 − ω − κ)·v(z,t), where κ < 1 makes it contract."""
    fields = fields_of(TINY)
    z, _, t, y = points(fields, 8)
    given, marginal = fields.v(z, t, y), fields.v(z, t)
    v = torch.zeros_like(given)
    for _ in range(60):
        v = WHOLE.cfg_omega * given + WHOLE.cfg_kappa * v + (1 - WHOLE.cfg_omega - WHOLE.cfg_kappa) * marginal
    torch.testing.assert_close(fields.guided_v(z, t, y, WHOLE), v)
    outside = (t < PART.lo) | (t > PART.hi)
    assert outside.any() and not outside.all()
    torch.testing.assert_close(fields.guided_v(z, t, y, PART)[outside], given[outside])
    assert not torch.isclose(fields.guided_v(z, t, y, PART)[~outside], given[~outside]).all()


def test_guided_jumps_across_the_ends_of_the_interval_add_up() -> None:
    fields = fields_of(TINY)
    z, _, _, y = points(fields, 8)
    at = [torch.full((8,), s, dtype=F64) for s in (0.95, 0.8, 0.5, 0.2, -0.1)]
    whole = 1.05 * fields.guided_u(z, at[-1], at[0], y, PART, 32)
    travelled = torch.zeros_like(z)
    for t, r in pairwise(at):
        travelled = travelled + (t - r)[0] * fields.guided_u(z - travelled, r, t, y, PART, 12)  # not steps of the whole
    assert relative(travelled, whole) < ORACLE
    t = at[2]
    torch.testing.assert_close(fields.guided_u(z, t, t, y, PART), fields.guided_v(z, t, y, PART))


# --- many dimensions, against covariances written out -----------------------------------------------------


def small() -> tuple[BandLimitedFields, Tensor]:
    """A law in 2·4·4 dimensions and its three covariances in full."""
    fields = fields_of({"name": "synthetic_latents", "channels": 2, "side": 4, "classes": 3, "modes": 2})
    assert isinstance(fields, BandLimitedFields)
    _, patterns, variances, basis = fields._parts
    white = torch.diag(variances.repeat_interleave(16))
    columns = [torch.block_diag(*(basis @ A for A in of_class)) for of_class in patterns]
    return fields, torch.stack([white + U @ U.T for U in columns])


def test_mixture_v_against_dense_gaussians() -> None:
    """Σ_k P(k|z)·v_k: the posterior by torch's densities, v_k by linear regression of eps − x on z."""
    fields, covariances = small()
    z, _, t, _ = points(fields, 32)
    flat, eye = z.flatten(1), torch.eye(32, dtype=F64)
    for i in range(32):
        a, b = 1 - t[i], t[i]
        marginals = [a**2 * S + b**2 * eye for S in covariances]
        laws = [MultivariateNormal(a * m, C) for m, C in zip(fields.means, marginals, strict=True)]
        posterior = torch.stack([law.log_prob(flat[i]) for law in laws]).softmax(0)
        slopes = [(b * eye - a * S) @ torch.linalg.inv(C) for S, C in zip(covariances, marginals, strict=True)]
        given = torch.stack([-m + G @ (flat[i] - a * m) for m, G in zip(fields.means, slopes, strict=True)])
        torch.testing.assert_close(fields.v(z[i : i + 1], t[i : i + 1]).flatten(), posterior @ given)
        for k in range(3):
            found = fields.v(z[i : i + 1], t[i : i + 1], torch.tensor([k]))
            torch.testing.assert_close(found.flatten(), given[k])


def test_everything_agrees_with_full_covariances() -> None:
    fields, covariances = small()
    dense = ExactFields(fields.weights, fields.means, covariances, fields.shape)
    z, r, t, y = points(fields, 32)
    torch.testing.assert_close(fields.u(z, r - 0.3, t, y), dense.u(z, r - 0.3, t, y))
    torch.testing.assert_close(fields.u(z, r, t, steps=32), dense.u(z, r, t, steps=32))
    torch.testing.assert_close(fields.guided_v(z, t, y, PART), dense.guided_v(z, t, y, PART))
    torch.testing.assert_close(fields.guided_u(z, r, t, y, PART, 32), dense.guided_u(z, r, t, y, PART, 32))
    A = torch.randn(5, 32, dtype=F64)
    for found, expected in ((fields.moments(), dense.moments()), (fields.moments(A), dense.moments(A))):
        torch.testing.assert_close(found, expected)


def test_draws_have_the_moments_of_their_class() -> None:
    fields, covariances = small()
    x, y = fields.draw(120_000, torch.Generator().manual_seed(0))
    assert x.dtype == F64
    torch.testing.assert_close(torch.bincount(y) / len(y), torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    for k in range(3):
        rows = x[y == k].flatten(1)
        scale = float(covariances[k].diagonal().max())
        torch.testing.assert_close(rows.mean(0), fields.means[k], atol=0.025 * scale**0.5, rtol=0)
        torch.testing.assert_close(rows.T.cov(), covariances[k], atol=0.03 * scale, rtol=0)
