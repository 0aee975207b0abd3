"""Timing real training steps, so that plans can state hours."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import torch

from meanflow_core.config import Dynamics
from meanflow_core.flops import step_flops
from meanflow_core.trainer import Trainer
from results.layout import FORMAT, Home
from sweeps.attempt import write_atomically
from sweeps.device import choose_device, device_name
from sweeps.jobs import now

# Each network in the size that the small scales use, and a transformer large enough to be bound by arithmetic.
CASES: dict[str, dict[str, Any]] = {
    "mlp": {"network": {"name": "mlp", "width": 96, "depth": 3}, "data": "digits", "batch_size": 128},
    "dit": {"network": {"name": "dit", "depth": 4, "width": 256, "heads": 4, "patch": 2}, "data": "digits",
            "batch_size": 32},
}  # fmt: skip
WARM_UP, STEPS = 5, 30


def _useful_flops_per_s(case: dict[str, Any], device: torch.device) -> float:
    dynamics = Dynamics.model_validate({**case, "fm_ratio": 0.75})
    trainer = Trainer(dynamics, 0, device=device)
    times = []
    for i in range(WARM_UP + STEPS):
        began = time.perf_counter()
        trainer.advance()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if i >= WARM_UP:
            times.append(time.perf_counter() - began)
    flops = step_flops(dynamics)
    assert flops is not None
    return flops / statistics.median(times)


def calibrate(home: Home) -> dict[str, Any]:
    """Time steps of every built-in network on this machine, with one thread on a CPU, and write ``calibration.json``.

    Returns: the record written.
    """
    device = choose_device("auto")
    torch.set_num_threads(1)
    record = {
        "format": FORMAT,
        "calibrated": now(),
        "device": device_name(device) + (", one thread" if device.type == "cpu" else ""),
        "flops_per_s": {name: _useful_flops_per_s(case, device) for name, case in CASES.items()},
    }
    home.root.mkdir(parents=True, exist_ok=True)
    write_atomically(home.calibration, json.dumps(record, indent=1))
    return record
