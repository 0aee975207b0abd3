"""What true errors cost: the share of a study's time that goes into comparing with the exact fields.

    python benchmarks/oracle.py

Trains as the scale `truth` does and measures after every 10 epochs of 40 steps, as it does: distances, and the errors
of v and of u by Δt. The exact values are found once a process and then kept, so what the first evaluation takes more
than later ones is spread over the points that a process measures. KID is measured once a stage of 60 epochs.
"""

from __future__ import annotations

import argparse
import os
from statistics import median
from time import perf_counter
from typing import Any

import torch

from meanflow_core.config import Dynamics, Protocol
from meanflow_core.evaluation.evaluate import evaluate
from meanflow_core.trainer import Trainer

DYNAMICS: dict[str, Any] = {
    "network": {"name": "mlp", "width": 96, "depth": 3},
    "data": "gmm",
    "batch_size": 128,
    "fm_ratio": 0.0,
    "optimiser": {"name": "adam", "lr": 0.002, "beta2": 0.99, "warmup_steps": 50, "clip_norm": 1.0},
    "ema_decay": 0.995,
}
GAPS = ((0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (1.0, 1.0))
DISTANCES: list[Any] = [
    {"name": "frechet", "features": "pixel"},
    {"name": "frechet", "features": "digits_cnn"},
    {"name": "kid", "features": "digits_cnn"},
]
TRUTH: list[Any] = ["v_error", *({"name": "u_error", "lo": lo, "hi": hi} for lo, hi in GAPS)]
STEPS = 400  # between two evaluations
KID_EVERY = 6  # evaluations


def measure(rounds: int) -> list[dict[str, float]]:
    """Seconds of training and, by metric label, of each protocol, in a first round and in so many later ones."""
    trainer = Trainer(Dynamics.model_validate(DYNAMICS), seed=0)
    protocols = [Protocol(metric=metric, reference="gmm") for metric in DISTANCES + TRUTH]
    out = []
    for _ in range(1 + rounds):
        began = perf_counter()
        for _ in range(STEPS):
            trainer.advance()
        row = {"training": perf_counter() - began}
        found = evaluate(protocols, trainer.network, trainer.data)
        out.append(row | {p.metric_label: found[p.key].seconds for p in protocols})
    return out


def summary(rows: list[dict[str, float]], points: int) -> tuple[dict[str, float], float]:
    """Seconds a point, and those that finding the exact values took: what the first round took more than the median of
    the others. That excess, of all metrics, is spread over the points."""
    first, later = rows[0], rows[1:]
    usual = {name: median(row[name] for row in later) for name in first}
    excess = {name: max(first[name] - usual[name], 0.0) for name in first if name != "training"}
    seconds = {name: usual[name] + excess.get(name, 0.0) / points for name in first}
    seconds["kid_digits_cnn"] /= KID_EVERY
    return seconds, sum(s for name, s in excess.items() if "error" in name)


def main() -> None:
    parser = argparse.ArgumentParser(description="The share of a study's time that true errors take.")
    parser.add_argument("--rounds", type=int, default=5, help="of training and evaluation, after the first")
    parser.add_argument("--points", type=int, default=37, help="evaluations a process; by default those of 370 epochs")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seconds, once = summary(measure(args.rounds), args.points)
    truth, total = sum(s for name, s in seconds.items() if "error" in name), sum(seconds.values())
    where = f"CPU, {args.threads} thread(s), torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    print(f"{where}, {args.rounds} rounds\n\n| | s a point | share |\n|---|---|---|")
    for name, s in seconds.items():
        print(f"| {name} | {s:.3f} | {s / total:.1%} |")
    print(f"\nTrue errors: {truth:.3f} s a point, {truth / total:.2%} of training and evaluation.")
    print(f"Finding the exact values took {once:.2f} s, spread over {args.points} points.")


if __name__ == "__main__":
    main()
