"""Train the digits feature extractor that ``meanflow_core/evaluation`` ships: some ten seconds on one CPU
core.

    python scripts/make_digits_cnn.py

Deterministic on one machine and torch build. Writes digits_cnn.safetensors and, beside it, digits_cnn.json
with the accuracy on the held-out quarter of the digits. Every feature distance depends on these weights:
making them anew makes old values incomparable, so the version of the metrics must then be raised.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import cross_entropy

from meanflow_core.data.digits import digits
from meanflow_core.evaluation.extractor import (
    CARD,
    HELD_OUT,
    SPLIT_SEED,
    WEIGHTS,
    DigitsCNN,
    accuracy,
    held_out_split,
)

SEED = 0
EPOCHS = 60
BATCH = 64
LR = 2e-3
WEIGHT_DECAY = 1e-2
NOISE = 0.15  # generated images are never quite clean; features should not jump at a little noise


def train(rows: Tensor) -> DigitsCNN:
    """AdamW with a one-cycle learning rate on the given digits, with additive noise."""
    torch.manual_seed(SEED)
    network = DigitsCNN()
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * (len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=LR, total_steps=steps)
    x, y = digits()
    for _ in range(EPOCHS):
        order = rows[torch.randperm(len(rows))]
        for batch in torch.split(order[: len(rows) // BATCH * BATCH], BATCH):
            noisy = x[batch] + NOISE * torch.randn(x[batch].shape)
            loss = cross_entropy(network(noisy), y[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.requires_grad_(False).eval()


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_rows, held_out = held_out_split()
    network = train(train_rows)
    network.feature_scale.copy_(network.activations(digits()[0]).var(0).mean().rsqrt())
    blob = save(network.state_dict())
    card = {
        "script": "scripts/make_digits_cnn.py",
        "sha256": hashlib.sha256(blob).hexdigest(),
        "held_out_accuracy": accuracy(network, held_out),
        "train_accuracy": accuracy(network, train_rows),
        "held_out_images": len(held_out),
        "held_out_fraction": HELD_OUT,
        "split": f"stratified, train_test_split(random_state={SPLIT_SEED})",
        "seed": SEED,
        "epochs": EPOCHS,
        "versions": {name: version(name) for name in ("torch", "scikit-learn")},
    }
    WEIGHTS.write_bytes(blob)
    CARD.write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
