"""Task affinity (Sec. 4.3, Fig. 5): cosines between gradients of the v-loss and of u-losses with Δt in a range.

With L_v and L_u (Eqs 4, 5, adaptive weight included) as means over one set of N points, g_v = ∂L_v/∂θ and
g_u = ∂L_u/∂θ,

    affinity = ⟨g_v, g_u⟩ / (‖g_v‖·‖g_u‖).

All losses of a set share its points, as in appendix A: x, y, eps and the times that Δt is rescaled from. Two
independent sets, A and B, tell how large a cosine gradients of so few points allow (``ceiling``). A point of a set
costs 3F for v and 4F for each range, F one forward pass: 19F for the paper's four.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from meanflow_core.components import GapRange, TaskAffinityParams
from meanflow_core.config import Protocol
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.reference import problems_with
from meanflow_core.gaps import restrict_gap
from meanflow_core.hooks import Batch, Measured, Probe, Situation
from meanflow_core.interpolant import squared_norm
from meanflow_core.registry import BuildContext
from meanflow_core.seeding import derived_seed, generator
from meanflow_core.weights import adaptive_weight

# Points at once, and numbers in them: 256 of the paper's latents, so that a probe fits wherever its training does.
MAX_POINTS, MAX_NUMBERS = 1024, 2**20
SETS = ("A", "B")


class Task(NamedTuple):
    """A loss: L_v (``gap`` None) or L_u with Δt in ``gap``; ``exact`` says with the data's own v or u as target."""

    gap: GapRange | None = None
    exact: bool = False

    def __str__(self) -> str:
        loss = "v-loss" if self.gap is None else f"u-loss with Δt in [{self.gap.lo:g}, {self.gap.hi:g}]"
        return loss + " and exact targets" * self.exact


class TaskAffinity(Probe):
    """The metric ``task_affinity``, all protocols of a step at once; see `TaskAffinityParams` for the quantities.

    Its numbers depend on the weights, the trajectory's seed, the step and the protocol alone. For ``mean_gradient`` and
    ``exact`` the details hold the cosine within each layer, as ``layer/<protocol key>/<layer>``.
    """

    def __init__(self, params: TaskAffinityParams, context: BuildContext) -> None:
        """Nothing to keep: every protocol brings its own parameters."""

    def preflight(self, protocol: Protocol) -> list[str]:
        """What stands in the way of a protocol; empty if nothing does."""
        return problems_with(protocol)

    def measure(self, situation: Situation, protocols: Sequence[Protocol]) -> Measured:
        """Protocols of equal ``samples`` and ``seed`` share points and gradients.

        Raises: EvaluationError where a gradient is zero or not finite, or exact fields are asked for and not known.
        """
        groups: dict[tuple[int, int, bool], list[Protocol]] = {}
        for protocol in protocols:
            one_by_one = protocol.metric.params.quantity == "per_sample"
            groups.setdefault((protocol.samples, protocol.seed, one_by_one), []).append(protocol)
        found = Measured({}, {})
        for (_, _, one_by_one), group in groups.items():
            seen = of_points(situation, group) if one_by_one else of_means(situation, group)
            found.values.update(seen.values)
            found.details.update(seen.details)
        return found


def tasks_of(protocol: Protocol) -> tuple[Task, Task]:
    """The two losses whose gradients a protocol compares: v's and u's."""
    p: TaskAffinityParams = protocol.metric.params
    exact = p.quantity == "exact"
    return Task(None, exact), Task(GapRange(lo=p.lo, hi=p.hi, negative_r=p.negative_r), exact)


