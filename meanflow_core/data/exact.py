"""The exact v and u of a mixture of Gaussians, in float64 on the CPU.

With z_t = (1−t)·x + t·eps and x ~ N(m, QΛQᵀ), the coordinates of w = Qᵀ(z_t − (1−t)m) are independent, with
variances

    s_t² = (1−t)²λ + t²,

so E[x | z_t] = m + Q ((1−t)λ/s_t²) w and E[eps | z_t] = Q (t/s_t²) w. Along the flow dz/dt = v the ratio
w/s_t is constant:

    v(z, t)    = −m + Q [(t − (1−t)λ) / s_t²] w
    u(z, r, t) = (z_t − z_r)/(t − r) = −m + Q [(1 − s_r/s_t)/(t − r)] w

and (s_t² − s_r²)/(t − r) = t + r − λ(2−t−r) removes the division by t − r.
"""

from __future__ import annotations

import torch
from torch import Tensor

FULL_RANK = 1e-8  # smallest eigenvalue of a covariance, relative to its largest
RK4_STEPS = 32


class ExactFields:
    """v, u and draws of x ~ Σ_k w_k N(m_k, Σ_k).

    Without labels v and u are the marginal fields of the mixture; with labels y they are the fields of x
    given its class, the k-th Gaussian. All of z's dtypes are taken; results are float64 and of z's shape.
    """

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

    @property
    def num_components(self) -> int:
        return len(self.weights)

    def v(self, z: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """v(z, t) = E[eps − x | z_t = z (, y)]. z (B, *shape), t (B,), y (B,) or None."""
        if y is None and self.num_components > 1:
            return self._mixture_v(z.double().flatten(1), t.double()[:, None]).view(z.shape)
        return self.u(z, t, t, y)

    def u(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None = None, steps: int = RK4_STEPS) -> Tensor:
        """u(z, r, t) = (z_t − z_r)/(t − r) along the flow through z at time t; v(z, t) where r = t.

        Closed form for one Gaussian; for the mixture by ``steps`` RK4 steps, whose error falls as steps⁻⁴.
        z (B, *shape), r and t (B,) with 0 ≤ r ≤ t ≤ 1, y (B,) or None.
        """
        flat, r, t = z.double().flatten(1), r.double()[:, None], t.double()[:, None]
        if y is not None:
            out = torch.empty_like(flat)
            for k in range(self.num_components):
                rows = y == k
                out[rows] = self._gaussian_u(flat[rows], r[rows], t[rows], k)
        elif self.num_components == 1:
            out = self._gaussian_u(flat, r, t, 0)
        else:
            out = self._mixture_u(flat, r, t, steps)
        return out.view(z.shape)

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """n draws x (n, *shape) float64 and the components (n,) that they come from."""
        y = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        xi = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=rng)
        x = torch.empty_like(xi)
        for k in range(self.num_components):
            rows = y == k
            x[rows] = self.means[k] + (self._lam[k].sqrt() * xi[rows]) @ self._Q[k].T
        return x.view(n, *self.shape), y

    def draw_marginal(self, t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """z_t = (1−t)·x + t·eps, fresh x and eps: z (B, *shape) float64 and x's components (B,). t (B,)."""
        x, y = self.draw(len(t), rng)
        eps = torch.randn(x.shape, dtype=torch.float64, generator=rng)
        t = t.double().view(-1, *[1] * len(self.shape))
        return (1 - t) * x + t * eps, y

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance (d, d) of x: Σ w_k m_k and Σ w_k (Σ_k + m_k m_kᵀ) − mean·meanᵀ."""
        covariances = (self._Q * self._lam[:, None, :]) @ self._Q.mT
        mean = self.weights @ self.means
        centred = self.means - mean
        between = torch.einsum("k,ki,kj->ij", self.weights, centred, centred)
        return mean, torch.einsum("k,kij->ij", self.weights, covariances) + between

    def _gaussian_u(self, z: Tensor, r: Tensor, t: Tensor, k: int) -> Tensor:
        m, Q, lam = self.means[k], self._Q[k], self._lam[k]
        s_t = ((1 - t) ** 2 * lam + t**2).sqrt()
        s_r = ((1 - r) ** 2 * lam + r**2).sqrt()
        w = (z - (1 - t) * m) @ Q
        u: Tensor = -m + ((t + r - lam * (2 - t - r)) / (s_t * (s_t + s_r)) * w) @ Q.T
        return u

    def _mixture_v(self, z: Tensor, t: Tensor) -> Tensor:
        """Σ_k P(k | z_t = z)·v_k(z, t), the posterior by softmax of log densities. z (B, d), t (B, 1)."""
        t = t[:, :, None]
        w = (z @ self._Q_all).view(len(z), *self.means.shape) - (1 - t) * self._means_in_eigenbasis
        s2 = (1 - t) ** 2 * self._lam + t**2
        w_over_s2 = w / s2
        log_density = -0.5 * (s2.log() + w * w_over_s2).sum(2)
        posterior = (self.weights.log() + log_density).softmax(1)
        slopes = posterior[:, :, None] * (t - (1 - t) * self._lam) * w_over_s2
        v: Tensor = -posterior @ self.means + slopes.flatten(1) @ self._Q_all.T
        return v

    def _mixture_u(self, z: Tensor, r: Tensor, t: Tensor, steps: int) -> Tensor:
        """The mean of v along the path from t to r, by classical RK4; each row has its own step length."""
        h = (r - t) / steps  # ≤ 0
        u = torch.zeros_like(z)
        for i in range(steps):
            start = t + i * h
            k1 = self._mixture_v(z, start)
            k2 = self._mixture_v(z + h / 2 * k1, start + h / 2)
            k3 = self._mixture_v(z + h / 2 * k2, start + h / 2)
            k4 = self._mixture_v(z + h * k3, start + h)
            slope = (k1 + 2 * k2 + 2 * k3 + k4) / 6
            z = z + h * slope
            u += slope / steps
        return u
