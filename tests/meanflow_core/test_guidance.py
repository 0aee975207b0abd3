"""Guidance in training: v_g against two passes over the whole batch, what it costs, and what it converges to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from meanflow_core.affinity import exact_target
from meanflow_core.components import Guidance
from meanflow_core.data.fields import Fields
from meanflow_core.flops import U_ROW, V_ROW, row_forwards, step_flops
from meanflow_core.guidance import guide, guided_rows
from meanflow_core.hooks import Batch, Situation
from meanflow_core.objectives import MeanFlow
from meanflow_core.registry import parse_spec
from meanflow_core.trainer import Trainer
from tests.meanflow_core import NETWORKS, dynamics, make_inputs, make_network, naive, randomise

NULL = 10
F64 = torch.float64
EXACT = {"rtol": 1e-12, "atol": 1e-13}

GUIDANCES: dict[str, dict[str, float]] = {
    "the paper's B/4": {"cfg_omega": 1.0, "cfg_kappa": 0.5},
    "the paper's XL/2": {"cfg_omega": 0.2, "cfg_kappa": 0.92, "hi": 0.75},
    "inside": {"cfg_omega": 0.7, "cfg_kappa": 0.6, "lo": 0.3, "hi": 0.6},
    "nowhere": {"cfg_omega": 1.0, "cfg_kappa": 0.5, "lo": 1.0},
    "no kappa": {"cfg_omega": 2.0, "cfg_kappa": 0.0},
    "no null": {"cfg_omega": 0.5, "cfg_kappa": 0.5},
    "neither": {"cfg_omega": 1.0, "cfg_kappa": 0.0},
}


def make_batch(v_rows: int, n: int = 10) -> Batch:
    """Times spread over [0, 1] among v-rows and u-rows alike, and the labels of three rows dropped."""
    x, r, _, y, eps = make_inputs(n)
    t = torch.linspace(0.05, 0.95, n, dtype=F64)[torch.randperm(n, generator=torch.Generator().manual_seed(1))]
    y[[0, 4, 9]] = NULL
    return Batch(x, eps, torch.cat([t[:v_rows], (r * t)[v_rows:]]), t, y, v_rows)


def objective(given: dict[str, float] | None) -> MeanFlow:
    built: MeanFlow = parse_spec("objective", "meanflow").build(guidance=given and Guidance(**given), null_label=NULL)
    return built


def gradients(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    loss.mean().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


class Counting(nn.Module):
    """A network that counts the rows of its passes, with a graph and without."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.rows, self.calls = network, {True: 0, False: 0}, {True: 0, False: 0}

    def forward(self, z: Any, r: Any, t: Any, y: Any = None) -> Any:
        self.rows[torch.is_grad_enabled()] += z.shape[0]
        self.calls[torch.is_grad_enabled()] += 1
        return self.network(z, r, t, y)


# --- v_g ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("v_rows", [0, 5, 10])
@pytest.mark.parametrize("case", GUIDANCES)
def test_loss_and_gradients_are_those_of_two_passes_over_the_whole_batch(case: str, v_rows: int, name: str) -> None:
    network, batch, given = make_network(name), make_batch(v_rows), GUIDANCES[case]
    terms = objective(given).terms(network, batch)
    expected = naive.losses(network, batch, guidance=given)
    torch.testing.assert_close(terms.loss, expected, **EXACT)
    ours, theirs = gradients(network, terms.loss), gradients(network, expected)
    scale = max(float(g.abs().max()) for g in theirs.values())
    assert set(ours) == set(theirs)
    for n, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[n], rtol=1e-9, atol=1e-12 * scale)