def of_means(situation: Situation, protocols: Sequence[Protocol]) -> Measured:
    """``mean_gradient``, ``ceiling`` and ``exact`` on the same N points: cosines of gradients of means."""
    tasks = list(dict.fromkeys(task for protocol in protocols for task in tasks_of(protocol)))
    if situation.data.exact is None and any(task.exact for task in tasks):
        raise EvaluationError("the exact fields of the data are not known; use 'gmm_multi' or others whose are")
    gradients = []
    for name in SETS:
        batches = draw_points(situation, protocols[0], name, [task.gap for task in tasks])
        gradients += [gradient(situation, batches[task.gap], task.exact) for task in tasks]
    grams = gram_by_layer([name for name, p in situation.network.named_parameters() if p.requires_grad], gradients)
    total = torch.stack(list(grams.values())).sum(0)
    require_directions(total, [f"the {task} on set {name}" for name in SETS for task in tasks])
    by_sets = (len(SETS), len(tasks)) * 2  # indexed [set, task, set, task]
    cos = cosines(total).view(by_sets)
    cos_of_layer = {layer: cosines(gram).view(by_sets) for layer, gram in grams.items()}
    found = Measured({}, {})
    for protocol in protocols:
        v, u = (tasks.index(task) for task in tasks_of(protocol))
        if protocol.metric.params.quantity == "ceiling":
            found.values[protocol.key] = ceiling(cos, v, u)
            continue
        found.values[protocol.key] = within_sets(cos, v, u)
        layers = {layer: within_sets(c, v, u) for layer, c in cos_of_layer.items()}
        found.details.update({f"layer/{protocol.key}/{k}": c for k, c in layers.items() if math.isfinite(c)})
    return found


def of_points(situation: Situation, protocols: Sequence[Protocol]) -> Measured:
    """``per_sample`` on set A: the mean over points of the cosine of a point's own gradients, point by point."""
    tasks = list(dict.fromkeys(task for protocol in protocols for task in tasks_of(protocol)))
    batches = draw_points(situation, protocols[0], "A", [task.gap for task in tasks])
    n, total = protocols[0].samples, torch.zeros(len(tasks), dtype=torch.float64)
    for i in range(n):
        products = gram([gradient(situation, rows(batches[task.gap], i, i + 1)) for task in tasks])
        require_directions(products, [f"the {task} at point {i}" for task in tasks])
        total += cosines(products)[0]  # tasks[0] is v's
    return Measured({p.key: float(total[tasks.index(tasks_of(p)[1])]) / n for p in protocols})


# --- points and gradients ----------------------------------------------------------------------------------


def draw_points(
    situation: Situation, protocol: Protocol, name: str, gaps: Iterable[GapRange | None]
) -> dict[GapRange | None, Batch]:
    """The set ``name`` of the protocol's N points as batches, one for each range of Δt and, at None, v's with r = t.

    All share x, y (no label is dropped), eps and the raw (r, t). None of it depends on what training draws.
    """
    n, purpose = protocol.samples, f"affinity/{protocol.seed}/{name}"

    def rng(what: str) -> torch.Generator:
        return generator(situation.seed, f"{purpose}/{what}", situation.step, situation.device)

    x, y = situation.data.batch(derived_seed(situation.seed, purpose, situation.step), 0, n, situation.device)
    eps = torch.randn(x.shape, generator=rng("noise"), device=situation.device, dtype=x.dtype)
    r, t = situation.times.draw(n, rng("times"))

    def restricted(gap: GapRange) -> tuple[Tensor, Tensor]:
        return restrict_gap(r, t, gap, lambda delta_t: situation.times.draw_t_above(delta_t, rng("redraw")))[:2]

    return {
        gap: Batch(x, eps, t, t, y, n) if gap is None else Batch(x, eps, *restricted(gap), y, 0)
        for gap in dict.fromkeys(gaps)
    }


def rows(batch: Batch, start: int, stop: int) -> Batch:
    """Some rows of a batch that trains v in all of its rows or in none."""
    x, eps, r, t = (tensor[start:stop] for tensor in (batch.x, batch.eps, batch.r, batch.t))
    return Batch(x, eps, r, t, None if batch.y is None else batch.y[start:stop], len(t) if batch.v_rows else 0)


