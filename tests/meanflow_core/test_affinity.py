"""Task affinity against naive float64 gradients of whole batches, written from the equations."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from meanflow_core import affinity
from meanflow_core.affinity import TaskAffinity, draw_points, gram, gram_by_layer, layer_of, rows, tasks_of
from meanflow_core.components import GapRange
from meanflow_core.config import Protocol
from meanflow_core.data.base import DataSet
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.hooks import Batch, Measured, Situation
from meanflow_core.registry import parse_spec
from meanflow_core.trainer import Trainer
from tests.meanflow_core import DIT, MLP, dynamics, randomise
from tests.meanflow_core.trainers import assert_same_state, frozen, train

RANGES = ((0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9))
NETWORKS = {"mlp": MLP, "dit": DIT, "marginal mlp": {**MLP, "conditional": False}}


class InDouble:
    """A data set or time sampler whose draws are float64."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def batch(self, *args: Any) -> tuple[Tensor, Tensor | None]:
        x, y = self.inner.batch(*args)
        return x.double(), y

    def draw(self, *args: Any) -> tuple[Tensor, ...]:
        return tuple(time.double() for time in self.inner.draw(*args))


def protocol(quantity: str = "mean_gradient", lo: float = 0.3, hi: float = 0.6, **changes: Any) -> Protocol:
    gap = changes.pop("negative_r", "allow_negative")
    metric = {"name": "task_affinity", "lo": lo, "hi": hi, "negative_r": gap, "quantity": quantity}
    return Protocol.model_validate(
        {"metric": metric, "weights": "online", "samples": 24, "reference": "gmm", **changes}
    )


def situation(
    network: str | nn.Module = "mlp", data: Any = "gmm", double: bool = False, step: int = 3, seed: int = 0
) -> Situation:
    """Between two steps of a trajectory, with weights of natural size, or the network given."""
    built: DataSet = parse_spec("data", data).build()
    if isinstance(network, str):
        spec = parse_spec("network", NETWORKS[network])
        network = randomise(spec.build(shape=built.shape, num_classes=built.num_classes))
    objective = parse_spec("objective", "meanflow").build()
    times = parse_spec("time_sampler", "logit_normal").build()
    if double:
        built, times, network = InDouble(built), InDouble(times), network.double()  # type: ignore[assignment]
    return Situation(network, built, objective, times, seed, step, torch.device("cpu"))


def measure(at: Situation, *protocols: Protocol) -> Measured:
    probe: TaskAffinity = protocols[0].metric.build()
    return probe.measure(at, protocols)


def value(at: Situation, p: Protocol) -> float:
    return measure(at, p).values[p.key]


# --- the oracle --------------------------------------------------------------------------------------------


def naive(at: Situation, b: Batch, exact: bool = False) -> dict[str, Tensor]:
    """The gradient of the mean over all points of ‖e‖²/sg(‖e‖² + c), in float64, by parameter."""
    network = copy.deepcopy(at.network).double()
    x, eps, r, t = b.x.double(), b.eps.double(), b.r.double(), b.t.double()
    axis = (-1, *[1] * (x.ndim - 1))
    z, v = (1 - t).view(axis) * x + t.view(axis) * eps, eps - x
    y_of_field = b.y if network.conditional else None
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    with sdpa_kernel(SDPBackend.MATH):
        u, du_dt = torch.func.jvp(lambda z, r, t: network(z, r, t, b.y), (z, r, t), (v, zero, one))  # type: ignore[misc]
    target = v - (t - r).view(axis) * du_dt
    if exact:
        fields = at.data.exact
        assert fields is not None
        target = fields.v(z, t, y_of_field) if b.v_rows else fields.u(z, r, t, y_of_field)
    squared = ((u - target.detach()) ** 2).flatten(1).sum(1)
    (squared / (squared.detach() + 0.01)).mean().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def cos(a: dict[str, Tensor], b: dict[str, Tensor], layer: str = "") -> float:
    one, other = (torch.cat([g.flatten() for name, g in x.items() if name.startswith(layer)]) for x in (a, b))
    return float(one @ other / (one.norm() * other.norm()))


