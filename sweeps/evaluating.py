"""Measuring checkpoints of one trajectory."""

from __future__ import annotations

from meanflow_core.config import Checkpoint, Weights
from meanflow_core.data.base import DataSet
from meanflow_core.evaluation.evaluate import evaluate
from meanflow_core.trainer import build_network
from sweeps.attempt import Attempt, recorded_evaluations
from sweeps.device import choose_device
from sweeps.jobs import Job, Progress, ShouldStop, Status, WantedEvaluation
from sweeps.weights import load_weights


class Evaluating:
    """Measures checkpoints of one trajectory, step by step."""

    def __init__(self, attempt: Attempt, job: Job, progress: Progress, should_stop: ShouldStop) -> None:
        self.attempt, self.job, self.progress, self.should_stop = attempt, job, progress, should_stop
        self.first_step, self.last_step = job.start_step, job.stop_step

    def seconds_per_step(self) -> float | None:
        return None

    def run(self) -> tuple[Status, str | None]:
        job, device = self.job, choose_device(self.job.device)
        recorded = recorded_evaluations(self.attempt.trajectory)  # e.g. by an attempt that was killed later
        missing = [wanted for wanted in job.evaluations if wanted.evaluation not in recorded]
        if not missing:
            return "done", None
        data: DataSet = job.dynamics.data.build()
        network = build_network(job.dynamics, data, job.seed, device).eval()
        groups: dict[tuple[int, Weights], list[WantedEvaluation]] = {}
        for wanted in missing:
            groups.setdefault((wanted.step, wanted.protocol.weights), []).append(wanted)
        done = len(job.evaluations) - len(missing)
        for (step, weights), group in sorted(groups.items()):
            if self.should_stop():
                return "preempted", f"stopped on request before step {step}"
            load_weights(network, self.attempt.trajectory, Checkpoint(job.trajectory, step), weights, device)
            found = evaluate([w.protocol for w in group], network, data, device)
            for w in group:
                self.attempt.evaluated(w, *found[w.protocol.key])
            done += len(group)
            self.progress(done)
        return "done", None
