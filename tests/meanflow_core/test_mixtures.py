"""Mixtures within classes: the fields against quantile maps, tight references and single Gaussians; the fit itself."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import Tensor

from meanflow_core.components import Guidance
from meanflow_core.data.fields import mean_along_flow
from meanflow_core.data.gmm import ExactDataSet, fit
from meanflow_core.data.mixtures import ClassMixtures, held_out_digits
from meanflow_core.registry import parse_spec

F64 = torch.float64
ENDS = (1e-3, 1 - 1e-3)  # of the times at which u has to be right
REQUIRED = 1e-6  # relative error of u, row by row
GUIDED = Guidance(cfg_omega=1.0, cfg_kappa=0.5, lo=0.2, hi=0.8)


def data(spec: object) -> ExactDataSet:
    built = parse_spec("data", spec).build()
    assert isinstance(built, ExactDataSet)
    return built


def points(fields: ClassMixtures, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z, r, t, y: a third of the rows goes all the way, the rest from any t to any r < t."""
    g = torch.Generator().manual_seed(2)
    lo, hi = ENDS
    t = lo + (hi - lo) * torch.rand(n, generator=g, dtype=F64)
    r = lo + (t - lo) * torch.rand(n, generator=g, dtype=F64)
    t[::3], r[::3] = hi, lo
    z, y = fields.draw_marginal(t, g)
    return z, r, t, y


