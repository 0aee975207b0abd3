"""Metrics against closed forms, sharing between protocols, and refusals. Nothing here may download."""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
import pickle
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meanflow_core.config import Protocol
from meanflow_core.data.base import DataSet
from meanflow_core.data.digits import digits
from meanflow_core.data.fields import Fields
from meanflow_core.evaluation import extractor, inception, truth
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError, WrongResult
from meanflow_core.evaluation.evaluate import as_number, evaluate, measure, preflight
from meanflow_core.evaluation.extractor import CARD, accuracy, held_out_split, load_digits_cnn
from meanflow_core.evaluation.fidelity import Statistics, frechet, kid
from meanflow_core.evaluation.reference import cache_key
from meanflow_core.registry import parse_spec


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a download was tried: {args}")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


def protocol(metric: Any, reference: Any = "gmm", **fields: Any) -> Protocol:
    return Protocol(metric=metric, reference=reference, **{"samples": 2000, **fields})


def values_of(protocols: Sequence[Protocol], *network_and_data: Any) -> dict[str, float]:
    return {key: found.value for key, found in evaluate(EvaluationContext(*network_and_data), protocols).items()}


def data(name: str = "gmm") -> DataSet:
    found: DataSet = parse_spec("data", name).build()
    return found


def fields_of(dataset: DataSet) -> Fields:
    assert dataset.exact is not None
    return dataset.exact


class ExactNetwork(nn.Module):
    """u of the data itself, times ``factor``: a perfect network, or one with a known relative error."""

    def __init__(self, fields: Fields, conditional: bool, factor: float = 1.0) -> None:
        super().__init__()
        self.fields, self.conditional, self.factor, self.calls = fields, conditional, factor, 0

    def forward(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        assert not self.training
        assert (y is not None) == self.conditional
        self.calls += 1
        return self.factor * self.fields.u(z, r, t, y).float()


def test_frechet_of_two_gaussians_in_closed_form() -> None:
    """With commuting covariances: ‖Δμ‖² + Σ(σ_a − σ_b)²; and zero between equals."""
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 0.25])
    mu = torch.tensor([1.0, 0.0, -2.0])
    Q = torch.linalg.qr(torch.randn(3, 3))[0]
    first = Statistics.of_moments(torch.zeros(3), Q @ a.diag() @ Q.T)
    second = Statistics.of_moments(mu, Q @ b.diag() @ Q.T)
    expected = 5.0 + float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet(first, second) == pytest.approx(expected, rel=1e-5)
    assert frechet(first, first) == pytest.approx(0.0, abs=1e-5)


def test_frechet_of_general_covariances_against_the_matrix_root() -> None:
    from scipy.linalg import sqrtm

    A, B = (x @ x.T + 0.1 * np.eye(4) for x in np.random.default_rng(0).normal(size=(2, 4, 4)))
    expected = np.trace(A + B - 2 * np.real(sqrtm(A @ B)))
    found = frechet(*(Statistics.of_moments(torch.zeros(4), torch.from_numpy(x)) for x in (A, B)))
    assert found == pytest.approx(expected, rel=1e-8)


def test_statistics_are_the_sample_moments_with_the_dtypes_that_are_asserted() -> None:
    x = torch.randn(500, 5)
    found = Statistics.of_features(x)
    assert found.mu.dtype == np.dtype(np.float32)
    assert found.sigma.dtype == np.dtype(np.float64)
    np.testing.assert_allclose(found.mu, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.sigma, x.T.cov(), atol=1e-5)
    frechet(found, Statistics.of_moments(torch.zeros(5, dtype=torch.float64), torch.eye(5)))


def test_means_are_summed_in_float64_where_that_is_asked_for() -> None:
    x = 1000 + torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0))
    exact = x.double().mean(0).numpy()
    found = Statistics.of_features(x, "float64")
    np.testing.assert_allclose(found.mu, exact, rtol=1e-14)
    assert abs(Statistics.of_features(x).mu - exact).max() > 1e-3  # what was measured before stays what it was
    space = {"name": "frechet", "features": "pixel"}
    exactly = protocol({**space, "sums": "float64"})
    assert protocol(space).key == protocol({**space, "sums": "float32"}).key != exactly.key
    gmm = data()
    network = ExactNetwork(fields_of(gmm), True)
    values = values_of([protocol(space), exactly], network, gmm)
    assert values[exactly.key] == pytest.approx(values[protocol(space).key], rel=1e-3)


