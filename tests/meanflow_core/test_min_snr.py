"""Min-SNR's α(t): both readings, what they are on average, and that r = t rows alone are weighted."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meanflow_core.components import MinSNRParams
from meanflow_core.hooks import Batch
from meanflow_core.min_snr import MinSNR, mean_alpha
from meanflow_core.registry import parse_spec
from meanflow_core.times import TimeSampler
from meanflow_core.weights import min_snr_alpha
from tests.meanflow_core import naive

Reading = Literal["v_prediction", "flow_matching"]
READINGS: list[Reading] = ["v_prediction", "flow_matching"]
OFFICIAL = {"mean": -0.4, "std": 1.0}
TIMES: TimeSampler = parse_spec("time_sampler", {"name": "logit_normal", **OFFICIAL}).build()
F64 = torch.float64


def transform(**params: Any) -> MinSNR:
    built: MinSNR = parse_spec("transform", {"name": "min_snr", **params}).build(times=TIMES)
    return built


# --- α ------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.floats(1e-4, 1 - 1e-4), st.floats(0.01, 100), st.sampled_from(READINGS))
def test_alpha_is_what_snr_says(t: float, gamma: float, reading: Reading) -> None:
    ours = float(min_snr_alpha(torch.tensor([t], dtype=F64), gamma, reading))
    assert ours == pytest.approx(naive.alpha(t, gamma, reading), rel=1e-9)
    assert 0 <= ours <= gamma / (gamma + 1) + 1e-12, "its largest value, where SNR = γ; flow matching's is smaller"


@pytest.mark.parametrize("reading", READINGS)
def test_alpha_at_the_ends(reading: Reading) -> None:
    """SNR is infinite at t = 0 and 0 at t = 1; α is 0 at both, also in float32."""
    for dtype in (torch.float32, F64):
        assert min_snr_alpha(torch.tensor([0.0, 1.0], dtype=dtype), 5.0, reading).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("reading", READINGS)
def test_the_peak_is_where_snr_is_gamma(gamma: float, reading: Reading) -> None:
    """t = 1/(1 + √γ); with γ = 5 at 0.309."""
    t = torch.linspace(0, 1, 100_001, dtype=F64)
    peak = float(t[min_snr_alpha(t, gamma, reading).argmax()])
    assert peak == pytest.approx(1 / (1 + gamma**0.5), abs=2e-5)
    if gamma == 5.0:
        assert peak == pytest.approx(0.309, abs=5e-4)


def test_flow_matching_is_the_same_clamp_of_another_error() -> None:
    """α_fm = t²·min(SNR, γ) = α_v·(t² + (1 − t)²)."""
    t = torch.linspace(0, 1, 101, dtype=F64)
    ours = min_snr_alpha(t, 5.0, "flow_matching")
    torch.testing.assert_close(ours, min_snr_alpha(t, 5.0, "v_prediction") * (t**2 + (1 - t) ** 2))
    torch.testing.assert_close(ours, torch.minimum((1 - t) ** 2, 5 * t**2))


# --- on average ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reading", "mean"), [("v_prediction", 0.399), ("flow_matching", 0.216)])
def test_mean_over_the_rows_that_train_v(reading: Reading, mean: float) -> None:
    assert mean_alpha(MinSNRParams(reading=reading), TIMES) == pytest.approx(mean, abs=7e-4)


@pytest.mark.parametrize("above", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("reading", READINGS)
def test_mean_is_a_double_sum(reading: Reading, above: float) -> None:
    params = MinSNRParams(reading=reading, gamma=2.0)
    many = naive.mean_of_t(
        lambda t: min_snr_alpha(torch.from_numpy(t), 2.0, reading).numpy(), OFFICIAL, above, 1000
    )  # fmt: skip
    assert mean_alpha(params, TIMES, above) == pytest.approx(many, abs=3e-5)


# --- the transform -------------------------------------------------------------------------------------------


def drawn(n: int, v_rows: int, above: float = 0.0) -> Batch:
    r, t = TIMES.draw(n, torch.Generator().manual_seed(0), above)
    x = torch.zeros(n, 1)
    return Batch(x, x, torch.cat([t[:v_rows], r[v_rows:]]), t, None, v_rows, above)


@pytest.mark.parametrize("v_rows", [0, 5, 8])
@pytest.mark.parametrize("reading", READINGS)
def test_it_multiplies_weights_where_r_is_t(reading: Reading, v_rows: int) -> None:
    batch, weights = drawn(8, v_rows), torch.arange(1.0, 9.0)
    ours = transform(reading=reading, gamma=3.0).weights(7, batch, weights)
    for i, t in enumerate(batch.t.tolist()):
        factor = naive.alpha(t, 3.0, reading) if i < v_rows else 1.0
        assert float(ours[i]) == pytest.approx((i + 1) * factor, rel=1e-5)
    assert torch.equal(ours[v_rows:], weights[v_rows:])


@pytest.mark.parametrize("above", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("reading", READINGS)
def test_normalised_weights_are_1_on_average(reading: Reading, above: float) -> None:
    """Under the times in use: every stage of a curriculum has its own mean."""
    n = 100_000
    weights = transform(reading=reading, normalise=True).weights(0, drawn(n, n, above), torch.ones(n))
    assert float(weights.mean()) == pytest.approx(1.0, abs=4 * float(weights.std()) / n**0.5)
    plain = transform(reading=reading).weights(0, drawn(n, n, above), torch.ones(n))
    torch.testing.assert_close(weights, plain / mean_alpha(MinSNRParams(reading=reading), TIMES, above))