@pytest.mark.parametrize("v_rows", [0, 5, 10])
@pytest.mark.parametrize("case", GUIDANCES)
def test_v_g_itself(case: str, v_rows: int) -> None:
    network, batch, given = make_network("dit"), make_batch(v_rows), GUIDANCES[case]
    assert batch.y is not None
    n, guidance = v_rows, Guidance(**given)
    v_theta = network(batch.z[:n], batch.t[:n], batch.t[:n], batch.y[:n]) if n else None
    ours = guide(network, batch, guidance, NULL, v_theta)
    assert not ours.requires_grad
    torch.testing.assert_close(ours, naive.guided_velocity(network, batch, given, NULL), **EXACT)
    rows = guided_rows(batch, guidance, NULL)
    rest = torch.ones(10, dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(ours[rest], batch.v_t[rest]), "bitwise v_t where guidance does not apply"
    assert {0, 4, 9} <= set(rest.nonzero().flatten().tolist())


@settings(max_examples=60)
@given(st.floats(0.1, 3), st.floats(0, 0.95), st.tuples(st.floats(0, 1), st.floats(0, 1)), st.integers(0, 8), st.data())
def test_v_g_of_any_batch(
    omega: float, kappa: float, interval: tuple[float, float], v_rows: int, data: st.DataObject
) -> None:
    lo, hi = sorted(interval)
    given = {"cfg_omega": omega, "cfg_kappa": kappa, "lo": lo, "hi": hi}
    batch = make_batch(v_rows, 10)
    labels = torch.tensor(data.draw(st.lists(st.integers(0, NULL), min_size=10, max_size=10)))
    batch = Batch(batch.x, batch.eps, batch.r, batch.t, labels, v_rows)
    network = make_network("mlp")
    with torch.no_grad():
        v_theta = network(batch.z[:v_rows], batch.t[:v_rows], batch.t[:v_rows], labels[:v_rows]) if v_rows else None
    ours = guide(network, batch, Guidance(**given), NULL, v_theta)
    torch.testing.assert_close(ours, naive.guided_velocity(network, batch, given, NULL), rtol=1e-9, atol=1e-9)


def test_the_ends_of_the_interval_belong_to_it() -> None:
    batch = make_batch(5)
    assert batch.y is not None
    kept = [i for i in range(10) if batch.y[i] != NULL]
    lo, hi = sorted(float(batch.t[i]) for i in kept)[1:3]
    found = guided_rows(batch, Guidance(cfg_omega=1, cfg_kappa=0.5, lo=lo, hi=hi), NULL)
    assert found.tolist() == [i for i in kept if lo <= batch.t[i] <= hi] and len(found) == 2


def test_du_dt_is_taken_along_v_g() -> None:
    """Were it taken along v_t, or the target made of v_t, the u-loss would be another."""
    network, batch, given = make_network("mlp"), make_batch(0), GUIDANCES["the paper's B/4"]
    v_g = naive.guided_velocity(network, batch, given, NULL)
    ours = objective(given).terms(network, batch).squared_error

    def squared(direction: Tensor, target: Tensor) -> Tensor:
        u, du_dt = torch.func.jvp(
            lambda z, t: network(z, batch.r, t, batch.y), (batch.z, batch.t), (direction, torch.ones_like(batch.t))
        )
        gap = batch.delta_t.view(-1, 1, 1, 1)
        return ((u - target + gap * du_dt) ** 2).flatten(1).sum(1).detach()

    torch.testing.assert_close(ours, squared(v_g, v_g), **EXACT)
    guided = guided_rows(batch, Guidance(**given), NULL)
    for direction, target in ((batch.v_t, v_g), (v_g, batch.v_t)):
        assert not torch.isclose(ours, squared(direction, target))[guided].any()


def test_what_says_v_t_is_unguided() -> None:
    """ω = 1, κ = 0 is no guidance, bitwise."""
    network, batch = make_network("mlp"), make_batch(5)
    plain = objective(None).terms(network, batch)
    assert torch.equal(objective(GUIDANCES["neither"]).terms(network, batch).loss, plain.loss)
    assert torch.equal(objective(GUIDANCES["nowhere"]).terms(network, batch).loss, plain.loss)


# --- its cost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v_rows", [0, 5, 10])
@pytest.mark.parametrize("case", GUIDANCES)
def test_rows_evaluated(case: str, v_rows: int) -> None:
    """1 a guided v-row, 2 a guided u-row, in one pass without graph; none where a weight is 0."""
    network, batch, given = Counting(make_network("mlp")), make_batch(v_rows), GUIDANCES[case]
    objective(given).terms(network, batch)
    d = dynamics(guidance=given, label_dropout=1e-9)
    more_v, more_u = (round(cost - own) for cost, own in zip(row_forwards(d), (V_ROW, U_ROW), strict=True))
    rows = guided_rows(batch, Guidance(**given), NULL)
    u_rows = int((rows >= v_rows).sum())
    assert network.rows[True] == 10, "the step's own"
    assert network.rows[False] == more_v * (len(rows) - u_rows) + more_u * u_rows
    assert network.calls[False] == (network.rows[False] > 0)
    expected = {"the paper's B/4": (1, 2), "no kappa": (1, 1), "no null": (0, 1), "neither": (0, 0)}
    assert (more_v, more_u) == expected.get(case, (1, 2))


def test_cost_by_the_books() -> None:
    """The flops of a step follow the rows: without guidance 3.25 F a row, with it 4.5 F, dropped labels aside."""
    base = {"fm_ratio": 0.75, "batch_size": 16, "label_dropout": 0.1}
    plain = dynamics(**base)
    guided = dynamics(**base, guidance=GUIDANCES["the paper's B/4"])
    assert row_forwards(plain) == (3, 4)
    assert row_forwards(guided) == pytest.approx((3.9, 5.8))
    one, other = step_flops(plain), step_flops(guided)
    assert one and other and other / one == pytest.approx((3.25 + 0.9 * 1.25) / 3.25)


# --- precision and gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fm_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_has_its_gradient_under_autocast(name: str, fm_ratio: float) -> None:
    """The pass without graph comes before that of the u-rows; weights cast for it must not stand in for theirs."""
    found = {}
    for precision in ("fp32", "bf16"):
        d = dynamics(network=NETWORKS[name], precision=precision, fm_ratio=fm_ratio, label_dropout=0.2, batch_size=32,
                     guidance=GUIDANCES["the paper's B/4"])  # fmt: skip
        trainer = Trainer(d, seed=0)
        randomise(trainer.network)
        trainer.advance()
        missing = [n for n, p in trainer.network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not missing
        found[precision] = torch.cat([p.grad.flatten() for p in trainer.network.parameters()])  # type: ignore[union-attr]
    assert torch.cosine_similarity(found["fp32"], found["bf16"], dim=0) > 0.99


class Witness(nn.Module):
    """Notes under which autocast its passes without graph run."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, set[Any]()

    def forward(self, z: Any, r: Any, t: Any, y: Any) -> Any:
        if not torch.is_grad_enabled():
            kind = z.device.type
            self.seen.add(
                (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind), torch.is_autocast_cache_enabled())
            )
        return self.network(z, r, t, y)


def test_what_is_cast_for_v_g_is_not_kept() -> None:
    """Same precision, but none of autocast's cache, in which older torch leaves weights without gradient."""
    network, batch = Witness(make_network("mlp", dtype=torch.float32)), make_batch(5)
    x, eps, r, t = (tensor.float() for tensor in (batch.x, batch.eps, batch.r, batch.t))
    batch = Batch(x, eps, r, t, batch.y, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objective(GUIDANCES["the paper's B/4"]).terms(network, batch)
        assert network.seen == {(True, torch.bfloat16, False)}
        assert torch.is_autocast_cache_enabled(), "as it was for the step's own passes"
    network.seen.clear()
    objective(GUIDANCES["the paper's B/4"]).terms(network, batch)
    assert {enabled for enabled, _, _ in network.seen} == {False}


def test_no_gradient_flows_through_v_g() -> None:
    """The network's own outputs in the target are constants: a step of SGD is that of the fixed target."""
    network, batch, given = make_network("mlp"), make_batch(10), GUIDANCES["the paper's B/4"]
    target = naive.guided_velocity(network, batch, given, NULL)
    squared = ((network(batch.z, batch.t, batch.t, batch.y) - target) ** 2).flatten(1).sum(1)
    ours = gradients(network, objective(given).terms(network, batch).loss)
    theirs = gradients(network, (squared + 0.01).log())
    for n, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[n], rtol=1e-8, atol=1e-11)


# --- what it converges to ------------------------------------------------------------------------------------

SMALL = {"name": "synthetic_latents", "channels": 1, "side": 2, "classes": 3, "modes": 1}
STRONG = {"cfg_omega": 2.0, "cfg_kappa": 0.5}  # ω′ = 4


class Exact(nn.Module):
    """u(z, r, t | y) is the guided field's, and v without a label the marginal one."""

    conditional = True

    def __init__(self, fields: Fields, guidance: Guidance) -> None:
        super().__init__()
        self.fields, self.guidance = fields, guidance

    def forward(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor) -> Tensor:
        null = (y == len(self.fields.weights)).view(-1, 1, 1, 1)
        given = self.fields.guided_u(z, r, t, y.clamp(max=len(self.fields.weights) - 1), self.guidance, 16)
        return torch.where(null, self.fields.v(z, t), given)


@pytest.mark.parametrize(
    "given", [STRONG, GUIDANCES["inside"], GUIDANCES["the paper's XL/2"], GUIDANCES["no kappa"]], ids=str
)
def test_the_guided_field_is_a_fixed_point(given: dict[str, float]) -> None:
    """With v_t at its mean given z and y, v_g at the guided field is that field; without a label, the marginal."""
    fields, guidance = parse_spec("data", SMALL).build().exact, Guidance(**given)
    g = torch.Generator().manual_seed(0)
    t = torch.rand(64, generator=g, dtype=F64)
    z, y = fields.draw_marginal(t, g)
    network = Exact(fields, guidance)
    for labels, mean in ((y, fields.v(z, t, y)), (torch.full_like(y, 3), fields.v(z, t))):
        at = t.view(-1, 1, 1, 1)
        for v_rows in (0, 64):
            batch = Batch(z - at * mean, z + (1 - at) * mean, t, t, labels, v_rows)  # its z is z, its v_t the mean
            v_theta = network(z, t, t, labels) if v_rows else None
            torch.testing.assert_close(guide(network, batch, guidance, 3, v_theta), network(z, t, t, labels))


def test_exact_targets_of_task_affinity_are_the_guided_fields() -> None:
    """What is left of both losses at the guided field is nothing but rounding."""
    data, guidance = parse_spec("data", SMALL).build(), Guidance(**GUIDANCES["inside"])
    network, built = Exact(data.exact, guidance), objective(GUIDANCES["inside"])
    times = parse_spec("time_sampler", "uniform").build()
    situation = Situation(network, data, built, times, 0, 0, torch.device("cpu"))
    for name, moved in (("v", lambda b: (b.t, b.t, 32)), ("u", lambda b: (0.3 * b.t, b.t, 0))):
        x, y = data.batch(0, 0, 32, "cpu")
        t = torch.rand(32)
        batch = Batch(x, torch.randn(x.shape), t, t, y, 0)
        r, t, v_rows = moved(batch)
        batch = Batch(x, batch.eps, r, t, y, v_rows)
        target = exact_target(situation, batch)
        found = network(batch.z, r, t, y).float()
        assert relative_error(found, target) < 1e-3, name
        unguided = Situation(network, data, objective(None), times, 0, 0, torch.device("cpu"))
        assert relative_error(found, exact_target(unguided, batch)) > 0.05, name


@pytest.fixture(scope="module")
def trained() -> Trainer:
    """A small network trained with guidance for a few seconds, with its average weights."""
    d = dynamics(
        network={"name": "mlp", "width": 32, "depth": 2, "max_frequency": 2},
        data=SMALL,
        batch_size=1024,
        fm_ratio=0.5,
        label_dropout=0.3,
        ema_decay=0.98,
        optimiser={"name": "adam", "lr": 1e-2},
        objective={"name": "meanflow", "adaptive_p": 0},
        time_sampler="uniform",
        guidance=STRONG,
    )
    torch.set_num_threads(1)
    trainer = Trainer(d, seed=0)
    for _ in range(200):
        trainer.advance()
    with torch.no_grad():
        for p, average in zip(trainer.network.parameters(), trainer.ema, strict=True):
            p.copy_(average)
    return trainer


def points(trainer: Trainer) -> tuple[Fields, Tensor, Tensor, Tensor, Tensor]:
    fields = trainer.data.exact
    assert fields is not None
    g = torch.Generator().manual_seed(5)
    r, t = trainer.times.draw(2000, g)
    z, y = fields.draw_marginal(t, g)
    return fields, z, r, t, y


def relative_error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def test_training_approaches_the_guided_field(trained: Trainer) -> None:
    """Not the unguided one, nor that of ω taken for ω′."""
    fields, z, r, t, y = points(trained)
    guided, mistaken = Guidance(**STRONG), Guidance(cfg_omega=STRONG["cfg_omega"], cfg_kappa=0.0)
    with torch.no_grad():
        v, u = trained.network(z.float(), t, t, y), trained.network(z.float(), r, t, y)
    v_error, u_error = (
        relative_error(v, fields.guided_v(z, t, y, guided)),
        relative_error(u, fields.guided_u(z, r, t, y, guided, 32)),
    )
    assert v_error < 0.2 and u_error < 0.25
    assert relative_error(v, fields.v(z, t, y)) > 4 * v_error
    assert relative_error(u, fields.u(z, r, t, y)) > 3 * u_error
    assert relative_error(v, fields.guided_v(z, t, y, mistaken)) > 2 * v_error
    assert relative_error(u, fields.guided_u(z, r, t, y, mistaken, 32)) > 2 * u_error


def test_without_a_label_the_network_learns_the_marginal_field(trained: Trainer) -> None:
    fields, z, _, t, _ = points(trained)
    with torch.no_grad():
        v = trained.network(z.float(), t, t, torch.full((len(t),), 3))
    assert relative_error(v, fields.v(z, t)) < 0.2