@pytest.mark.parametrize("rank", [1, 3, 30])
def test_equal_sets_of_any_rank_are_at_no_distance(rank: int) -> None:
    rng = torch.Generator().manual_seed(rank)
    x = torch.randn(200, rank, generator=rng) @ torch.randn(rank, 40, generator=rng)
    found = Statistics.of_features(x)
    assert 0 <= frechet(found, found) < 1e-4 * np.trace(found.sigma)


def test_one_dimension_is_enough() -> None:
    gaussian = protocol({"name": "frechet", "features": "pixel"}, "gaussian", samples=4000)
    value = values_of([gaussian], lambda z, r, t, y: z - (1 + z / 2), data("gaussian"))[gaussian.key]
    assert 0 <= value < 2e-3


def test_kid_is_zero_for_equal_laws_and_positive_for_others(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = torch.randn(2, 2000, 8)
    same, other = kid(a, b, 20, 500), kid(a, b + 1, 20, 500)
    assert abs(same) < 0.02 < other
    assert kid(a, b, 20, 500) == same
    assert capsys.readouterr() == ("", "")


def test_kid_against_its_definition() -> None:
    """One subset of everything: unbiased MMD² with (x·y/d + 1)³."""
    a, b = torch.randn(60, 3, dtype=torch.float64), torch.rand(60, 3, dtype=torch.float64)
    kernel: Callable[[Tensor, Tensor], Tensor] = lambda x, y: (x @ y.T / 3 + 1) ** 3  # noqa: E731
    off = 1 - torch.eye(60)
    pairs = 60 * 59
    expected = ((kernel(a, a) + kernel(b, b)) * off).sum() / pairs - 2 * kernel(a, b).mean()
    assert kid(a, b, 1, 60) == pytest.approx(float(expected), rel=1e-10)


def test_the_shipped_extractor_is_as_accurate_as_it_says() -> None:
    card = json.loads(CARD.read_text())
    train, held_out = held_out_split()
    assert not set(train.tolist()) & set(held_out.tolist())
    assert card["held_out_accuracy"] >= 0.97
    assert accuracy(load_digits_cnn(), held_out) == pytest.approx(card["held_out_accuracy"], abs=0.003)


def test_features_are_alive_and_of_unit_variance() -> None:
    features = load_digits_cnn().features(digits()[0])
    assert features.shape == (1797, 64)
    variances = features.var(0)
    assert float(variances.mean()) == pytest.approx(1.0, rel=1e-3)
    assert float(variances.min()) > 0.01


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = bytearray(extractor.WEIGHTS.read_bytes())
    blob[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(blob)
    monkeypatch.setattr(extractor, "WEIGHTS", tmp_path / "changed.safetensors")
    with pytest.raises(RuntimeError, match="sha256"):
        load_digits_cnn.__wrapped__()


DISTANCES = [
    {"name": "frechet", "features": "pixel"},
    {"name": "frechet", "features": "digits_cnn"},
    {"name": "kid", "features": "digits_cnn", "subsets": 5, "subset_size": 500},
]


def test_a_perfect_network_is_near_zero_on_every_metric() -> None:
    gmm = data()
    protocols = [protocol(m, samples=5000) for m in (*DISTANCES, "v_error", "u_error")]
    values = list(values_of(protocols, ExactNetwork(fields_of(gmm), True), gmm).values())
    # With finitely many samples even a perfect network has a positive Fréchet distance.
    assert 0 < values[0] < 0.6
    assert 0 < values[1] < 0.6
    assert abs(values[2]) < 0.02
    assert max(values[3:]) < 1e-5


def test_networks_without_labels_are_compared_with_the_marginal_fields() -> None:
    gmm = data()
    protocols = [protocol(m, samples=100) for m in ("v_error", "u_error")]
    perfect = values_of(protocols, ExactNetwork(fields_of(gmm), False), gmm).values()
    assert max(perfect) < 1e-5


def test_an_error_of_ten_percent_is_measured_as_such() -> None:
    gmm = data()
    protocols = [protocol(m) for m in ("v_error", {"name": "u_error", "lo": 0.1, "hi": 0.3})]
    values = values_of(protocols, ExactNetwork(fields_of(gmm), True, factor=1.1), gmm).values()
    assert list(values) == pytest.approx([0.1, 0.1], rel=1e-4)


def test_worse_samples_are_farther_away() -> None:
    gmm = data()
    protocols = [protocol(m) for m in DISTANCES]
    good = values_of(protocols, ExactNetwork(fields_of(gmm), True), gmm)
    bad = values_of(protocols, ExactNetwork(fields_of(gmm), True, factor=0.7), gmm)
    assert all(bad[p.key] > 2 * good[p.key] for p in protocols)


@pytest.mark.parametrize("gap", [(1.0, 1.0), (0.1, 0.3), (0.7, 0.9)])
def test_points_keep_to_their_gap(gap: tuple[float, float]) -> None:
    p = truth.exact_points(cache_key(parse_spec("data", "gaussian")), gap, 500, 0, False)
    assert (p.r >= 0).all() and (p.t <= 1).all()
    assert p.z.dtype == p.t.dtype == torch.float32
    delta_t = p.t - p.r
    assert gap[0] - 1e-6 <= float(delta_t.min()) <= float(delta_t.max()) <= gap[1] + 1e-6
    if gap[0] < gap[1]:
        assert float(delta_t.mean()) == pytest.approx(sum(gap) / 2, abs=0.02)


def test_v_points_have_uniform_times() -> None:
    p = truth.exact_points(cache_key(parse_spec("data", "gaussian")), (0.0, 0.0), 2000, 0, False)
    assert torch.equal(p.r, p.t)
    assert float(p.t.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(p.t.std()) == pytest.approx(math.sqrt(1 / 12), abs=0.02)


def test_protocols_share_samples_and_different_seeds_do_not() -> None:
    gmm = data()
    network = ExactNetwork(fields_of(gmm), True)
    context = EvaluationContext(network, gmm)
    for metric in DISTANCES:
        measure(context, protocol(metric))
    calls = network.calls
    assert calls == 2  # 2000 samples in batches of at most 1024
    measure(context, protocol(DISTANCES[0], seed=1))
    assert network.calls == 2 * calls


def test_latents_and_labels_are_common_to_all_networks() -> None:
    """They depend on the protocol's seed alone: paired differences between arms are free of their noise."""
    gmm = data()
    seen: list[tuple[Tensor, Tensor]] = []

    class Network(nn.Module):
        conditional = True

        def forward(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor) -> Tensor:
            seen.append((z, y))
            return z

    for _ in range(2):
        EvaluationContext(Network(), gmm).samples(protocol(DISTANCES[0], samples=100))
        torch.randn(7)  # the global generator does not matter
    (z, y), (z2, y2) = seen
    assert torch.equal(z, z2) and torch.equal(y, y2)


def test_values_do_not_depend_on_what_was_measured_before() -> None:
    gmm = data()
    together = values_of([protocol(m) for m in DISTANCES], ExactNetwork(fields_of(gmm), True), gmm)
    for metric in reversed(DISTANCES):
        alone = values_of([protocol(metric)], ExactNetwork(fields_of(gmm), True), gmm)
        assert alone.items() <= together.items()


@pytest.mark.parametrize("before", ["highest", "high"])
def test_precision_is_the_protocols_whatever_was_computed_before(before: str) -> None:
    gmm, seen = data(), set()

    class Network(ExactNetwork):
        def forward(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
            seen.add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return super().forward(z, r, t, y)

    context = EvaluationContext(Network(fields_of(gmm), True), gmm)
    torch.set_float32_matmul_precision(before)
    try:
        for precision, expected in (("fp32", ("highest", False)), ("tf32", ("high", True))):
            for metric in (DISTANCES[0], "v_error"):
                evaluate(context, [protocol(metric, samples=100, precision=precision)])
                assert seen == {expected}  # samples of the other precision are not used again
                seen.clear()
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_precision_is_in_the_key_where_it_is_not_fp32() -> None:
    plain = protocol("v_error")
    assert plain.key == protocol("v_error", precision="fp32").key != protocol("v_error", precision="tf32").key
    with pytest.raises(ValueError, match="observed in the training's precision"):
        protocol({"name": "task_affinity", "lo": 0.1, "hi": 0.3}, weights="online", precision="tf32")


def test_the_network_keeps_its_mode() -> None:
    gmm = data()
    network = ExactNetwork(fields_of(gmm), True).train()
    values_of([protocol(m, samples=100) for m in (DISTANCES[0], "v_error")], network, gmm)
    assert network.training


def test_digits_are_compared_with_all_images() -> None:
    """A network that returns the 1797 images themselves is at distance zero."""
    images = digits()[0]
    given = iter(images.split(1024))
    p = protocol(DISTANCES[0], "digits", samples=1797)
    assert values_of([p], lambda z, r, t, y: z - next(given), data("digits"))[p.key] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("p", "complaint"),
    [
        (protocol("v_error", "digits"), "exact fields of the data 'digits'"),
        (protocol("kid", samples=100), "subsets of 1000"),
        (protocol(DISTANCES[1], "gaussian"), "digits_cnn takes images"),
        (protocol({"name": "frechet", "features": "inception"}), "decoded latents"),
        (protocol(DISTANCES[0], samples=1), "at least 2 samples"),
    ],
)
def test_what_cannot_be_measured_is_said_beforehand_and_refused(p: Protocol, complaint: str) -> None:
    assert any(complaint in line for line in preflight(p))
    dataset: DataSet = p.reference.build()
    with pytest.raises(EvaluationError, match=complaint):
        values_of([p], lambda z, r, t, y: z, dataset)


def test_ready_protocols_have_an_empty_preflight() -> None:
    assert [preflight(protocol(m)) for m in (*DISTANCES, "v_error", "u_error")] == [[]] * 5


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("metric", [DISTANCES[0], "v_error"])
def test_networks_that_are_not_finite_are_refused(metric: Any, value: float) -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        values_of([protocol(metric, samples=50)], lambda z, r, t, y: z * value, data())


def test_distances_that_overflow_are_refused() -> None:
    p = protocol(DISTANCES[0], samples=50)
    with pytest.raises(EvaluationError):
        values_of([p], lambda z, r, t, y: z * 1e30, data())


def test_shapes_and_weights_must_agree() -> None:
    with pytest.raises(EvaluationError, match="samples have shape"):
        values_of([protocol(DISTANCES[0])], lambda z, r, t, y: z, data("gaussian"))
    with pytest.raises(EvaluationError, match="ema and online"):
        both = [protocol("v_error"), protocol("v_error", weights="online")]
        values_of(both, lambda z, r, t, y: z, data())


def _import_and_look() -> None:
    """In a process that has loaded torch, but nothing of ours and nothing of torch-fidelity."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("meanflow_core", "torch_fidelity")]:
        del sys.modules[name]
    config = importlib.import_module("meanflow_core.config")
    evaluating = importlib.import_module("meanflow_core.evaluation.evaluate")
    evaluating.preflight(config.Protocol(metric="v_error", reference="gaussian"))
    assert "torch_fidelity" not in sys.modules


def test_torch_fidelity_is_imported_only_for_distances() -> None:
    """It takes two seconds; training workers that only measure true errors should not pay for it."""
    process = multiprocessing.get_context("fork").Process(target=_import_and_look)
    process.start()
    process.join()
    assert process.exitcode == 0


LATENTS: dict[str, Any] = {"name": "latents", "dataset": "tiny", "channels": 1, "side": 2, "classes": 1}


def write_assets(root: Path) -> None:
    folder = root / "tiny"
    (folder / "vae").mkdir(parents=True)
    np.save(folder / "moments.npy", np.zeros((5, 2, 2, 2, 2), np.float16))
    (folder / "meta.json").write_text('{"format": 1, "moments": "mean+std"}')
    np.savez(folder / "reference.npz", ref_mu=np.zeros(2048), ref_sigma=np.eye(2048))


@pytest.mark.parametrize(
    "found", [0.5, np.float32(0.5), np.array([0.5]), torch.tensor(0.5), torch.tensor([[0.5]], dtype=torch.bfloat16)]
)
def test_a_metric_returns_a_finite_real_number(found: Any) -> None:
    assert (as_number("m", found), as_number("m", 1), type(as_number("m", found))) == (0.5, 1.0, float)


@pytest.mark.parametrize(
    "found", ["0.5", True, np.True_, torch.tensor(True), 1j, torch.tensor(1j), None, [0.5], torch.ones(2), {}]
)
def test_what_is_no_real_number_is_no_result(found: Any) -> None:
    with pytest.raises(WrongResult, match=r"m returns .*, where a real number is wanted"):
        as_number("m", found)


@pytest.mark.parametrize("found", [float("nan"), np.inf, torch.tensor(-torch.inf)])
def test_what_is_not_finite_is_said_of_the_network(found: Any) -> None:
    with pytest.raises(EvaluationError, match="m is not finite") as said:
        as_number("m", found)
    assert not isinstance(said.value, WrongResult)


def test_inception_says_what_to_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub_home"))
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    p = protocol({"name": "frechet", "features": "inception"}, LATENTS)
    lines = preflight(p)
    for asset in ("moments.npy", inception.INCEPTION_FILE, "reference.npz", "vae"):
        assert any(asset in line for line in lines), asset
    with pytest.raises(EvaluationError, match=r"reference\.npz"):
        values_of([p], lambda z, r, t, y: z, p.reference.build())


def test_inception_pipeline_with_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are unscaled, decoded and rounded, and compared with the statistics on disk."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    write_assets(tmp_path)
    decoded: list[Tensor] = []

    class Decoder:
        def decode(self, latents: Tensor) -> Any:
            decoded.append(latents)
            image = latents.mean((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
            return type("Decoded", (), {"sample": image})()

    def extract(images: Tensor) -> tuple[Tensor]:
        assert images.dtype == torch.uint8
        return (images.float().mean((1, 2, 3))[:, None].expand(-1, 2048) / 255,)

    monkeypatch.setattr(inception, "_decoder", lambda folder, device: Decoder())
    monkeypatch.setattr("meanflow_core.evaluation.fidelity.inception_extractor", lambda *_: extract)
    monkeypatch.setattr(inception, "weights_path", lambda: tmp_path / "tiny" / "meta.json")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    p = protocol({"name": "frechet", "features": "inception"}, LATENTS, samples=40)
    context = EvaluationContext(lambda z, r, t, y: z, p.reference.build())  # all samples are 0
    value = measure(context, p)
    assert sum(len(x) for x in decoded) == 40
    # Every feature is round(127.5)/255 = 128/255 with variance 0, against N(0, I).
    assert value == pytest.approx(2048 * (128 / 255) ** 2 + 2048, rel=1e-4)


def test_inception_is_never_downloaded(tmp_path: Path) -> None:
    from meanflow_core.evaluation.fidelity import inception_extractor

    with pytest.raises(EvaluationError, match="missing Inception weights"):
        inception_extractor(tmp_path / "nowhere.pth", "cpu")


class Trap:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


def test_inception_weights_that_are_none_are_not_loaded(tmp_path: Path) -> None:
    from meanflow_core.evaluation.fidelity import inception_extractor

    path = tmp_path / inception.INCEPTION_FILE
    for content in (b"nonsense", pickle.dumps({"fc.weight": Trap()}, protocol=2)):
        path.write_bytes(content)
        with pytest.raises(EvaluationError, match=rf"{path.name} is damaged, or holds no weights"):
            inception_extractor(path, "cpu")


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, r"has a mean \(3,\) and a covariance \(4, 4\)"),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "has moments that are not finite"),
        ({"mu": np.zeros(3), "sigma": -np.eye(3)}, "has variances below 0"),
        ({"mu": np.array([{}] * 3), "sigma": np.eye(3)}, "is damaged, or holds Python objects"),
        ({"mu": np.zeros(3), "sigma": np.eye(3)}, "has statistics of 3 features, not 2048"),
    ],
)
def test_reference_statistics_that_are_none_are_named_before_training(
    arrays: dict[str, Any], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    (tmp_path / "imagenet256").mkdir()
    path = tmp_path / "imagenet256" / "reference.npz"
    np.savez(path, **arrays)
    missing = "\n".join(inception.missing_assets(parse_spec("data", {"name": "latents"})))
    assert re.search(f"{re.escape(str(path))} {complaint}", missing)


def test_statistics_files_of_both_conventions(tmp_path: Path) -> None:
    np.savez(tmp_path / "adm.npz", mu=np.ones(3), sigma=np.eye(3))
    np.savez(tmp_path / "jax.npz", ref_mu=np.ones(3), ref_sigma=np.eye(3))
    for name in ("adm", "jax"):
        mu, sigma = inception.read_statistics(tmp_path / f"{name}.npz")
        assert torch.equal(mu, torch.ones(3).double())
        assert torch.equal(sigma, torch.eye(3).double())
    np.savez(tmp_path / "other.npz", mean=np.ones(3))
    with pytest.raises(ValueError, match="ref_sigma"):
        inception.read_statistics(tmp_path / "other.npz")


def test_rounding_to_bytes() -> None:
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert inception.to_bytes(x).tolist() == [0, 0, 128, 255, 255]
