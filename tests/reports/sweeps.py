"""Sweeps with known effects: the tiny sweep of `tests/assets`, measured by a formula."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studies.arms import Arm, Point
from studies.loader import load_source, resolve

from .synthetic import Case, kept, measured, noisy

SWEEP = Path(__file__).parent.parent / "assets" / "sweep.yaml"
LIKE_TABLE_4 = (
    "claims=[]", "sweep.space.lr=[0.5, 1, 2, 3]", 'sweep.arm_name="k{lr:g}"', "paper.tables=[4]",
    "panels.wide.arms.method=[meanflow]", "panels.narrow.arms.method=[meanflow]", "figure.reference=meanflow",
    "table={row: '{arm}', reference: meanflow, columns: [{id: fid_1nfe, label: FID}]}", "figure.paper_column=fid_1nfe",
    "paper_values=true",
)  # fmt: skip


@kept
def tiny_sweep(
    seeds: Sequence[int] = range(6), overrides: Sequence[str] = (), noise: float = 0.02, best: float = 0.002
) -> Case:
    """One learning rate is best, and every factor of 2 away from it costs as much again as it has itself in a half;
    the reference lies between, the control above all. In the panel ``narrow`` all is a tenth worse."""
    resolved = resolve(load_source(str(SWEEP)), "cpu", overrides, list(seeds)).model_copy(update={"meaningless": False})

    def value(arm: Arm, p: Point) -> float:
        rate = arm.attributes.get("lr")
        size = 15.0 if rate is None else 10.0 + 5.0 * abs(np.log2(float(rate) / best))
        size = 40.0 if arm.control else size
        return (size * (1.1 if arm.panel == "narrow" else 1.0) + 100.0 * float(np.exp(-p.epoch))) * noisy(arm, p, noise)

    return resolved, *measured(resolved, value)
