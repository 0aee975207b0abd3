"""Time of a task-affinity probe beside the least that it can cost, and what its float64 inner products are worth.

    python benchmarks/affinity.py
    python benchmarks/affinity.py --network nano/4 --points 1000

A probe takes, on two sets of N points, the gradients of the v-loss (3F a point, F one forward pass of the network) and
of the u-losses on four ranges of gaps (4F each): 38·N·F in all. F is timed as a forward pass over N points without a
graph, in chunks of the probe's size; forward passes and probes are interleaved, and the ratio is the median over
repetitions of the ratio within one. The theory counts products only: small networks spend much of their time elsewhere.

The gradients' inner products are taken in float64. The last lines say how far a cosine is off that is taken with one
float32 dot product of the same gradients.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch
from torch import Tensor

from meanflow_core import affinity
from meanflow_core.config import Dynamics, Protocol
from meanflow_core.hooks import Batch, Situation
from meanflow_core.samplers import in_batches
from meanflow_core.trainer import Trainer

RANGES = ((0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9))
QUANTITIES = ("mean_gradient", "ceiling")
FORWARDS = len(affinity.SETS) * (3 + 4 * len(RANGES))
NETWORKS = {  # of the scale cpu, and two transformers
    "mlp": {"name": "mlp", "width": 96, "depth": 3},
    "nano/4": {"name": "dit", "size": "nano/4"},
    "nano/2": {"name": "dit", "size": "nano/2"},
}


def make(args: argparse.Namespace) -> tuple[Trainer, list[Protocol]]:
    """A trainer on the digits after some steps, and the protocols of one probe."""
    dynamics = Dynamics.model_validate(
        {
            "network": NETWORKS[args.network],
            "data": "digits",
            "batch_size": 128,
            "optimiser": {"name": "adam", "lr": 1e-3},
            "precision": args.precision,
        }
    )
    trainer = Trainer(dynamics, seed=0, device=args.device)
    for _ in range(args.train_steps):
        trainer.advance()
    metrics = [
        {"name": "task_affinity", "lo": lo, "hi": hi, "quantity": quantity}
        for lo, hi in RANGES
        for quantity in QUANTITIES
    ]
    common = {"samples": args.points, "weights": "online", "reference": "digits"}
    return trainer, [Protocol.model_validate({"metric": metric, **common}) for metric in metrics]


def situation_of(trainer: Trainer) -> Situation:
    return Situation(
        trainer.network, trainer.data, trainer.objective, trainer.times, trainer.seed, trainer.step, trainer.device
    )


def forward(trainer: Trainer, b: Batch) -> None:
    """One forward pass over all points, without a graph, at the trainer's precision."""
    bf16 = trainer.dynamics.precision == "bf16"
    with torch.no_grad(), torch.autocast(trainer.device.type, dtype=torch.bfloat16, enabled=bf16):
        in_batches(trainer.network, b.z, b.r, b.t, b.y, batch_size=affinity.MAX_POINTS)


def seconds(call: Callable[[], object], cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def dot_errors(trainer: Trainer, protocols: list[Protocol]) -> Tensor:
    """|cosine by one float32 dot − cosine by the float64 Gram matrix|, (sets, ranges)."""
    situation, tasks = situation_of(trainer), [affinity.Task()]
    tasks += [affinity.tasks_of(p)[1] for p in protocols[:: len(QUANTITIES)]]
    errors = []
    for name in affinity.SETS:
        batches = affinity.draw_points(situation, protocols[0], name, [task.gap for task in tasks])
        gradients = [affinity.gradient(situation, batches[task.gap]) for task in tasks]
        v, *us = (torch.cat([g.flatten() for g in gradient]) for gradient in gradients)
        single = torch.stack([v @ u / (v.norm() * u.norm()) for u in us]).double().cpu()
        errors.append((single - affinity.cosines(affinity.gram(gradients))[0, 1:]).abs())
    return torch.stack(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a task-affinity probe beside the least that it can cost.")
    parser.add_argument("--network", default="mlp", choices=list(NETWORKS))
    parser.add_argument("--points", type=int, default=5000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--train-steps", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=9, help="interleaved repetitions")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trainer, protocols = make(args)
    points = affinity.draw_points(situation_of(trainer), protocols[0], "A", [None])[None]
    cuda = trainer.device.type == "cuda"
    times = [
        (seconds(lambda: forward(trainer, points), cuda), seconds(lambda: trainer.measure(protocols), cuda))
        for _ in range(args.repeat + 1)
    ][1:]  # the first warms up
    passes, probes = zip(*times, strict=True)
    low, middle, high = quantiles(probes, n=4)
    ratio = median(probe / (FORWARDS * one) for one, probe in times)
    where = torch.cuda.get_device_name() if cuda else f"CPU, {args.threads} thread(s)"
    print(
        f"{args.network}, N = {args.points}, {len(RANGES)} ranges, {len(affinity.SETS)} sets, {args.precision}, "
        f"{where}, torch {torch.__version__}, {args.repeat} repetitions, load {os.getloadavg()[0]:.1f}\n"
    )
    print(f"forward pass over N points   {median(passes):.4f} s")
    print(f"probe                        {middle:.3f} s (quartiles {low:.3f}–{high:.3f})")
    print(f"probe / ({FORWARDS} forward passes)   {ratio:.2f}")
    errors = dot_errors(trainer, protocols)
    print(f"error of a cosine by one float32 dot: largest {errors.max():.1e}, mean {errors.mean():.1e}")


if __name__ == "__main__":
    main()