def gradient(situation: Situation, batch: Batch, exact: bool = False) -> list[Tensor]:
    """∂/∂θ of the mean loss over a batch's N points, a tensor a trainable parameter; ``.grad`` is not touched."""
    n, at_once = len(batch.t), max(1, min(MAX_POINTS, MAX_NUMBERS // batch.x[0].numel()))
    parameters = [p for p in situation.network.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for start in range(0, n, at_once):
        loss = losses(situation, rows(batch, start, start + at_once), exact).sum() / n
        parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        for into, part in zip(total, parts, strict=True):
            into.add_(part)
    return total


def losses(situation: Situation, batch: Batch, exact: bool) -> Tensor:
    """w·‖e‖² a point, (B,), w the adaptive weight (Eq. 7); transforms of the dynamics have no say.

    ``exact``: e = u_θ(z, t, t) − v(z, t) or e = u_θ(z, r, t) − u(z, r, t), with the data's fields.
    """
    network, objective = situation.network, situation.objective
    if not exact:
        loss: Tensor = objective.terms(network, batch).loss
        return loss
    squared = squared_norm(network(batch.z, batch.r, batch.t, batch.y) - exact_target(situation, batch))
    return adaptive_weight(squared, objective.c, objective.p) * squared


def exact_target(situation: Situation, batch: Batch) -> Tensor:
    """v(z, t) where the batch trains v, else u(z, r, t): given the class for conditional networks, else marginal; the
    guided fields where training is guided."""
    fields, z = situation.data.exact, batch.z
    assert fields is not None  # checked before any work, with a message
    conditional = bool(getattr(situation.network, "conditional", False))
    y = batch.y.cpu() if conditional and batch.y is not None else None
    r, t = batch.r.cpu(), batch.t.cpu()
    guidance = situation.objective.guidance
    if guidance is not None and y is not None:
        g = guidance
        return (fields.guided_v(z.cpu(), t, y, g) if batch.v_rows else fields.guided_u(z.cpu(), r, t, y, g)).to(z)
    return (fields.v(z.cpu(), t, y) if batch.v_rows else fields.u(z.cpu(), r, t, y)).to(z)


# --- cosines -----------------------------------------------------------------------------------------------


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to: ``blocks.3.inner.weight`` → ``blocks.3``, ``input.bias`` → ``input``."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first


def gram(vectors: Sequence[Sequence[Tensor]]) -> Tensor:
    """G_ij = ⟨g_i, g_j⟩ in float64 on the CPU, (K, K), of K vectors that are each given in pieces of any shape."""
    flat = torch.stack([torch.cat([piece.flatten() for piece in vector]) for vector in vectors]).double()
    return (flat @ flat.T).cpu()


def gram_by_layer(names: Sequence[str], vectors: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
    """The Gram matrix (K, K) of each layer; their sum is that of the whole vectors. ``names``: the pieces' names."""
    layers: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        layers.setdefault(layer_of(name), []).append(i)
    return {layer: gram([[vector[i] for i in members] for vector in vectors]) for layer, members in layers.items()}


def cosines(products: Tensor) -> Tensor:
    """cos_ij = G_ij / √(G_ii·G_jj), (K, K); NaN where a norm is zero."""
    norms = products.diagonal().sqrt()
    return (products / norms.outer(norms)).clamp(-1, 1)


def require_directions(products: Tensor, vectors: Sequence[str]) -> None:
    """Raises: EvaluationError naming the first vector without a direction. products (K, K), names (K,)."""
    for square, vector in zip(products.diagonal().tolist(), vectors, strict=True):
        if square == 0 or not math.isfinite(square):
            state = "zero" if square == 0 else "not finite"
            raise EvaluationError(f"the gradient of {vector} is {state}, so its direction is not defined")


def within_sets(cos: Tensor, v: int, u: int) -> float:
    """cos(g_v, g_u) within a set, averaged over the sets. cos (S, K, S, K), v and u numbers of tasks."""
    return float(torch.stack([cos[s, v, s, u] for s in range(len(cos))]).mean())


def ceiling(cos: Tensor, v: int, u: int) -> float:
    """√(max(0, ρ_v)·max(0, ρ_u)), ρ the cosine of one task's gradients on sets A and B. cos (2, K, 2, K)."""
    rho_v, rho_u = float(cos[0, v, 1, v]), float(cos[0, u, 1, u])
    return math.sqrt(max(0.0, rho_v) * max(0.0, rho_u))