def worst(found: Tensor, exact: Tensor) -> float:
    return float(((found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max())


def rk4(fields: ClassMixtures, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None, steps: int) -> Tensor:
    """u by Richardson's extrapolation of RK4: of fifth order, and of other code than the steps by tolerance."""
    coarse, fine = (mean_along_flow(lambda z, t: fields.v(z, t, y), z, r, t, n) for n in (steps, 2 * steps))
    return fine + (fine - coarse) / 15


@pytest.mark.parametrize("conditional", [True, False], ids=["of a class", "marginal"])
def test_in_one_dimension_the_flow_is_the_quantile_map(conditional: bool) -> None:
    """z_r = F_r⁻¹(F_t(z_t)) with F_t(z) = Σ_k w_k Φ((z − (1−t)m_k)/s_t): the flow keeps order, and its law is known."""
    weights = torch.tensor([[0.15, 0.35], [0.3, 0.2]], dtype=F64)
    means = torch.tensor([[-2.0, 2.0], [0.5, 1.0]], dtype=F64)[..., None]
    spreads = torch.tensor([[0.25, 0.4], [0.1, 1.0]], dtype=F64)
    fields = ClassMixtures(weights, means, spreads.square()[..., None, None], (1,))
    z, r, t, y = points(fields, 48)
    label = y if conditional else None

    def logit(x: float, t: float, c: int) -> float:
        """log F_t(x) − log(1 − F_t(x)), which loses no digits in either tail."""
        rows = slice(c, c + 1) if conditional else slice(None)
        w, m, s = (q[rows].flatten().numpy() for q in (weights, means, spreads))
        a = (x - (1 - t) * m) / ((1 - t) ** 2 * s**2 + t**2) ** 0.5
        return float(torch.tensor(w * ndtr(a)).sum().log() - torch.tensor(w * ndtr(-a)).sum().log())

    expected = []
    for x, lo, hi, c in zip(z[:, 0].tolist(), r.tolist(), t.tolist(), y.tolist(), strict=True):
        start = logit(x, hi, c)
        end = brentq(lambda q: logit(q, lo, c) - start, -20, 20, xtol=1e-14, rtol=1e-14)  # noqa: B023
        expected.append((x - end) / (hi - lo))
    found = fields.u(z, r, t, label)[:, 0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=F64), rtol=REQUIRED, atol=1e-8)


@pytest.mark.parametrize("spec", ["gmm_multi", "padded_mixture", {"name": "padded_mixture", "dim": 16}], ids=str)
def test_u_is_right_from_end_to_end(spec: object) -> None:
    fields = data(spec).exact
    assert isinstance(fields, ClassMixtures)
    z, r, t, y = points(fields, 12)
    assert worst(fields.u(z, r, t, y), rk4(fields, z, r, t, y, 80)) < REQUIRED


@pytest.mark.parametrize("spec", ["gmm_multi", "padded_mixture"])
def test_guided_u_is_right_from_end_to_end(spec: str) -> None:
    """The path is cut where guidance begins and ends; each piece by Richardson's extrapolation."""
    fields = data(spec).exact
    assert isinstance(fields, ClassMixtures)
    z, r, t, y = points(fields, 4)
    coarse, fine = (fields.guided_u(z, r, t, y, GUIDED, steps) for steps in (60, 120))
    assert worst(fields.guided_u(z, r, t, y, GUIDED), fine + (fine - coarse) / 15) < REQUIRED
    inside = torch.full_like(t, 0.7)
    expected = 2 * fields.v(z, inside, y) - fields.v(z, inside)
    torch.testing.assert_close(fields.guided_u(z, inside, inside, y, GUIDED), expected)


def test_equal_components_are_one_gaussian() -> None:
    one = fit(0.05)
    shape = (10, 4)
    alike = ClassMixtures(
        one.weights[:, None].expand(shape) / 4,
        one.means[:, None].expand(*shape, -1),
        ((one._Q * one._lam[:, None]) @ one._Q.mT)[:, None].expand(*shape, -1, -1),
        one.shape,
    )
    z, r, t, y = points(alike, 24)
    torch.testing.assert_close(alike.v(z, t, y), one.v(z, t, y))
    torch.testing.assert_close(alike.v(z, t), one.v(z, t))
    assert worst(alike.u(z, r, t, y), one.u(z, r, t, y)) < REQUIRED
    torch.testing.assert_close(alike.moments()[1], one.moments()[1])


def test_v_of_a_class_is_the_posterior_mean() -> None:
    """By Monte Carlo over components that the code under test does not know: E[(eps − x − v)·φ(z)] = 0 given y."""
    fields = data("padded_mixture").exact
    g = torch.Generator().manual_seed(4)
    x, y = fields.draw(200_000, g)
    eps = torch.randn(x.shape, generator=g, dtype=F64)
    t = torch.full((len(x),), 0.6, dtype=F64)
    z = 0.4 * x + 0.6 * eps
    residual = eps - x - fields.v(z, t, y)
    for c in range(4):
        rows = y == c
        for phi in (torch.ones(len(x), 1), z, z.sin()):
            product = (residual * phi)[rows]
            assert (product.mean(0).abs() < 4.5 * product.std(0) / rows.sum().sqrt()).all()


def test_the_class_field_is_not_affine_and_its_posteriors_are_skewed() -> None:
    """What the mixture is for: a least-squares affine fit of a class's v leaves a rest, of one Gaussian's none."""

    def rest(fields: object, y: int) -> float:
        g, t = torch.Generator().manual_seed(5), torch.full((4000,), 0.5, dtype=F64)
        z, _ = fields.draw_marginal(t, g)  # type: ignore[attr-defined]
        v = fields.v(z, t, torch.full((4000,), y)).flatten(1)  # type: ignore[attr-defined]
        design = torch.cat([z.flatten(1), torch.ones(4000, 1, dtype=F64)], 1)
        left = v - design @ torch.linalg.lstsq(design, v).solution
        return float(left.norm() / v.norm())

    assert rest(data("gmm").exact, 3) < 1e-9
    assert rest(data("gmm_multi").exact, 3) > 0.05


def test_draws_have_the_declared_law() -> None:
    law = data("gmm_multi")
    fields = law.exact
    x, y = fields.draw(40_000, torch.Generator().manual_seed(6))
    mean, covariance = fields.moments()
    torch.testing.assert_close(x.flatten(1).mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(x.flatten(1).T.cov(), covariance, atol=0.04, rtol=0)
    torch.testing.assert_close(torch.bincount(y) / len(y), fields.weights.float(), atol=0.008, rtol=0)
    assert law.num_classes == 10 and int(y.max()) == 9
    for c in (0, 7):
        torch.testing.assert_close(x[y == c].flatten(1).mean(0), fields.means[c], atol=0.08, rtol=0)


def test_held_out_digits_are_likelier_than_under_one_gaussian_a_class() -> None:
    """The likelihoods that the scale's caption states, in nats a pixel: 0.365 against 0.282 of one Gaussian a class."""
    x, y = held_out_digits()
    found = {
        (components, pooling): float(
            data({"name": "gmm_multi", "components": components, "pooling": pooling}).exact.log_density(x, y).mean()
            / 64
        )
        for components, pooling in ((4, 0.5), (1, 0.0))
    }
    assert found == {(4, 0.5): pytest.approx(0.365, abs=5e-4), (1, 0.0): pytest.approx(0.282, abs=5e-4)}


def test_log_density_is_torchs() -> None:
    fields = data("padded_mixture").exact
    x, _ = fields.draw(16, torch.Generator().manual_seed(7))
    law = fields.classes[1]
    covariances = (law._Q * law._lam[:, None]) @ law._Q.mT
    components = torch.distributions.MultivariateNormal(law.means, covariances)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(law.weights), components)
    torch.testing.assert_close(fields.log_density(x, torch.ones(16, dtype=torch.long)), mixture.log_prob(x))


def test_padding_changes_nothing_in_the_plane() -> None:
    plane, space = data("padded_mixture").exact, data({"name": "padded_mixture", "dim": 256}).exact
    z, r, t, y = points(space, 12)
    torch.testing.assert_close(space.u(z, r, t, y)[:, :2], plane.u(z[:, :2], r, t, y), rtol=1e-6, atol=1e-7)


def test_a_bad_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="larger shrinkage"):
        data({"name": "gmm_multi", "shrinkage": 0.0})
    with pytest.raises(ValueError, match="fewer components"):
        data({"name": "gmm_multi", "components": 40})
