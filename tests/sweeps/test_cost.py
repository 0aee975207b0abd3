"""The cost vector against counting."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from meanflow_core.config import Dynamics
from meanflow_core.flops import data_shape, forward_flops, parameter_count, step_flops
from meanflow_core.registry import parse_spec
from studies.loader import load_source, resolve
from sweeps.cost import Rates, learn, step_class
from sweeps.plan import Inventory
from sweeps.session import open_session

NETWORKS = [
    ({"name": "dit", "size": "B/4"}, (4, 32, 32), 1000),
    ({"name": "dit", "size": "nano/2"}, (1, 8, 8), 10),
    ({"name": "mlp", "width": 96, "depth": 3}, (1, 8, 8), 10),
    ({"name": "mlp", "width": 24, "depth": 1, "conditional": False}, (7,), None),
]


@pytest.mark.parametrize(("network", "shape", "classes"), NETWORKS)
def test_flops_and_parameters_are_what_torch_counts(
    network: dict[str, object], shape: tuple[int, ...], classes: int | None
) -> None:
    spec = parse_spec("network", network)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        net = spec.build(shape=shape, num_classes=classes)
        y = None if classes is None else torch.zeros(2, dtype=torch.long)
        net(torch.zeros(2, *shape), torch.zeros(2), torch.zeros(2), y)
    assert counter.get_total_flops() / 2 == forward_flops(spec.params, shape)
    assert sum(p.numel() for p in net.parameters()) == parameter_count(spec.params, shape, classes)


@pytest.mark.parametrize("data", ["digits", "gmm", {"name": "gaussian", "dim": 3}, "latents"])
def test_data_shapes_are_what_the_data_say(data: object) -> None:
    dynamics = Dynamics.model_validate({"network": "mlp", "data": data})
    assert data_shape(dynamics) == tuple(dynamics.data.build().shape)


def test_cost_of_the_paper_scale() -> None:
    s = open_session([resolve(load_source("obs_v_then_u"), "paper")])
    cost = s.cost(s.jobs(Inventory()), Rates())
    assert cost.epochs == 450 and cost.steps == 450 * 5004 and cost.images == cost.steps * 256
    f = 11_125_653_504
    v_steps, u_steps, joint = 20 * 5004, 350 * 5004, 80 * 5004
    # guided, but for the tenth of labels that is dropped: 1 F more a v-row, 2 F more a u-row
    assert cost.v_flops == pytest.approx((3 + 0.9) * f * 256 * (v_steps + 0.75 * joint))
    assert cost.u_flops == pytest.approx((4 + 1.8) * f * 256 * (u_steps + 0.25 * joint))
    assert cost.gpu_hours is None and "calibrate" in cost.hours_basis


def test_guidance_costs_one_forward_a_v_row_and_two_a_u_row() -> None:
    """For rows that keep their label, and not where a weight of v_g is 0; other arithmetic is as it was."""
    given = ["null", "{effective_omega: 2.0, cfg_kappa: 0.5}", "{cfg_omega: 0.5, cfg_kappa: 0.5}"]
    studies = [resolve(load_source("obs_v_then_u"), "paper", [f"dynamics.guidance={one}"]) for one in given]
    plain, dear, no_null = (s.cost(s.jobs(Inventory()), Rates()) for s in map(open_session, ([s] for s in studies)))
    assert dear.v_flops == pytest.approx(plain.v_flops * (3 + 0.9) / 3)
    assert dear.u_flops == pytest.approx(plain.u_flops * (4 + 1.8) / 4)
    assert no_null.v_flops == plain.v_flops
    assert no_null.u_flops == pytest.approx(plain.u_flops * (4 + 0.9) / 4)
    assert (dear.steps, dear.evaluation_flops) == (plain.steps, plain.evaluation_flops)


def test_steps_take_as_long_as_those_of_equal_guidance() -> None:
    def of(**changes: object) -> str:
        return step_class(Dynamics.model_validate({"network": "mlp", "data": "digits", **changes}), "cpu")

    guidance = {"cfg_omega": 1.0, "cfg_kappa": 0.5}
    assert of() == of(label_dropout=0.1) != of(label_dropout=0.1, guidance=guidance)
    assert of(label_dropout=0.2, guidance=guidance) != of(label_dropout=0.1, guidance=guidance)
    assert of(transforms=["dtd"]) != of() != of(transforms=["progressive_weight"])


@pytest.mark.parametrize(("guidance", "point"), [("null", 19), ("{effective_omega: 2.0, cfg_kappa: 0.5}", 28)])
def test_what_probes_cost_a_point_and_set_whatever_is_read_off_them(guidance: str, point: int) -> None:
    """Four affinities and four ceilings share five gradients on two sets; exact targets need no tangent and no v_g."""
    overrides = (f"dynamics.guidance={guidance}", "dynamics.label_dropout=0.1")
    s = open_session([resolve(load_source("obs_task_affinity"), "truth", overrides, [0])])
    jobs = [job for job in s.jobs(Inventory()) if job.kind == "train"]
    probes = sum(len({wanted.step for wanted in job.evaluations}) for job in jobs)
    assert probes == 3 * 8
    f = forward_flops(jobs[0].dynamics.network.params, (1, 8, 8))
    assert f is not None
    assert s.cost(jobs, Rates()).evaluation_flops == pytest.approx(f * 5000 * probes * (2 * point + 2 * 15))


def test_hours_come_from_the_store_before_the_calibration() -> None:
    dynamics = Dynamics.model_validate({"network": "mlp", "data": "digits"})
    flops = step_flops(dynamics)
    assert flops is not None
    rates = Rates(flops_per_s={"mlp": flops / 2.0}, device="a machine")
    assert rates.step_seconds(dynamics, "cpu") == (2.0, "calibration on a machine")
    learn(rates, [(dynamics.dump(), "cpu", 0.5), (dynamics.dump(), "cpu", 0.7), (dynamics.dump(), "cpu", 0.6)])
    assert rates.step_seconds(dynamics, "cpu") == (0.6, "step times in the store")
    assert step_class(dynamics, "cpu") != step_class(dynamics, "cuda")
