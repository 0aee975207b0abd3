"""Measuring checkpoints of one trajectory."""

from __future__ import annotations

from collections.abc import Callable

from meanflow_core.config import Checkpoint, Weights
from meanflow_core.data.base import DataSet
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.evaluate import evaluate
from meanflow_core.trainer import build_network
from results.layout import Home
from sweeps.attempt import Attempt, recorded_evaluations
from sweeps.device import choose_device
from sweeps.jobs import Job, Progress, ShouldStop, Status, WantedEvaluation
from sweeps.program.sampling import Interrupted, ProgramContext
from sweeps.weights import load_weights


class Evaluating:
    """Measures checkpoints of one trajectory, step by step."""

    def __init__(self, attempt: Attempt, home: Home, job: Job, progress: Progress, should_stop: ShouldStop) -> None:
        self.attempt, self.home, self.job = attempt, home, job
        self.progress, self.should_stop = progress, should_stop
        self.first_step, self.last_step = job.start_step, job.stop_step

    def seconds_per_step(self) -> float | None:
        return None

    def run(self) -> tuple[Status, str | None]:
        job = self.job
        recorded = recorded_evaluations(self.attempt.trajectory)  # e.g. by an attempt that was killed later
        missing = [wanted for wanted in job.evaluations if wanted.evaluation not in recorded]
        if not missing:
            return "done", None
        context_at = self._contexts(job.dynamics.data.build())
        groups: dict[tuple[int, Weights], list[WantedEvaluation]] = {}
        for wanted in missing:
            groups.setdefault((wanted.step, wanted.protocol.weights), []).append(wanted)
        done = len(job.evaluations) - len(missing)
        for (step, weights), group in sorted(groups.items()):
            if self.should_stop():
                return "preempted", f"stopped on request before step {step}"
            try:
                found = evaluate(context_at(Checkpoint(job.trajectory, step), weights), [w.protocol for w in group])
            except Interrupted:
                return "preempted", f"stopped on request at step {step}"
            for w in group:
                self.attempt.evaluated(w, *found[w.protocol.key])
            done += len(group)
            self.progress(done)
        return "done", None

    def _contexts(self, data: DataSet) -> Callable[[Checkpoint, Weights], EvaluationContext]:
        """What makes the context of a checkpoint; networks of ours are built once and get its weights."""
        job = self.job
        if job.dynamics.trainer is not None:
            log, stop = self.attempt.log_path, self.should_stop
            how = (log, job.device, job.threads, stop)
            return lambda at, weights: ProgramContext(self.home, at, job.dynamics, job.seed, weights, data, *how)
        device = choose_device(job.device)
        network = build_network(job.dynamics, data, job.seed, device).eval()

        def context(at: Checkpoint, weights: Weights) -> EvaluationContext:
            load_weights(network, self.attempt.trajectory, at, weights, device)
            return EvaluationContext(network, data, device)

        return context
