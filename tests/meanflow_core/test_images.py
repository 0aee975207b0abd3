"""Samples as pictures: what is shown, from which latents, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meanflow_core.config import Protocol
from meanflow_core.evaluation import inception
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.evaluate import Evaluated, evaluate, preflight
from meanflow_core.evaluation.images import visible


def protocol(reference: Any = "digits", metric: Any = "images", **fields: Any) -> Protocol:
    return Protocol(metric=metric, reference=reference, **{"samples": 16, **fields})


class Towards(nn.Module):
    """u = z − x, so that one jump leads from any noise to x; keeps the noise and labels that it was given."""

    conditional = True

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x
        self.given: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        self.given.append((z.clone(), y))
        return z - self.x[: len(z)]


def pictures(x: Tensor, p: Protocol) -> Evaluated:
    """The evaluation of a network whose samples are x."""
    return evaluate(EvaluationContext(Towards(x), p.reference.build()), [p])[p.key]


def test_values_become_bytes_and_the_value_is_their_spread() -> None:
    x = torch.linspace(-1, 1, 16 * 64).view(16, 1, 8, 8)
    found = pictures(x, protocol())
    assert found.artefact is not None
    assert found.artefact.shape == (16, 8, 8, 1) and found.artefact.dtype == np.uint8
    assert found.artefact.min() == 0 and found.artefact.max() == 255
    assert np.abs(found.artefact[..., 0] - 127.5 * (x[:, 0].numpy() + 1)).max() <= 0.51
    assert found.value == pytest.approx(found.artefact.std()) == pytest.approx(255 / 12**0.5, rel=0.01)


def test_span_is_what_white_stands_for() -> None:
    x = torch.full((16, 1, 8, 8), 1.5)
    narrow, wide = (pictures(x, protocol(metric={"name": "images", "span": span})).artefact for span in (1.0, 3.0))
    assert narrow is not None and wide is not None
    assert set(narrow.flat) == {255} and set(wide.flat) == {191}  # 127.5·0.5 + 128, cut


@pytest.mark.parametrize(("channels", "shown"), [(1, [0]), (2, [0]), (3, [0, 1, 2]), (4, [0])])
def test_channels_shown(channels: int, shown: list[int]) -> None:
    x = torch.arange(float(channels)).view(1, channels, 1, 1).expand(2, channels, 5, 5)
    assert visible(x)[0, :, 0, 0].tolist() == shown


def test_the_same_latents_and_labels_for_every_network() -> None:
    """Whatever the network, its step, or what else is measured; other seeds give others."""
    given = []
    for x in (torch.zeros(600, 1, 8, 8), torch.ones(600, 1, 8, 8)):
        network = Towards(x)
        images, distance = protocol(), protocol(metric="frechet", samples=500)
        for wanted in ([images], [distance, images]):
            network.given.clear()
            evaluate(EvaluationContext(network, images.reference.build()), wanted)
            given.append(next((z, y) for z, y in network.given if len(z) == 16))
    first, labels = given[0]
    assert labels is not None and len(labels.unique()) > 2
    for z, y in given[1:]:
        assert y is not None and torch.equal(z, first) and torch.equal(y, labels)
    other = Towards(torch.zeros(16, 1, 8, 8))
    evaluate(EvaluationContext(other, protocol().reference.build()), [protocol(seed=1)])
    assert not torch.equal(other.given[0][0], first)


def test_measured_twice_it_is_bitwise_the_same() -> None:
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    a, b = (pictures(x, protocol()) for _ in range(2))
    assert a.artefact is not None and b.artefact is not None
    assert a.artefact.tobytes() == b.artefact.tobytes() and a.value == b.value


def test_what_is_no_image_is_refused_before_training() -> None:
    p = protocol("gaussian")
    assert p.metric.params.needs_check()
    assert preflight(p) == ["images are of shape (channels, height, width); the data 'gaussian' has (1,)"]
    with pytest.raises(EvaluationError, match="the data 'gaussian' has"):
        pictures(torch.zeros(16, 1), p)
    assert preflight(protocol()) == []
    with pytest.raises(EvaluationError, match="not finite"):
        pictures(torch.full((16, 1, 8, 8), torch.nan), protocol())


def test_latents_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    data = {"name": "latents", "dataset": "tiny", "channels": 2, "side": 2, "classes": 3, "scale": 0.5}
    missing = "\n".join(preflight(protocol(data)))
    assert "vae" in missing and "reference.npz" not in missing and inception.INCEPTION_FILE not in missing
    folder = tmp_path / "tiny"
    (folder / "vae").mkdir(parents=True)
    np.save(folder / "moments.npy", np.zeros((5, 2, 4, 2, 2), np.float16))
    np.save(folder / "labels.npy", np.arange(5) % 3)
    (folder / "meta.json").write_text('{"format": 1, "moments": "mean+std"}')

    class Decoder:
        def decode(self, latents: Tensor) -> Any:
            image = latents[:, :1].repeat_interleave(3, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
            return type("Decoded", (), {"sample": image})()

    monkeypatch.setattr(inception, "_decoder", lambda folder, device: Decoder())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert preflight(protocol(data)) == []
    found = pictures(torch.full((40, 2, 2, 2), 0.25), protocol(data, samples=40))
    assert found.artefact is not None and found.artefact.shape == (40, 8, 8, 3)
    assert set(found.artefact.flat) == {191}  # 0.25 / scale = 0.5


def test_other_metrics_keep_nothing() -> None:
    p = protocol(metric={"name": "frechet", "features": "pixel"}, samples=100)
    assert pictures(torch.randn(100, 1, 8, 8), p).artefact is None
