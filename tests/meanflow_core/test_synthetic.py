"""Synthetic latents as a data set: their law, batches, features, and a network trained and measured on them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from meanflow_core.components import MLPParams, SyntheticLatentsParams
from meanflow_core.config import Dynamics, Protocol
from meanflow_core.data.synthetic import BandLimitedFields, SyntheticLatents, cosine_modes
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.evaluate import evaluate, preflight
from meanflow_core.evaluation.reference import cache_key, coarse, coarse_map, reference_statistics
from meanflow_core.flops import data_shape, parameter_count
from meanflow_core.registry import ComponentError, parse_spec
from meanflow_core.trainer import Trainer

TINY: dict[str, Any] = {"name": "synthetic_latents", "side": 8, "classes": 3}
GUIDANCE = {"cfg_omega": 1.0, "cfg_kappa": 0.5}


def build(spec: Any = "synthetic_latents") -> SyntheticLatents:
    data: SyntheticLatents = parse_spec("data", spec).build()
    return data


def second_moments(fields: BandLimitedFields) -> Tensor:
    """E x² of every channel, mean over its places."""
    mean, covariance = fields.moments()
    return (covariance.diagonal() + mean**2).view(fields.shape[0], -1).mean(1)


def test_modes_are_orthonormal_and_smooth() -> None:
    B = cosine_modes(8, 4)
    torch.testing.assert_close(B.T @ B, torch.eye(16, dtype=torch.float64))
    images = B.T.view(16, 8, 8)
    roughness = sum(images.diff(dim=axis).square().sum((1, 2)) for axis in (1, 2))
    frequency = torch.tensor([i**2 + j**2 for i in range(4) for j in range(4)])
    assert torch.corrcoef(torch.stack([roughness, frequency.double()]))[0, 1] > 0.99


def test_the_law_is_of_the_size_of_scaled_latents() -> None:
    """Unit second moment over all, channels that differ, centred classes, and power that falls with the frequency."""
    fields = build({**TINY, "classes": 10}).exact
    sizes = second_moments(fields)
    assert float(sizes.mean()) == pytest.approx(1.0)
    assert float(sizes.max() / sizes.min()) > 1.2
    torch.testing.assert_close(fields.means.mean(0), torch.zeros(256, dtype=torch.float64))
    power = fields.low.moments()[1].diagonal().view(4, 4, 4).mean(0)
    assert power[0, 0] > power[:2, :2].mean() > power[2:, 2:].mean() > power[3, 3]


def test_one_class_has_no_labels() -> None:
    data = build({**TINY, "classes": 1})
    assert data.num_classes is None and data.batch(0, 0, 4, "cpu")[1] is None
    assert float(second_moments(data.exact).mean()) == pytest.approx(1.0)


def test_the_patterns_are_a_function_of_their_seed() -> None:
    one, again, other = (build({**TINY, "pattern_seed": seed}).exact for seed in (0, 0, 1))
    assert torch.equal(one.means, again.means)
    assert not torch.isclose(one.means, other.means).any()


def test_batches_have_the_law_of_the_draws() -> None:
    data = build(TINY)
    x, y = data.batch(0, 3, 40_000, "cpu")
    assert x.dtype == torch.float32 and y is not None
    again = build(TINY).batch(0, 3, 40_000, "cpu")
    assert torch.equal(x, again[0])
    assert not torch.equal(x, data.batch(0, 4, 40_000, "cpu")[0])
    mean, covariance = data.exact.moments()
    torch.testing.assert_close(x.flatten(1).mean(0).double(), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(x.flatten(1).T.cov().double(), covariance, atol=0.1, rtol=0)
    torch.testing.assert_close(x[y == 1].flatten(1).mean(0).double(), data.exact.means[1], atol=0.06, rtol=0)


def test_the_paper_s_dimension() -> None:
    data = build()
    x, y = data.batch(0, 0, 256, "cpu")
    assert x.shape == (256, 4, 32, 32)
    t = torch.linspace(0, 1, 256)
    for label in (None, y):
        assert data.exact.v(x, t, label).isfinite().all()
    assert data.reference_samples(1500).shape == (1500, 4, 32, 32)
    assert float(data.reference_samples(1500).square().mean()) == pytest.approx(1.0, abs=0.05)
    dynamics = Dynamics(network={"name": "dit", "size": "B/4"}, data="synthetic_latents")
    assert data_shape(dynamics) == data.shape
    assert parameter_count(MLPParams(), data.shape, SyntheticLatentsParams().classes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_drawn_on_the_device() -> None:
    data = build()
    x, y = data.batch(0, 0, 256, "cuda")
    assert x.is_cuda and x.dtype == torch.float32 and y is not None and y.is_cuda
    assert torch.equal(x, data.batch(0, 0, 256, "cuda")[0])
    fine, _ = data.batch(0, 1, 20_000, "cuda")
    mean, _ = data.exact.moments(coarse_map(data.shape))
    torch.testing.assert_close(coarse(fine).mean(0).cpu().double(), mean, atol=0.06, rtol=0)


def test_arguments_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match="9 modes an axis do not fit a side of 8"):
        SyntheticLatentsParams(side=8, modes=9)
    with pytest.raises(ComponentError, match="available: channels, side, classes"):
        build({"name": "synthetic_latents", "rank": 3})


# --- coarse features --------------------------------------------------------------------------------------


def test_coarse_features_are_block_means() -> None:
    x = torch.randn(3, 2, 8, 12)
    features = coarse(x)
    assert features.shape == (3, 32)
    assert float(features[1, 16]) == pytest.approx(float(x[1, 1, :2, :3].mean()), abs=1e-6)
    torch.testing.assert_close(features.double(), x.flatten(1).double() @ coarse_map((2, 8, 12)).T)


@pytest.mark.parametrize("spec", ["gmm", TINY])
def test_coarse_reference_statistics_are_exact(spec: Any) -> None:
    data = parse_spec("data", spec).build()
    found = reference_statistics(cache_key(parse_spec("data", spec)), "coarse")
    features = coarse(data.reference_samples(50_000)).double()
    torch.testing.assert_close(torch.from_numpy(found.mu).double(), features.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.from_numpy(found.sigma), features.T.cov(), atol=0.04, rtol=0)


@pytest.mark.parametrize("spec", ["gaussian", {**TINY, "side": 6, "modes": 2}])
@pytest.mark.parametrize("metric", ["frechet", "kid"])
def test_what_has_no_coarse_features(spec: Any, metric: str) -> None:
    protocol = Protocol(metric={"name": metric, "features": "coarse"}, reference=spec)
    assert any("sides are multiples of 4" in line for line in preflight(protocol))


# --- trained and measured ---------------------------------------------------------------------------------


def test_a_small_transformer_is_trained_and_measured() -> None:
    dynamics = Dynamics(
        network={"name": "dit", "size": "nano/4"}, data=TINY, batch_size=16, optimiser={"name": "adam", "lr": 1e-3}
    )
    trainer = Trainer(dynamics, seed=0)
    for _ in range(3):
        assert all(math.isfinite(value) for value in trainer.advance(log=True).values())
    metrics: list[Any] = [
        {"name": "frechet", "features": "coarse"},
        {"name": "kid", "features": "coarse", "subsets": 2, "subset_size": 50},
        "v_error",
        "u_error",
        {"name": "u_error", "lo": 0.1, "hi": 0.3},
        {"name": "v_error", "guidance": GUIDANCE},
        {"name": "u_error", "guidance": GUIDANCE, "lo": 0.1, "hi": 0.3},
    ]
    protocols = [Protocol(metric=metric, reference=TINY, samples=64) for metric in metrics]
    assert [preflight(protocol) for protocol in protocols] == [[]] * len(protocols)
    found = evaluate(EvaluationContext(trainer.network, trainer.data), protocols)
    assert all(math.isfinite(one.value) and one.seconds > 0 for one in found.values())
    errors = [found[protocol.key].value for protocol in protocols[2:]]
    assert all(0.1 < error < 2 for error in errors), "a network that is still about 0 has an error of about 1"
