"""A small convolutional classifier of 8×8 digits whose penultimate activations are a feature space.

Inception's features mean nothing on 8×8 images; these play their part at small scales. Images go in as floats
(N, 1, 8, 8) in [−1, 1]: rounding samples to 8 bits, as pipelines for photographs do, would throw away what
little there is. The weights are shipped and made by ``scripts/make_digits_cnn.py``.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from meanflow_core.data.digits import NUM_CLASSES, SHAPE, digits

WEIGHTS = Path(__file__).with_name("digits_cnn.safetensors")
CARD = Path(__file__).with_name("digits_cnn.json")
FEATURES = 64
SPLIT_SEED = 0
HELD_OUT = 0.25


class DigitsCNN(nn.Module):
    """Three convolutions and one hidden layer; SiLU throughout, so that no unit is ever dead.

    Features are the hidden layer's activations times ``feature_scale``, one number chosen such that the
    features of the digits have a mean variance of 1 (a Fréchet distance scales with its square).
    """

    feature_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * 4 * 4, FEATURES)
        self.head = nn.Linear(FEATURES, NUM_CLASSES)
        self.register_buffer("feature_scale", torch.ones(()))

    def activations(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = silu(conv(x))
        return silu(self.hidden(x.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (N, 10) of images (N, 1, 8, 8)."""
        logits: Tensor = self.head(self.activations(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Scaled penultimate activations (N, 64) of images (N, 1, 8, 8).

        Raises: ValueError for images of another shape.
        """
        if tuple(x.shape[1:]) != SHAPE:
            raise ValueError(f"digits_cnn takes images of shape {SHAPE}, not {tuple(x.shape[1:])}")
        return self.activations(x) * self.feature_scale


def held_out_split() -> tuple[Tensor, Tensor]:
    """Indices of the digits that the shipped network was trained on and of those it never saw, by class."""
    from sklearn.model_selection import train_test_split

    labels = digits()[1].numpy()
    train, test = train_test_split(range(len(labels)), test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=labels)
    return torch.tensor(train), torch.tensor(test)


@torch.no_grad()
def accuracy(network: DigitsCNN, rows: Tensor) -> float:
    """Fraction of the given digits that the network classifies correctly."""
    x, y = digits()
    return float((network(x[rows]).argmax(1) == y[rows]).double().mean())


@cache
def load_digits_cnn() -> DigitsCNN:
    """The shipped network, on the CPU, frozen, its weights verified; loaded once a process.

    Raises: RuntimeError if the weights' sha256 is not the one that digits_cnn.json records.
    """
    from safetensors.torch import load

    blob = WEIGHTS.read_bytes()
    found, expected = hashlib.sha256(blob).hexdigest(), json.loads(CARD.read_text())["sha256"]
    if found != expected:
        raise RuntimeError(f"{WEIGHTS.name} has sha256 {found}, but {CARD.name} records {expected}")
    network = DigitsCNN()
    network.load_state_dict(load(blob))
    return network.eval().requires_grad_(False)
