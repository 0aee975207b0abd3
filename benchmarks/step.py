"""Time of a training step beside flow matching's and beside the usual MeanFlow step.

    python benchmarks/step.py --network mlp
    python benchmarks/step.py --network B/4 --batch 256 --device cuda --precision bf16

Four ways to take one step's loss and gradient on the same network and batch:

    flow matching            every row trains v
    ours                     split batch, du/dt by dual numbers
    split, torch.func.jvp    split batch, du/dt by torch.func.jvp
    full, torch.func.jvp     torch.func.jvp over the whole batch, rows with r = t included

The optimiser's step is the same for all and left out. Repetitions are interleaved, and each ratio is the median over
repetitions of the ratio within one, so a machine that slows down for a while slows all alike.

The theoretical cost counts F, one forward pass of the network a row: backward is 2F, so a row of v is 3F; a row of
u is 4F with one product a weight for the tangent, and 5F where torch.func.jvp forms one more with the weight's zero
tangent. It counts products only: small networks spend much of their time elsewhere.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

from meanflow_core.components import DIT_SIZES
from meanflow_core.hooks import Batch
from meanflow_core.interpolant import squared_norm
from meanflow_core.jvp import generic_jvp
from meanflow_core.objectives import MeanFlow, u_error, v_error
from meanflow_core.registry import parse_spec
from meanflow_core.weights import adaptive_weight

# The network of the scale cpu.
MLP_DIGITS = {"name": "mlp", "width": 96, "depth": 3}


def make(network: str, batch: int, device: str) -> tuple[nn.Module, Callable[[float], Batch]]:
    """The network with random weights, and a batch for any fm_ratio."""
    small = network == "mlp" or network.startswith("nano")
    shape, classes = ((1, 8, 8), 10) if small else ((4, 32, 32), 1000)
    spec = MLP_DIGITS if network == "mlp" else {"name": "dit", "size": network}
    torch.manual_seed(0)
    net: nn.Module = parse_spec("network", spec).build(shape=shape, num_classes=classes).to(device)
    with torch.no_grad():
        for p in net.parameters():
            if not bool(p.any()):  # adaLN's zeros
                nn.init.normal_(p, std=0.02)
    x, eps = torch.randn(2, batch, *shape, device=device)
    r, t = torch.rand(2, batch, device=device).sort(0).values
    y = torch.randint(classes, (batch,), device=device)

    def at(ratio: float) -> Batch:
        n = round(ratio * batch)
        return Batch(x, eps, torch.cat([t[:n], r[n:]]), t, y, n)

    return net, at


def our_loss(objective: MeanFlow, net: nn.Module, b: Batch) -> Tensor:
    """The trainer's own loss. At fm_ratio 1 it is flow matching's."""
    return objective.terms(net, b).loss.mean()


def split_loss(net: nn.Module, b: Batch) -> Tensor:
    """Our loss with torch.func.jvp instead of dual numbers."""
    n, z, v_t, y = b.v_rows, b.z, b.v_t, b.y
    assert y is not None
    errors = []
    if n:
        errors.append(squared_norm(v_error(net(z[:n], b.t[:n], b.t[:n], y[:n]), v_t[:n])))
    if n < len(z):
        errors.append(squared_norm(u_error(net, z[n:], b.r[n:], b.t[n:], y[n:], v_t[n:], generic_jvp)))
    squared = torch.cat(errors)
    return (adaptive_weight(squared, 0.01, 1.0) * squared).mean()


def full_loss(net: nn.Module, b: Batch) -> Tensor:
    """The usual step: every row's du/dt, although delta_t = 0 cancels it on most."""
    squared = squared_norm(u_error(net, b.z, b.r, b.t, b.y, b.v_t, generic_jvp))
    return (adaptive_weight(squared, 0.01, 1.0) * squared).mean()


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """name → seconds of each repetition, peak bytes and F a row."""
    net, at = make(args.network, args.batch, args.device)
    objective = MeanFlow(parse_spec("objective", "meanflow").params)  # type: ignore[arg-type]
    mixed, fm = at(args.fm_ratio), at(1.0)
    steps: dict[str, tuple[Callable[[], Tensor], float]] = {
        "flow matching": (lambda: our_loss(objective, net, fm), 3.0),
        "ours": (lambda: our_loss(objective, net, mixed), 4 - args.fm_ratio),
        "split, torch.func.jvp": (lambda: split_loss(net, mixed), 5 - 2 * args.fm_ratio),
        "full, torch.func.jvp": (lambda: full_loss(net, mixed), 5.0),
    }
    cuda = torch.device(args.device).type == "cuda"
    autocast = torch.autocast(args.device, dtype=torch.bfloat16) if args.precision == "bf16" else nullcontext()
    torch.set_float32_matmul_precision("high" if args.precision == "tf32" else "highest")

    def once(loss: Callable[[], Tensor]) -> float:
        net.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(args.inner):
            with autocast:
                value = loss()
            value.backward()
            net.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / args.inner

    out: dict[str, dict[str, Any]] = {name: {"seconds": [], "F": f} for name, (_, f) in steps.items()}
    for name, (loss, _) in steps.items():
        for _ in range(args.warm_up):
            once(loss)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            once(loss)
            out[name]["peak"] = torch.cuda.max_memory_allocated()
    names = list(steps)
    for i in range(args.steps):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            out[name]["seconds"].append(once(steps[name][0]))
    return out


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: time, its ratios, and the theoretical ratios in parentheses."""

    def ratio(name: str, to: str) -> str:
        pairs = zip(results[name]["seconds"], results[to]["seconds"], strict=True)
        return f"{median(a / b for a, b in pairs):.2f} ({results[name]['F'] / results[to]['F']:.2f})"

    peaks = any("peak" in row for row in results.values())
    head = ["step", "ms (quartiles)", "F a row", "to flow matching", "to full func.jvp"] + ["peak GiB"] * peaks
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in results.items():
        low, middle, high = (1e3 * q for q in quantiles(row["seconds"], n=4))
        cells = [
            name,
            f"{middle:.2f} ({low:.2f}–{high:.2f})",
            f"{row['F']:.2f}",
            ratio(name, "flow matching"),
            ratio(name, "full, torch.func.jvp"),
        ] + [f"{row.get('peak', 0) / 2**30:.2f}"] * peaks
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a training step beside flow matching's.")
    parser.add_argument("--network", default="mlp", choices=["mlp", *DIT_SIZES])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fm-ratio", type=float, default=0.75)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--steps", type=int, default=40, help="interleaved repetitions")
    parser.add_argument("--inner", type=int, default=1, help="steps timed together in a repetition")
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = measure(args)
    where = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {args.threads} thread(s)"
    print(
        f"{args.network}, batch {args.batch}, fm_ratio {args.fm_ratio:g}, {args.precision}, {where}, torch "
        f"{torch.__version__}, {args.steps} repetitions, load {os.getloadavg()[0]:.1f}. Ratios: measured (theory).\n"
    )
    print(table(results))


if __name__ == "__main__":
    main()
