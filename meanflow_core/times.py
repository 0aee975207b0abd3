"""The law of (r, t): two independent draws, of which r is the smaller and t the larger.

A curriculum may hold t above a bound a: then one of the two draws, X, is taken from its law given X ≥ a, the other, Y,
is not, so that t = max(X, Y) ≥ a (Eq. 9). With F the law of a single draw,

    F_Y = F,   F_X(x) = (F(x) − F(a)) / (1 − F(a)) for x ≥ a, else 0,   F_t = F_X·F_Y,

and a = 0 is the ordinary sampler. Expectations are taken by quadrature. SciPy is imported where it is used, as drawing
takes none of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from meanflow_core.components import LogitNormalParams, UniformParams
from meanflow_core.registry import BuildContext


class TimeSampler(ABC):
    """Base of all laws of (r, t). One of your own gives `cdf`, `quantile`, `draw` and, to be used with gaps that are
    restricted by drawing t again, `draw_t_above`."""

    @abstractmethod
    def cdf(self, x: float) -> float:
        """F(x), the law of a single draw, x in [0, 1]."""

    @abstractmethod
    def quantile(self, p: float) -> float:
        """F⁻¹(p), p in [0, 1]."""

    @abstractmethod
    def draw(self, n: int, rng: torch.Generator, t_above: float = 0.0) -> tuple[Tensor, Tensor]:
        """n pairs (r, t), each (n,), on the generator's device, with r ≤ t and t ≥ t_above."""

    def mean_gap(self, t_above: float = 0.0) -> float:
        """E[Δt] = E|X − Y| = ∫ F_X·(1 − F_Y) + F_Y·(1 − F_X) dx over [0, 1], by quadrature."""
        low = self.cdf(t_above)

        def integrand(x: float) -> float:
            f_y = self.cdf(x)
            f_x = (f_y - low) / (1 - low)
            return f_x * (1 - f_y) + f_y * (1 - f_x)

        below = _integral(self.cdf, 0.0, t_above)  # where F_X = 0
        return below + _integral(integrand, t_above, 1.0)

    def mean_over_t(self, g: Callable[[float], float], t_above: float = 0.0) -> float:
        """E[g(t)] = ∫ g d(F_X·F_Y), by quadrature over p = F_Y(x), of which F_X = (p − F(a)) / (1 − F(a))."""
        low = self.cdf(t_above)
        return _integral(lambda p: g(self.quantile(p)) * (2 * p - low) / (1 - low), low, 1.0)


def _integral(f: Callable[[float], float], low: float, high: float) -> float:
    from scipy import integrate

    return float(integrate.quad(f, low, high, limit=500, epsabs=1e-10)[0])


class LogitNormal(TimeSampler):
    """Single draws of σ(N(mean, std²)). Rows that train v use t alone, that is, the larger of two draws."""

    def __init__(self, params: LogitNormalParams) -> None:
        self.mean, self.std = params.mean, params.std

    def cdf(self, x: float) -> float:
        from scipy import special

        return float(special.ndtr((special.logit(x) - self.mean) / self.std))

    def quantile(self, p: float) -> float:
        from scipy import special

        return float(special.expit(self.mean + self.std * special.ndtri(p)))

    def draw(self, n: int, rng: torch.Generator, t_above: float = 0.0) -> tuple[Tensor, Tensor]:
        normal = torch.randn(2, n, generator=rng, device=rng.device)
        if t_above > 0:  # the same random numbers, moved into the tail: as t_above → 0 they are the ordinary ones
            tail = (1 - self.cdf(t_above)) * torch.special.ndtr(-normal[0].double())
            normal[0] = -torch.special.ndtri(tail)
        times = torch.sigmoid(self.mean + self.std * normal)
        return times.amin(0), times.amax(0).clamp(min=t_above)  # rounding may have gone an ulp below

    def draw_t_above(self, bound: Tensor, rng: torch.Generator) -> Tensor:
        """t, the larger of two draws, given t ≥ bound, by inverse CDF: F(t) = Φ((logit t − mean)/std)².

        bound (n,) in (0, 1) on the generator's device → (n,) in [bound, 1). In float64, since F(bound) may be near 1.
        """
        low = torch.special.ndtr((bound.double().logit() - self.mean) / self.std).square()
        uniform = torch.rand(bound.shape, generator=rng, device=bound.device, dtype=torch.float64)
        quantile = (low + (1 - low) * uniform).sqrt()
        t = torch.sigmoid(self.mean + self.std * torch.special.ndtri(quantile)).to(bound.dtype)
        return t.clamp(max=1 - torch.finfo(bound.dtype).eps).maximum(bound)


class Uniform(TimeSampler):
    """Single draws of U[0, 1]."""

    def __init__(self, params: UniformParams) -> None:
        pass

    def cdf(self, x: float) -> float:
        return x

    def quantile(self, p: float) -> float:
        return p

    def draw(self, n: int, rng: torch.Generator, t_above: float = 0.0) -> tuple[Tensor, Tensor]:
        times = torch.rand(2, n, generator=rng, device=rng.device)
        times[0] = t_above + (1 - t_above) * times[0]
        return times.amin(0), times.amax(0).clamp(min=t_above)

    def draw_t_above(self, bound: Tensor, rng: torch.Generator) -> Tensor:
        """t, the larger of two draws, given t ≥ bound: F(t) = t². bound (n,) in [0, 1] → (n,)."""
        uniform = torch.rand(bound.shape, generator=rng, device=bound.device, dtype=torch.float64)
        t = (bound.double().square() + (1 - bound.double().square()) * uniform).sqrt()
        return t.to(bound.dtype).maximum(bound)


def logit_normal(params: LogitNormalParams, context: BuildContext) -> LogitNormal:
    return LogitNormal(params)


def uniform(params: UniformParams, context: BuildContext) -> Uniform:
    return Uniform(params)
