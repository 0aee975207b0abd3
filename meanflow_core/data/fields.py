"""What is asked of a law whose fields are known, its fields under guidance, and integration along a flow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from meanflow_core.components import Guidance
from meanflow_core.interpolant import interpolate, per_row

RK4_STEPS = 32
FINE_STEPS = 128
TOLERANCE = 1e-8  # of steps chosen by their error, relative and absolute


class Fields(ABC):
    """v, u and draws of x of shape ``shape``, in K classes that are Gaussians or mixtures; results are float64 and of
    z's shape.

    Without labels v and u are the marginal fields of all classes; with labels y they are the fields of x given its
    class. z (B, *shape) of any dtype, r and t (B,), y (B,) or None.
    """

    shape: tuple[int, ...]
    weights: Tensor
    """Probabilities of the classes, (K,)."""
    means: Tensor
    """Of the classes, (K, d) with d = ∏ shape."""

    @abstractmethod
    def v(self, z: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """v(z, t) = E[eps − x | z_t = z (, y)]."""

    @abstractmethod
    def u(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None = None, steps: int | None = RK4_STEPS) -> Tensor:
        """u(z, r, t) = (z_t − z_r)/(t − r) along the flow through z at time t; v(z, t) where r = t.

        r ≤ t ≤ 1; r < 0 continues the path beyond the data. Closed form for one Gaussian; for a mixture by
        :func:`mean_along_flow` in ``steps`` steps.
        """

    @abstractmethod
    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """n draws x (n, *shape) float64 and the components (n,) that they come from."""

    @abstractmethod
    def moments(self, A: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean (q,) and covariance (q, q) of A·x for a linear map A (q, d) float64; of x itself at None."""

    def draw_marginal(self, t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """z_t = (1−t)·x + t·eps, fresh x and eps: z (B, *shape) float64 and x's components (B,). t (B,)."""
        x, y = self.draw(len(t), rng)
        eps = torch.randn(x.shape, dtype=torch.float64, generator=rng)
        return interpolate(x, eps, t.double()), y

    def guided_v(self, z: Tensor, t: Tensor, y: Tensor, guidance: Guidance) -> Tensor:
        """The v that training with ``guidance`` has as its fixed point.

        Its target is ω·v_t + κ·u_θ(z,t,t|y) + (1−ω−κ)·u_θ(z,t,t|∅) for t in [lo, hi]. The null class learns the
        marginal v(z, t), the mean of v_t given z and y is v(z, t|y), and at the fixed point u_θ(z,t,t|y) is the
        target's mean, v_g = ω·v(z,t|y) + κ·v_g + (1−ω−κ)·v(z,t). So, with ω′ = ω/(1−κ),

            v_g(z, t|y) = ω′·v(z, t|y) + (1 − ω′)·v(z, t)      t in [lo, hi], elsewhere v(z, t|y)
        """
        inside = per_row((guidance.lo <= t) & (t <= guidance.hi), z)
        return torch.where(inside, self._inside(z, t, y, guidance), self.v(z, t, y))

    def guided_u(
        self, z: Tensor, r: Tensor, t: Tensor, y: Tensor, guidance: Guidance, steps: int | None = FINE_STEPS
    ) -> Tensor:
        """u_g(z, r, t|y): the mean of v_g along the flow of v_g through z at time t; v_g(z, t) where r = t.

        v_g jumps at lo and hi, so the path is cut there. Outside the interval it is the class's u; inside it takes
        ``steps`` steps of :func:`mean_along_flow`.
        """
        z, r, t = z.double(), r.double(), t.double()
        enter = t.clamp(max=guidance.hi).maximum(r)
        leave = t.clamp(max=guidance.lo).maximum(r)
        above = per_row(t - enter, z) * self.u(z, enter, t, y)
        within = per_row(enter - leave, z) * mean_along_flow(
            lambda z, t: self._inside(z, t, y, guidance), z - above, leave, enter, steps
        )
        below = per_row(leave - r, z) * self.u(z - above - within, r, leave, y)
        mean = (above + within + below) / per_row(t - r, z)
        return torch.where(per_row(t > r, z), mean, self.guided_v(z, t, y, guidance))

    def _inside(self, z: Tensor, t: Tensor, y: Tensor, guidance: Guidance) -> Tensor:
        omega = guidance.effective_omega
        return omega * self.v(z, t, y) + (1 - omega) * self.v(z, t)


def mean_along_flow(
    v: Callable[[Tensor, Tensor], Tensor], z: Tensor, r: Tensor, t: Tensor, steps: int | None = RK4_STEPS
) -> Tensor:
    """The mean of v along the path dz/dt = v from t to r, (B, ...); each row has its own step length.

    v(z, t) takes z (B, ...) and t (B,); r and t (B,). By ``steps`` classical RK4 steps, whose error falls as steps⁻⁴;
    at None by Dormand and Prince's steps of order 8, as many as keep the error of all rows within TOLERANCE.
    """
    if steps is None:
        return _mean_within_tolerance(v, z, r, t)
    h = (r - t) / steps  # ≤ 0
    u, step = torch.zeros_like(z), per_row(h, z)
    for i in range(steps):
        start = t + i * h
        k1 = v(z, start)
        k2 = v(z + step / 2 * k1, start + h / 2)
        k3 = v(z + step / 2 * k2, start + h / 2)
        k4 = v(z + step * k3, start + h)
        slope = (k1 + 2 * k2 + 2 * k3 + k4) / 6
        z = z + step * slope
        u = u + slope / steps
    return u


def _mean_within_tolerance(v: Callable[[Tensor, Tensor], Tensor], z: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """U(1), where dU/ds = v(z − (t−r)·U(s), t − (t−r)·s) and U(0) = 0: u itself, so that short gaps lose no digits."""
    from scipy.integrate import solve_ivp  # half a second, which workers on other data need not spend

    gap, shape = t - r, z.shape

    def slope(s: float, mean: np.ndarray) -> np.ndarray:
        u = torch.from_numpy(mean).view(shape)
        return v(z - per_row(gap, z) * u, t - gap * s).flatten().numpy()

    path = solve_ivp(
        slope, (0.0, 1.0), np.zeros(z.numel()), method="DOP853", t_eval=(1.0,), rtol=TOLERANCE, atol=TOLERANCE
    )
    if not path.success:
        raise ArithmeticError(f"the exact u cannot be integrated to within {TOLERANCE:g}: {path.message}")
    return torch.from_numpy(path.y[:, -1]).view(shape)