def set_gradients(at: Situation, p: Protocol, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The oracle's g_v and g_u on a set."""
    v, u = tasks_of(p)
    batches = draw_points(at, p, name, [v.gap, u.gap])
    return naive(at, batches[v.gap], v.exact), naive(at, batches[u.gap], u.exact)


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("name", NETWORKS)
def test_cosines_of_mean_gradients(name: str, double: bool) -> None:
    at, error = situation(name, double=double), 1e-10 if double else 2e-6
    gaps = [(0.4, 0.4, "allow_negative"), (0.0, 0.25, "clamp"), (0.75, 1.0, "resample_t")]
    for lo, hi, negative_r in gaps if double else gaps[:1]:
        mean, top, exact = (protocol(q, lo, hi, negative_r=negative_r) for q in ("mean_gradient", "ceiling", "exact"))
        found = measure(at, mean, top, exact)
        for p in (mean, exact):
            (v_a, u_a), (v_b, u_b) = (set_gradients(at, p, name) for name in "AB")
            assert found.values[p.key] == pytest.approx((cos(v_a, u_a) + cos(v_b, u_b)) / 2, abs=error)
            layers = {layer_of(parameter) for parameter in v_a}
            assert {k for k in found.details if p.key in k} == {f"layer/{p.key}/{layer}" for layer in layers}
            for layer in layers:
                expected = (cos(v_a, u_a, layer + ".") + cos(v_b, u_b, layer + ".")) / 2
                assert found.details[f"layer/{p.key}/{layer}"] == pytest.approx(expected, abs=error)
        (v_a, u_a), (v_b, u_b) = (set_gradients(at, top, name) for name in "AB")
        expected = math.sqrt(max(0, cos(v_a, v_b)) * max(0, cos(u_a, u_b)))
        assert found.values[top.key] == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("name", ["mlp", "dit"])
def test_cosines_of_single_points(name: str) -> None:
    at = situation(name, "digits", double=True)
    p, other = protocol("per_sample", samples=8), protocol("per_sample", 0.0, 0.1)
    batches = draw_points(at, p, "A", [task.gap for task in tasks_of(p)]).values()
    pairs = [[naive(at, rows(batch, i, i + 1)) for batch in batches] for i in range(p.samples)]
    found = measure(at, other, p)
    assert found.values[p.key] == pytest.approx(sum(cos(v, u) for v, u in pairs) / p.samples, abs=1e-10)
    assert found.values[other.key] > found.values[p.key], "small gaps are nearer to v"
    assert found.details == {}


# --- points ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negative_r", ["clamp", "resample_t", "allow_negative"])
def test_all_tasks_of_a_set_share_their_points(negative_r: Any) -> None:
    gaps = [GapRange(lo=lo, hi=hi, negative_r=negative_r) for lo, hi in RANGES]
    of_v, *of_u = draw_points(situation(data="digits"), protocol(samples=4000), "A", [None, *gaps]).values()
    assert torch.equal(of_v.r, of_v.t)
    assert of_v.v_rows == 4000
    for b, gap in zip(of_u, gaps, strict=True):
        assert b.v_rows == 0
        assert (b.x is of_v.x, b.y is of_v.y, b.eps is of_v.eps) == (True, True, True)
        assert torch.equal(b.t, of_v.t) == (negative_r != "resample_t")
        assert bool((b.delta_t <= gap.hi + 1e-6).all())
        assert bool((b.delta_t >= gap.lo - 1e-6).all()) == (negative_r != "clamp")
        assert bool((b.r < 0).any()) == (negative_r == "allow_negative")


def test_what_points_depend_on() -> None:
    def points(p: Protocol, name: str, **changes: Any) -> Batch:
        return draw_points(situation(data="digits", **changes), p, name, [None])[None]

    p = protocol(samples=64)
    first, again = points(p, "A"), points(p, "A")
    assert all(torch.equal(getattr(first, k), getattr(again, k)) for k in ("x", "eps", "t", "y"))
    trained_on = Trainer(dynamics(batch_size=64), seed=0).draw_batch(3)
    others = [points(p, "B"), points(p, "A", step=4), points(p, "A", seed=1), points(protocol(seed=1, samples=64), "A")]
    for other in (*others, trained_on):
        assert not any(torch.equal(getattr(first, k), getattr(other, k)) for k in ("x", "eps", "t", "y"))


def test_values_depend_on_step_and_seed_alone() -> None:
    p = protocol()
    values = [value(situation(step=step, seed=seed), p) for step, seed in ((3, 0), (4, 0), (3, 1))]
    assert len({*values, value(situation(), protocol(seed=1))}) == 4
    assert value(situation(), p) == values[0]


def test_protocols_at_once_equal_each_alone() -> None:
    changes = [{}, {"seed": 1}, {"samples": 7}, {"negative_r": "clamp"}, {"lo": 0.5}]
    quantities = ("mean_gradient", "per_sample", "ceiling", "exact")
    wanted = [protocol(q, **{"samples": 9, **c}) for q in quantities for c in changes]  # type: ignore[arg-type]
    at = situation()
    together = measure(at, *wanted)
    assert set(together.values) == {p.key for p in wanted}
    for p in wanted:
        assert together.values[p.key] == pytest.approx(value(at, p), rel=1e-12)


# --- what the numbers must satisfy -------------------------------------------------------------------------


def test_v_is_the_u_of_no_gap() -> None:
    at = situation()
    same = [protocol(q, 0.0, 0.0) for q in ("mean_gradient", "exact", "per_sample")]
    assert list(measure(at, *same).values.values()) == pytest.approx([1, 1, 1], abs=1e-5)


def test_the_ceiling_rises_to_one() -> None:
    at = situation(data={"name": "gaussian", "dim": 2})
    ceilings = [value(at, protocol("ceiling", samples=n)) for n in (4, 64, 4096)]
    assert ceilings == sorted(ceilings)
    assert 0.98 < ceilings[-1] <= 1


def test_the_ceiling_of_unlike_gradients_is_zero() -> None:
    cosine = torch.tensor([[1.0, 0.2, -0.1, 0.0], [0.2, 1.0, 0.0, 0.5], [-0.1, 0.0, 1.0, 0.3], [0.0, 0.5, 0.3, 1.0]])
    assert affinity.ceiling(cosine.view(2, 2, 2, 2), 0, 1) == 0
    assert affinity.within_sets(cosine.view(2, 2, 2, 2), 0, 1) == pytest.approx(0.25)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    at, p = situation(data={"name": "gaussian", "dim": 3}), protocol(samples=500)
    values = [value(at, p)]
    for points, numbers in ((500, 2**20), (77, 2**20), (500, 300)):
        monkeypatch.setattr(affinity, "MAX_POINTS", points)
        monkeypatch.setattr(affinity, "MAX_NUMBERS", numbers)
        values.append(value(at, p))
    assert len(set(values)) > 1, "the chunks were the same"
    assert values == pytest.approx([values[0]] * 4, abs=1e-5)


def test_layers_sum_to_the_whole() -> None:
    names = [
        "blocks.10.a.weight",
        "blocks.1.weight",
        "input.bias",
        "blocks.10.b",
        "condition.time.inner.weight",
        "gain",
    ]
    assert [layer_of(n) for n in names] == ["blocks.10", "blocks.1", "input", "blocks.10", "condition", "gain"]
    vectors = [[torch.randn(3, i + 1) for i in range(len(names))] for _ in range(4)]
    layers = gram_by_layer(names, vectors)
    assert list(layers) == ["blocks.10", "blocks.1", "input", "condition", "gain"]
    flat = torch.stack([torch.cat([g.flatten() for g in v]) for v in vectors]).double()
    torch.testing.assert_close(torch.stack(list(layers.values())).sum(0), flat @ flat.T)
    torch.testing.assert_close(gram(vectors), flat @ flat.T)


# --- refusals ----------------------------------------------------------------------------------------------


def test_layers_without_a_gradient_are_left_out() -> None:
    """adaLN-zero starts with an output of zero, which lets no gradient pass to what stands before it."""
    p, at = protocol(), situation(parse_spec("network", MLP).build(shape=(1, 8, 8), num_classes=10))
    assert list(measure(at, p).details) == [f"layer/{p.key}/output"]
    for name, parameter in at.network.named_parameters():
        parameter.requires_grad_(not name.startswith("output"))
    with pytest.raises(EvaluationError, match="gradient of the v-loss on set A is zero, so its direction is not def"):
        measure(at, p)
    with pytest.raises(EvaluationError, match="gradient of the v-loss at point 0 is zero"):
        measure(at, protocol("per_sample"))


@pytest.mark.parametrize("quantity", ["mean_gradient", "ceiling", "exact", "per_sample"])
def test_what_is_not_finite_is_refused(quantity: str) -> None:
    at = situation()
    next(at.network.parameters()).data[0, 0] = float("nan")
    with pytest.raises(EvaluationError, match="is not finite"):
        measure(at, protocol(quantity))


def test_exact_fields_that_are_not_known() -> None:
    with pytest.raises(EvaluationError, match="exact fields of the data are not known; use 'gmm_multi'"):
        measure(situation(data="digits"), protocol(), protocol("exact"))


# --- in training -------------------------------------------------------------------------------------------

ALL = [protocol(q, samples=9) for q in ("mean_gradient", "ceiling", "exact", "per_sample")]


@pytest.mark.parametrize("network", [MLP, DIT], ids=["mlp", "dit"])
def test_a_probe_leaves_training_bitwise_unchanged(network: dict[str, Any]) -> None:
    trainer, alone = (Trainer(dynamics(data="gmm", network=network), seed=0) for _ in range(2))
    assert train(trainer, 2) == train(alone, 2)
    before, state = frozen(trainer), torch.get_rng_state()
    gradients = [p.grad.clone() for p in trainer.network.parameters() if p.grad is not None]
    buffers = [b.clone() for b in trainer.network.buffers()]
    found = trainer.measure(ALL)
    assert trainer.measure(ALL) == found, "the same numbers each time"
    assert set(found.values) == {p.key for p in ALL}
    assert torch.equal(torch.get_rng_state(), state), "it drew global random numbers"
    assert_same_state(before, frozen(trainer))
    now = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(gradients, now, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(buffers, trainer.network.buffers(), strict=True))
    assert trainer.network.training
    assert all(p.requires_grad for p in trainer.network.parameters())
    assert train(trainer, 2) == train(alone, 2)
    assert_same_state(frozen(trainer), frozen(alone))


def test_before_the_first_step_there_are_no_gradients_and_none_are_left() -> None:
    trainer = Trainer(dynamics(data="gmm"), seed=0)
    trainer.measure(ALL)
    assert all(p.grad is None for p in trainer.network.parameters())


def test_under_autocast() -> None:
    values = []
    for precision in ("fp32", "bf16"):
        trainer = Trainer(dynamics(data="gmm", precision=precision), seed=0)
        randomise(trainer.network)
        values.append(list(trainer.measure(ALL).values.values()))
    assert values[0] != values[1]
    assert values[1] == pytest.approx(values[0], abs=0.05)


# --- cost --------------------------------------------------------------------------------------------------


def flops(call: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("quantities", "ranges", "forwards"),
    [
        (("mean_gradient", "ceiling"), RANGES, 2 * 19),  # v 3F, each u 4F, on two sets
        (("mean_gradient",), RANGES[:1], 2 * 7),
        (("exact",), RANGES[:1], 2 * 6),  # without du/dt
        (("mean_gradient", "exact"), RANGES[:1], 2 * 13),
    ],
)
def test_cost(quantities: tuple[str, ...], ranges: Any, forwards: int) -> None:
    """In forward passes a point: nothing is computed twice, and no set or range that nothing asks for."""
    n, network = 128, parse_spec("network", {**MLP, "width": 64}).build(shape=(1, 8, 8), num_classes=10)
    at = situation(randomise(network))
    wanted = [protocol(q, lo, hi, samples=n) for q in quantities for lo, hi in ranges]
    b = draw_points(at, wanted[0], "A", [None])[None]
    forward = flops(lambda: network(b.z, b.r, b.t, b.y))
    # The backward pass of the first linear maps forms no gradient of the input, so a little less than 2F.
    assert flops(lambda: measure(at, *wanted)) / forward == pytest.approx(forwards, rel=0.04)
