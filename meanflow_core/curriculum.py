"""Denoising-task-difficulty curriculum (Sec. 5, Eq. 9): from the noisiest times, the easiest, to all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from meanflow_core.components import DTDParams
from meanflow_core.hooks import Transform
from meanflow_core.objectives import Terms
from meanflow_core.registry import BuildContext
from meanflow_core.times import TimeSampler


def stage_bounds(params: DTDParams, times: TimeSampler) -> list[float]:
    """a_1 > ... > a_N = 0: stage n trains on t ≥ a_n. Raises: ValueError where t ≥ a_1 has no mass."""
    n = params.clusters
    shares = [1 - stage / n for stage in range(1, n)]
    bounds = [*(shares if params.spacing == "uniform" else map(times.quantile, shares)), 0.0]
    if times.cdf(bounds[0]) == 1:
        raise ValueError(
            f"no time is drawn in the first of {n} clusters, t ≥ {bounds[0]:g}: use fewer, or spacing: equal_mass"
        )
    return bounds


class DTD(Transform):
    """Holds t above a_n, and goes on to stage n + 1 once the v-loss has not improved for ``patience`` steps in a row.

    Its pace is that of the raw ‖e‖² of the rows that train v: after adaptive normalisation the loss is about 1 always.
    State: the stage n (from 1), the best loss of the stage, and the steps since.
    """

    def __init__(self, params: DTDParams, context: BuildContext) -> None:
        self.patience = params.patience
        self.bounds = stage_bounds(params, context.facts["times"])
        self.stage, self.best, self.stale = 1, float("inf"), 0

    def t_above(self, step: int) -> float:
        return self.bounds[self.stage - 1]

    def after_step(self, step: int, terms: Terms) -> dict[str, float]:
        if self.stage == len(self.bounds):
            return {}
        loss = float(terms.v_mse)
        self.best, self.stale = (loss, 0) if loss < self.best else (self.best, self.stale + 1)
        if self.stale < self.patience:
            return {}
        self.stage, self.best, self.stale = self.stage + 1, float("inf"), 0
        return self.logged()

    def logged(self) -> dict[str, float]:
        return {"dtd_stage": float(self.stage), "dtd_t_above": self.bounds[self.stage - 1]}

    def state_dict(self) -> dict[str, Tensor]:
        pace = [self.stage, self.best, self.stale, len(self.bounds)]
        return {"pace": torch.tensor(pace, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        stage, self.best, stale, *stages = state["pace"].tolist()  # without their number in checkpoints of old
        if stages not in ([], [len(self.bounds)]) or not 1 <= stage <= len(self.bounds):
            of = f" of {stages[0]:g}" if stages else ""
            raise ValueError(f"the checkpoint is at stage {stage:g}{of}; this curriculum has {len(self.bounds)}")
        self.stage, self.stale = int(stage), int(stale)
