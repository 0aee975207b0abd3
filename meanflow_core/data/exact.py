"""The exact v and u of a mixture of Gaussians, in float64 on the CPU.

With z_t = (1−t)·x + t·eps and x ~ N(m, QΛQᵀ), the coordinates of w = Qᵀ(z_t − (1−t)m) are independent, with
variances

    s_t² = (1−t)²λ + t²,

so E[x | z_t] = m + Q ((1−t)λ/s_t²) w and E[eps | z_t] = Q (t/s_t²) w. Along the flow dz/dt = v the ratio
w/s_t is constant:

    v(z, t)    = −m + Q [(t − (1−t)λ) / s_t²] w
    u(z, r, t) = (z_t − z_r)/(t − r) = −m + Q [(1 − s_r/s_t)/(t − r)] w

and (s_t² − s_r²)/(t − r) = t + r − λ(2−t−r) removes the division by t − r. All of it holds for r < 0 too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from meanflow_core.data.fields import RK4_STEPS, Fields, mean_along_flow

FULL_RANK = 1e-8  # smallest eigenvalue of a covariance, relative to its largest


class ExactFields(Fields):
    """v, u and draws of x ~ Σ_k w_k N(m_k, Σ_k), each Σ_k given in full. Its classes are its components."""

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, shape: tuple[int, ...]) -> None:
        """weights (K,), means (K, d), covariances (K, d, d), where d = ∏ shape.

        Raises: ValueError if a covariance is singular: v is then unbounded as t → 0.
        """
        self.shape = shape
        self.weights = weights.double() / weights.double().sum()
        self.means = means.double()
        self._lam, self._Q = torch.linalg.eigh(covariances.double())
        for k, lam in enumerate(self._lam):
            if lam.min() <= FULL_RANK * lam.max():
                raise ValueError(f"covariance {k} is singular (smallest eigenvalue {lam.min():.3g})")
        K, d = self.means.shape
        # The mixture is evaluated with two matrix products, so all Q_k stand side by side: (d, K·d).
        self._Q_all = self._Q.permute(1, 0, 2).reshape(d, K * d).contiguous()
        self._means_in_eigenbasis = torch.einsum("kij,ki->kj", self._Q, self.means)

    def v(self, z: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None and len(self.weights) > 1:
            return self._mixture_v(z.double().flatten(1), t.double()).view(z.shape)
        return self.u(z, t, t, y)

    def u(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None = None, steps: int | None = RK4_STEPS) -> Tensor:
        flat, r, t = z.double().flatten(1), r.double(), t.double()
        if y is not None:
            out = torch.empty_like(flat)
            for k in y.unique().tolist():
                rows = y == k
                out[rows] = self._gaussian_u(flat[rows], r[rows], t[rows], k)
        elif len(self.weights) == 1:
            out = self._gaussian_u(flat, r, t, 0)
        else:
            out = mean_along_flow(self._mixture_v, flat, r, t, steps)
        return out.view(z.shape)

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        y = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        xi = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=rng)
        order = y.argsort(stable=True)  # each component's rows stand together
        parts = xi[order].split(torch.bincount(y, minlength=len(self.weights)).tolist())
        drawn = [
            m + (s * part) @ Q.T for m, s, Q, part in zip(self.means, self._lam.sqrt(), self._Q, parts, strict=True)
        ]
        x = torch.empty_like(xi)
        x[order] = torch.cat(drawn)
        return x.view(n, *self.shape), y

    def moments(self, A: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Σ w_k m_k and Σ w_k (Σ_k + m_k m_kᵀ) − mean·meanᵀ, of A·x."""
        covariances = (self._Q * self._lam[:, None, :]) @ self._Q.mT
        mean = self.weights @ self.means
        centred = self.means - mean
        between = torch.einsum("k,ki,kj->ij", self.weights, centred, centred)
        covariance = torch.einsum("k,kij->ij", self.weights, covariances) + between
        return (mean, covariance) if A is None else (A @ mean, A @ covariance @ A.T)

    def log_density(self, x: Tensor) -> Tensor:
        """log Σ_k w_k N(x; m_k, Σ_k) in nats, (B,) float64, of x (B, *shape)."""
        w = torch.einsum("kij,kbi->kbj", self._Q, x.double().flatten(1) - self.means[:, None])
        squares = (w.square() / self._lam[:, None] + (2 * math.pi * self._lam[:, None]).log()).sum(2)
        return (self.weights.log()[:, None] - squares / 2).logsumexp(0)

    def _gaussian_u(self, z: Tensor, r: Tensor, t: Tensor, k: int) -> Tensor:
        m, Q, lam = self.means[k], self._Q[k], self._lam[k]
        r, t = r[:, None], t[:, None]
        w = (z - (1 - t) * m) @ Q
        u: Tensor = -m + (mean_slope(lam, r, t) * w) @ Q.T
        return u

    def _mixture_v(self, z: Tensor, t: Tensor) -> Tensor:
        """Σ_k P(k | z_t = z)·v_k(z, t), the posterior by softmax of log densities. z (B, d), t (B,)."""
        t = t[:, None, None]
        w = (z @ self._Q_all).view(len(z), *self.means.shape) - (1 - t) * self._means_in_eigenbasis
        s2 = (1 - t) ** 2 * self._lam + t**2
        w_over_s2 = w / s2
        log_density = -0.5 * (s2.log() + w * w_over_s2).sum(2)
        posterior = (self.weights.log() + log_density).softmax(1)
        slopes = posterior[:, :, None] * (t - (1 - t) * self._lam) * w_over_s2
        v: Tensor = -posterior @ self.means + slopes.flatten(1) @ self._Q_all.T
        return v


def mean_slope(lam: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """(1 − s_r/s_t)/(t − r): u along an eigenvector of variance λ, as a multiple of w. Shapes broadcast."""
    s_t = ((1 - t) ** 2 * lam + t**2).sqrt()
    s_r = ((1 - r) ** 2 * lam + r**2).sqrt()
    return (t + r - lam * (2 - t - r)) / (s_t * (s_t + s_r))
