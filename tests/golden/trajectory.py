"""The first steps of some small trajectories on the digits, as numbers.

    python -m tests.golden.trajectory           says how far today's numbers are from the file's
    python -m tests.golden.trajectory --write   writes the file anew

Write it anew only for a change that is meant to change training, and give what changed a new version: otherwise
old checkpoints and new ones would stand under the same key.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from meanflow_core.config import Dynamics
from meanflow_core.registry import parse_spec
from meanflow_core.trainer import Trainer

PATH = Path(__file__).with_suffix(".json")
STEPS = 20
RTOL = 1e-5

MLP: dict[str, Any] = {
    "network": {"name": "mlp", "width": 32, "depth": 2},
    "data": "digits",
    "batch_size": 32,
    "fm_ratio": 0.75,
    "label_dropout": 0.1,
    "ema_decay": 0.9,
    "optimiser": {"name": "adam", "lr": 2e-3, "warmup_steps": 5, "clip_norm": 10.0},
}
FALLING = {"name": "progressive_weight", "schedule_power": 2.0}
RISING = {"name": "progressive_weight", "schedule": "rising"}

DYNAMICS: dict[str, dict[str, Any]] = {
    "mlp": MLP,
    "dit": {
        "network": {"name": "dit", "size": "nano/4"},
        "data": "digits",
        "batch_size": 16,
        "fm_ratio": 0.5,
        "ema_decay": 0.9,
        "optimiser": {"name": "adam", "lr": 2e-3},
    },
    "min_snr": {**MLP, "transforms": ["min_snr", FALLING]},
    "min_snr_fm": {**MLP, "transforms": [{"name": "min_snr", "reading": "flow_matching", "normalise": True}, RISING]},
    "dtd": {**MLP, "fm_ratio": 0.5, "transforms": [{"name": "dtd", "clusters": 4, "patience": 1}, FALLING]},
    "uniform": {**MLP, "time_sampler": "uniform", "transforms": [{"name": "dtd", "clusters": 3, "patience": 2}]},
    "guided": {**MLP, "fm_ratio": 0.5, "guidance": {"cfg_omega": 1.0, "cfg_kappa": 0.5, "hi": 0.8}},
    "guided_u": {**MLP, "fm_ratio": 0.0, "guidance": {"effective_omega": 2.5, "cfg_kappa": 0.92}},
}


def run(name: str) -> dict[str, list[float]]:
    """Everything logged at each step, and at the end the norms of the weights."""
    dynamics = Dynamics.model_validate(DYNAMICS[name])
    trainer = Trainer(dynamics, seed=0, horizon_steps=STEPS, observers=[parse_spec("observer", "grad_norm")])
    rows = [trainer.advance(log=True) for _ in range(STEPS)]
    out = {key: [row[key] for row in rows] for key in sorted(rows[0])}
    for part in ("online", "ema"):
        out[f"norms_{part}"] = [float(w.double().norm()) for w in trainer.parts()[part].values()]
    return out


def load() -> dict[str, dict[str, list[float]]]:
    golden: dict[str, dict[str, list[float]]] = json.loads(PATH.read_text())
    return golden


def main() -> int:
    parser = argparse.ArgumentParser(description="The first steps of some small trajectories, as numbers.")
    parser.add_argument("--write", action="store_true", help=f"write {PATH.name} anew")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    now = {name: run(name) for name in DYNAMICS}
    if PATH.exists():
        golden = load()
        for name, rows in now.items():
            for key, values in rows.items():
                pairs = zip(values, golden.get(name, {}).get(key, []), strict=False)
                worst = max((abs(a - b) / max(abs(b), 1e-12) for a, b in pairs), default=float("nan"))
                print(f"{name:10} {key:12} largest relative difference {worst:.1e}")
    if write:
        PATH.write_text(json.dumps(now, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
