"""The whole loss of Section 5, Eqs 8 and 9, against a naive implementation, for every combination of its parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import integrate
from torch import Tensor, nn

from meanflow_core.hooks import Batch, Transform
from meanflow_core.objectives import MeanFlow, Terms
from meanflow_core.registry import parse_spec
from meanflow_core.trainer import Trainer
from tests.meanflow_core import dynamics, make_inputs, make_network, naive

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # where E[α] is taken by quadrature, to 1e-10
HORIZON, STEP = 40, 11
ABOVE = 0.25  # the bound of DTD's first stage below
F64 = torch.float64

PARTS: dict[str, dict[str, Any]] = {
    "min_snr": {"name": "min_snr", "gamma": 2.0},
    "min_snr, normalised": {"name": "min_snr", "reading": "flow_matching", "normalise": True},
    "dtd": {"name": "dtd", "clusters": 4},
    "u_weight": {"name": "progressive_weight", "schedule_power": 2.0},
    "u_weight, rising": {"name": "progressive_weight", "schedule": "rising"},
    "u_weight, constant": {"name": "progressive_weight", "schedule": "constant"},
}
WAYS_TO_V = [(), ("min_snr",), ("min_snr, normalised",), ("dtd",), ("dtd", "min_snr, normalised")]
WAYS_TO_U = [(), ("u_weight",), ("u_weight, rising",), ("u_weight, constant",)]
GUIDANCE = {"cfg_omega": 0.6, "cfg_kappa": 0.5, "lo": 0.1, "hi": 0.9}


def make_batch(v_rows: int, above: float) -> Batch:
    """Uniform times in float64, of which one is above a bound, and some labels dropped."""
    x, _, _, y, eps = make_inputs(8)
    free = torch.rand(2, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    free[0] = above + (1 - above) * free[0]
    r, t = free.sort(0).values
    y[[1, 6]] = 10
    return Batch(x, eps, torch.cat([t[:v_rows], r[v_rows:]]), t, y, v_rows, above)


def weights_by_hand(names: tuple[str, ...], above: float) -> dict[str, Any]:
    """α(t) and β(Δt) of a combination; λ and E[α] from the law of uniform times, in closed form and by its density."""
    weights: dict[str, Any] = {}
    for spec in (PARTS[name] for name in names):
        if spec["name"] == "min_snr":
            gamma, reading = spec.get("gamma", 5.0), spec.get("reading", "v_prediction")
            mean, peak = 1.0, 1 / (1 + gamma**0.5)
            if spec.get("normalise"):
                density = lambda t: (2 * t - above) / (1 - above)  # noqa: E731
                mean = integrate.quad(
                    lambda t: density(t) * naive.alpha(t, gamma, reading), above, 1, points=[peak], epsabs=1e-13  # noqa: B023
                )[0]  # fmt: skip
            weights["v_weight"] = lambda t: naive.alpha(t, gamma, reading) / mean  # noqa: B023
        if spec["name"] == "progressive_weight":
            s = naive.progress(spec.get("schedule", "falling"), STEP, HORIZON, spec.get("schedule_power", 1.0))
            lam = 1 / (1 - (1 + above + above**2) / 3 + above / 2)  # 3/2 for a = 0
            weights["u_weight"] = lambda delta_t: naive.beta(delta_t, s, lam)  # noqa: B023
    return weights


def built(names: tuple[str, ...]) -> list[Transform]:
    times = parse_spec("time_sampler", "uniform").build()
    return [parse_spec("transform", PARTS[name]).build(HORIZON, times=times) for name in names]


def gradients(network: nn.Module, loss: Tensor) -> Tensor:
    network.zero_grad()
    loss.mean().backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("guidance", [None, GUIDANCE], ids=["", "guided"])
@pytest.mark.parametrize("v_rows", [0, 5, 8])
@pytest.mark.parametrize("to_u", WAYS_TO_U, ids=str)
@pytest.mark.parametrize("to_v", WAYS_TO_V, ids=str)
def test_the_whole_loss(to_v: tuple[str, ...], to_u: tuple[str, ...], v_rows: int, guidance: Any) -> None:
    names = (*to_v, *to_u)
    batch = make_batch(v_rows, ABOVE if "dtd" in names else 0.0)
    network = make_network("mlp")
    objective: MeanFlow = parse_spec("objective", "meanflow").build(guidance=_guidance(guidance), null_label=10)
    terms: Terms = objective.terms(network, batch, STEP, built(names))
    expected = naive.losses(network, batch, guidance=guidance, **weights_by_hand(names, batch.t_above))
    torch.testing.assert_close(terms.loss, expected, **CLOSE)
    ours, theirs = gradients(network, terms.loss), gradients(network, expected)
    assert (ours - theirs).norm() < 1e-9 * theirs.norm()


def _guidance(given: Any) -> Any:
    return dynamics(guidance=given, label_dropout=0.1).guidance


def test_raw_errors_are_those_of_meanflow_whatever_the_weights() -> None:
    network, batch = make_network("mlp"), make_batch(5, 0.0)
    objective: MeanFlow = parse_spec("objective", "meanflow").build()
    plain = objective.terms(network, batch)
    weighted = objective.terms(network, batch, STEP, built(("min_snr", "u_weight")))
    assert torch.equal(plain.squared_error, weighted.squared_error)
    assert not torch.isclose(plain.loss, weighted.loss).any()


@pytest.mark.parametrize("order", [("dtd", "u_weight", "min_snr"), ("min_snr", "u_weight", "dtd")])
def test_in_the_trainer(order: tuple[str, ...]) -> None:
    """A step by hand of all three together; the order in which they stand is immaterial."""
    d = dynamics(transforms=[PARTS[name] for name in order], time_sampler="uniform", fm_ratio=0.5)
    trainer = Trainer(d, seed=0, horizon_steps=HORIZON)
    batch = trainer.draw_batch(0)
    assert batch.t_above == 0.75 and (batch.t >= 0.75).all()
    lam = 1 / (1 - (1 + 0.75 + 0.75**2) / 3 + 0.75 / 2)
    expected = naive.losses(
        trainer.network,
        batch,
        v_weight=lambda t: naive.alpha(t, 2.0, "v_prediction"),
        u_weight=lambda delta_t: naive.beta(delta_t, 1.0, lam),
    )
    logged = trainer.advance(log=True)
    assert logged["loss"] == pytest.approx(float(expected.detach().mean()), rel=1e-5)
    assert set(logged) == {"loss", "v_mse", "u_mse", "dtd_stage", "dtd_t_above", "schedule_s"}
