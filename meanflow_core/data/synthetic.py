"""Synthetic latents: a Gaussian mixture in the dimension of the paper's latents whose v and u are known.

Per channel c of side S, with P = S² places, the data are smooth patterns and white noise:

    x_c = B(μ_yc + A_yc ξ′) + √δ_c ξ        ξ′ ~ N(0, I), ξ ~ N(0, I)

The columns of B (P, M) are the lowest two-dimensional cosine modes, BᵀB = I. So class y has mean Bμ_y and covariance
Σ_y = δI + U diag(s) Uᵀ, where U = BQ and S_y = δI + A_y A_yᵀ = Q diag(δ + s) Qᵀ. Each column of U belongs to one
channel, where δI is a multiple of the identity, so a function of Σ_y is

    f(Σ_y) x = f(δ) x + U [(f(δ + s) − f(δ)) ∘ Uᵀx] = f(δ)(x − BBᵀx) + B f(S_y) Bᵀx.                       (*)

The law splits into a small mixture, whose covariances are full, in the coordinates Bᵀx, and a white Gaussian, common
to all classes, in the rest. The rest says nothing about y. So v and u, guided ones too, are those of the small mixture
and of a single Gaussian, and nothing of size d × d is formed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor

from meanflow_core.components import Guidance, SyntheticLatentsParams
from meanflow_core.data.base import REFERENCE_SEED
from meanflow_core.data.exact import ExactFields, mean_slope
from meanflow_core.data.fields import FINE_STEPS, Fields
from meanflow_core.data.gmm import ExactDataSet
from meanflow_core.registry import BuildContext
from meanflow_core.seeding import generator

# Shares of E‖x‖², which is d: class means, smooth patterns within a class, white noise.
BETWEEN, WITHIN, WHITE = 0.1, 0.5, 0.4
CHUNK = 1024


class BandLimitedFields(Fields):
    """v, u and draws of such a law, whose K components are equally likely."""

    def __init__(self, means: Tensor, patterns: Tensor, variances: Tensor, basis: Tensor) -> None:
        """In float64: μ (K, C, M), A (K, C, M, M), δ (C,), B (P, M) with P a square."""
        side = round(len(basis) ** 0.5)
        self.shape = (len(variances), side, side)
        self._parts = (means, patterns, variances, basis)
        self._parts_on: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}
        white = variances[:, None, None] * torch.eye(basis.shape[1], dtype=basis.dtype)
        covariances = torch.stack([torch.block_diag(*blocks) for blocks in patterns @ patterns.mT + white])
        self.low = ExactFields(torch.ones(len(means)), means.flatten(1), covariances, (means[0].numel(),))
        self.weights = self.low.weights
        self.means = (means @ basis.T).flatten(1)

    def v(self, z: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self._split(z, t, t, lambda a: self.low.v(a, t, y))

    def u(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None = None, steps: int | None = FINE_STEPS) -> Tensor:
        return self._split(z, r, t, lambda a: self.low.u(a, r, t, y, steps))

    def guided_v(self, z: Tensor, t: Tensor, y: Tensor, guidance: Guidance) -> Tensor:
        return self._split(z, t, t, lambda a: self.low.guided_v(a, t, y, guidance))

    def guided_u(
        self, z: Tensor, r: Tensor, t: Tensor, y: Tensor, guidance: Guidance, steps: int | None = FINE_STEPS
    ) -> Tensor:
        return self._split(z, r, t, lambda a: self.low.guided_u(a, r, t, y, guidance, steps))

    def draw(self, n: int, rng: torch.Generator, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """As the base class, in ``dtype`` and on the device of ``rng``: a GPU need not wait for a CPU's draws."""
        means, patterns, variances, basis = self._on(rng.device, dtype)
        K, C, M = means.shape
        y = torch.randint(K, (n,), generator=rng, device=rng.device)
        low, white = (
            torch.randn(n, C, *size, generator=rng, device=rng.device, dtype=dtype) for size in ((M, 1), (len(basis),))
        )
        x = (means[y] + (patterns[y] @ low).squeeze(-1)) @ basis.T + variances.sqrt()[:, None] * white
        return x.view(n, *self.shape), y

    def moments(self, A: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A·Bμ̄ and A(δI + B(S − δI)Bᵀ)Aᵀ, with μ̄ and S the moments of Bᵀx."""
        _, _, variances, basis = self._parts
        A = torch.eye(self.means.shape[1], dtype=torch.float64) if A is None else A
        places = A.unflatten(1, (len(variances), -1))
        AB, mean, S = (places @ basis).flatten(1), *self.low.moments()
        S = S - variances.repeat_interleave(basis.shape[1]).diag()
        return AB @ mean, (places * variances[:, None]).flatten(1) @ A.T + AB @ S @ AB.T

    def _split(self, z: Tensor, r: Tensor, t: Tensor, low: Callable[[Tensor], Tensor]) -> Tensor:
        """(*) applied to z: ``low`` to the coordinates Bᵀz, u in closed form to the white rest."""
        _, _, variances, basis = self._parts
        x = z.double().flatten(2)
        a = x @ basis
        white = mean_slope(variances, r.double()[:, None], t.double()[:, None])[:, :, None]
        return ((low(a.flatten(1)).view_as(a) - white * a) @ basis.T + white * x).view(z.shape)

    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """μ, A, δ, B there, kept."""
        if (device, dtype) not in self._parts_on:
            self._parts_on[device, dtype] = tuple(x.to(device, dtype) for x in self._parts)
        return self._parts_on[device, dtype]


class SyntheticLatents(ExactDataSet):
    """Endless draws, made on the device where they are wanted."""

    exact: BandLimitedFields

    def batch(self, seed: int, step: int, batch_size: int, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
        x, y = self.exact.draw(batch_size, generator(seed, "data", step, device), torch.float32)
        return x, y if self.num_classes else None

    def reference_samples(self, n: int) -> Tensor:
        """See the base class; a piece at a time, as they are large."""
        rng, x = generator(REFERENCE_SEED, "reference", 0), torch.empty(n, *self.shape)
        for piece in x.split(CHUNK):
            piece[:] = self.exact.draw(len(piece), rng, torch.float32)[0]
        return x


def cosine_modes(side: int, per_axis: int) -> Tensor:
    """B (side², per_axis²): the lowest cosine modes (DCT-II) of a square, frequency (i, j) at i·per_axis + j."""
    modes = torch.from_numpy(dct(np.eye(side), axis=0, norm="ortho")[:per_axis])
    return torch.kron(modes, modes).T.contiguous()


def fields(p: SyntheticLatentsParams) -> BandLimitedFields:
    """Means and patterns with random phases, their power falling as 1/(1 + i² + j²) with the frequency (i, j).

    Channels differ in size; E‖x‖² = d. With more than one class the overall mean is 0.
    """
    rng, C, M = generator(p.pattern_seed, "synthetic_latents"), p.channels, p.modes**2
    i = torch.arange(p.modes, dtype=torch.float64)
    amplitude = (1 + i[:, None] ** 2 + i**2).rsqrt().flatten()
    sizes = 0.5 + torch.rand(C, generator=rng, dtype=torch.float64)
    power = (p.side**2 * sizes / sizes.mean())[:, None]  # of a channel, Σ over its places
    means = amplitude * torch.randn(p.classes, C, M, generator=rng, dtype=torch.float64)
    if p.classes > 1:
        means = means - means.mean(0)
    means *= (BETWEEN * power).sqrt() / means.square().sum(2, keepdim=True).mean(0).sqrt()
    patterns = amplitude[:, None] * torch.randn(p.classes, C, M, M, generator=rng, dtype=torch.float64)
    patterns *= (WITHIN * power[:, None]).sqrt() / patterns.norm(dim=(2, 3), keepdim=True)
    return BandLimitedFields(means, patterns, WHITE * power[:, 0] / p.side**2, cosine_modes(p.side, p.modes))


def build(params: SyntheticLatentsParams, ctx: BuildContext) -> SyntheticLatents:
    return SyntheticLatents(fields(params), params.classes if params.classes > 1 else None)
