"""Classes that are mixtures themselves, so that a class's field is not affine: v in closed form, u by integration.

Of one Gaussian E[eps − x | z_t] is affine in z_t, and x given z_t is Gaussian, hence symmetric about its mean: a
network that is told the class meets nothing else in a mixture of one Gaussian a class. Here class c has the law
Σ_j w_cj N(m_cj, Σ_cj).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from meanflow_core.components import GMMMultiParams, Guidance, PaddedMixtureParams
from meanflow_core.data.digits import NUM_CLASSES, SHAPE, digits
from meanflow_core.data.exact import ExactFields
from meanflow_core.data.fields import Fields
from meanflow_core.data.gmm import ExactDataSet
from meanflow_core.registry import BuildContext
from meanflow_core.seeding import generator


class ClassMixtures(Fields):
    """v, u and draws of x whose class c has the law Σ_j w_cj N(m_cj, Σ_cj)."""

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, shape: tuple[int, ...]) -> None:
        """Of component j of class c: weights (C, J), whose rows sum to P(c), means (C, J, d), covariances (C, J, d, d).

        Raises: ValueError if a covariance is singular.
        """
        self.shape = shape
        self.classes = [ExactFields(*parts, shape) for parts in zip(weights, means, covariances, strict=True)]
        self.together = ExactFields(weights.flatten(), means.flatten(0, 1), covariances.flatten(0, 1), shape)
        self.weights = self.together.weights.view(weights.shape).sum(1)
        self.means = torch.stack([law.moments()[0] for law in self.classes])

    def v(self, z: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self._of_class(ExactFields.v, y, z, t)

    def u(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None = None, steps: int | None = None) -> Tensor:
        return self._of_class(lambda law, z, r, t: law.u(z, r, t, steps=steps), y, z, r, t)

    def guided_u(
        self, z: Tensor, r: Tensor, t: Tensor, y: Tensor, guidance: Guidance, steps: int | None = None
    ) -> Tensor:
        return super().guided_u(z, r, t, y, guidance, steps)

    def log_density(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(x | y) in nats, (B,) float64."""
        return self._of_class(ExactFields.log_density, y, x)

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, component = self.together.draw(n, rng)
        return x, component // len(self.classes[0].weights)

    def moments(self, A: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.together.moments(A)

    def _of_class(self, field: Callable[..., Tensor], y: Tensor | None, *rows: Tensor) -> Tensor:
        """``field(law, *rows)``, the law of each row being its class's, or that of all classes together."""
        if y is None:
            return field(self.together, *rows)
        present = [int(c) for c in y.unique()]
        parts = [field(self.classes[c], *(row[y == c] for row in rows)) for c in present]
        out = parts[0].new_empty(len(y), *parts[0].shape[1:])
        for c, part in zip(present, parts, strict=True):
            out[y == c] = part
        return out


# --- fitted to the digits ----------------------------------------------------------------------------------


def held_out_digits() -> tuple[Tensor, Tensor]:
    """The images (N, 1, 8, 8) and labels (N,) that no component is fitted to: every fifth."""
    x, y = digits()
    return x[4::5], y[4::5]


def fit(p: GMMMultiParams) -> ClassMixtures:
    """Within each class k-means, then a Gaussian a cluster: its share, its mean and its covariance S_j (denominator n).

    Some 36 images do not determine 64 × 64 numbers, so S_j is moved towards the class's pooled S̄ = Σ_j w_j S_j, then,
    as in 'gmm', towards a multiple of I of equal trace: (1 − a)S′ + a·(tr S′/d)·I with S′ = (1 − b)S_j + b·S̄,
    a = ``shrinkage`` and b = ``pooling``.

    Raises: ValueError if a cluster is empty or a covariance singular.
    """
    x, y = digits()
    seen = torch.arange(len(y)) % 5 != 4
    flat, y = x[seen].double().flatten(1), y[seen]
    eye = torch.eye(flat.shape[1], dtype=torch.float64)
    weights, means, covariances = [], [], []
    for c in range(NUM_CLASSES):
        clusters = [flat[y == c][rows] for rows in k_means(flat[y == c], p.components)]
        share = torch.tensor([len(cluster) for cluster in clusters], dtype=torch.float64) / len(flat)
        S = torch.stack([cluster.T.cov(correction=0) for cluster in clusters])
        pooled = torch.einsum("j,jik->ik", share / share.sum(), S)
        S = (1 - p.pooling) * S + p.pooling * pooled
        S = (1 - p.shrinkage) * S + p.shrinkage * S.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * eye
        weights.append(share)
        means.append(torch.stack([cluster.mean(0) for cluster in clusters]))
        covariances.append(S)
    try:
        return ClassMixtures(torch.stack(weights), torch.stack(means), torch.stack(covariances), SHAPE)
    except ValueError as error:
        raise ValueError(f"gmm_multi with shrinkage = {p.shrinkage:g}: {error}; use a larger shrinkage") from None


def k_means(x: Tensor, k: int) -> list[Tensor]:
    """The rows of x (N, d) in each of k clusters, as masks (N,). No chance is involved: clusters begin as slices of
    equal number along the first principal axis, whose largest entry is positive."""
    from scipy.cluster.vq import ClusterError, kmeans2

    axis = torch.linalg.eigh(x.T.cov())[1][:, -1]
    axis = axis * axis[axis.abs().argmax()].sign()
    if k > len(x):
        raise ValueError(f"{len(x)} images of a class do not make {k} clusters; use fewer components")
    slices = (x @ axis).argsort().tensor_split(k)
    start = torch.stack([x[rows].mean(0) for rows in slices])
    try:
        _, cluster = kmeans2(x.numpy(), start.numpy(), iter=100, minit="matrix", missing="raise")
    except ClusterError:
        raise ValueError(f"{len(x)} images of a class do not fall into {k} clusters; use fewer components") from None
    return [torch.from_numpy(cluster == j) for j in range(k)]


def build_gmm_multi(params: GMMMultiParams, ctx: BuildContext) -> ExactDataSet:
    return ExactDataSet(fit(params), NUM_CLASSES)


# --- synthetic ---------------------------------------------------------------------------------------------


def padded(p: PaddedMixtureParams) -> ClassMixtures:
    """In a plane, components with means from N(0, I), axes of standard deviation 0.3 and 0.1 in random directions, and
    weights in proportion 1 to 3; white noise of variance 1 in the other ``dim`` − 2 directions.

    The noise says nothing about the component, so what happens in the plane is the same in every dimension.
    """
    rng = generator(p.pattern_seed, "padded_mixture")
    of_each = (p.classes, p.components)
    weights = 1 + 2 * torch.rand(of_each, generator=rng, dtype=torch.float64)
    means = torch.zeros(*of_each, p.dim, dtype=torch.float64)
    means[..., :2] = torch.randn(*of_each, 2, generator=rng, dtype=torch.float64)
    angle = np.pi * torch.rand(of_each, generator=rng, dtype=torch.float64)
    axes = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(*of_each, 2, 2)
    covariances = torch.eye(p.dim, dtype=torch.float64).repeat(*of_each, 1, 1)
    covariances[..., :2, :2] = axes @ torch.tensor([0.3, 0.1], dtype=torch.float64).square().diag() @ axes.mT
    return ClassMixtures(weights / weights.sum(1, keepdim=True), means, covariances, (p.dim,))


def build_padded(params: PaddedMixtureParams, ctx: BuildContext) -> ExactDataSet:
    return ExactDataSet(padded(params), params.classes if params.classes > 1 else None)
