"""Training a segment: resume at the nearest checkpoint that is there, step, save what the job names."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from pathlib import Path

from meanflow_core.checkpoint import Parts, load_checkpoint, publish, write_checkpoint
from meanflow_core.config import Checkpoint
from meanflow_core.ranks import Ranks
from meanflow_core.trainer import ALONE, Trainer
from results.layout import Home
from sweeps.attempt import Attempt
from sweeps.device import choose_device
from sweeps.jobs import Job, Progress, ShouldStop, Status
from sweeps.rolling import Pace
from sweeps.segment import Segment


def new_trainer(job: Job, ranks: Ranks) -> Trainer:
    """The trainer of a job, on this rank."""
    return Trainer(
        job.dynamics,
        job.seed,
        horizon_steps=job.horizon_steps,
        device=choose_device(job.device),
        observers=job.observers,
        divergence=job.divergence,
        ranks=ranks,
    )


def restore(trainer: Trainer, home: Home, job: Job, at: Checkpoint | None) -> None:
    """Take over a checkpoint: the trajectory's own, or its parent's to branch from; None is its beginning."""
    if at is not None:
        folder = home.trajectory(at.trajectory).checkpoint(at.step)
        loaded = load_checkpoint(folder, device=trainer.device, expect=at._asdict())
        trainer.restore(loaded.parts, at.step, branch=at.trajectory != job.trajectory)


def kept(job: Job, step: int, first_step: int) -> bool:
    """Whether weights may be published at a step, so that all ranks must look at theirs."""
    every = job.checkpoint_every_steps
    periodic = every is not None and step % every == 0 and step > first_step
    return periodic or step in job.full_steps or step in job.snapshot_steps


class Training(Segment):
    """Trains (start, stop], saving what the job names; resumes at the nearest checkpoint that is there."""

    def __init__(
        self,
        attempt: Attempt,
        home: Home,
        job: Job,
        progress: Progress,
        should_stop: ShouldStop,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(attempt, home, job, progress, should_stop)
        self.ranks = ranks
        self.pace = Pace(job.rolling_s)
        self._times: list[float] = []

    def seconds_per_step(self) -> float | None:
        return round(statistics.median(self._times), 6) if self._times else None

    def run(self) -> tuple[Status, str | None]:
        job = self.job
        self.clear_up()
        trainer = new_trainer(job, self.ranks)
        at = self.begin()
        self.ranks.tell(json.dumps(at))
        restore(trainer, self.home, job, at)
        self.first_step = self.last_step = trainer.step
        self._keep(trainer)
        while trainer.step < job.stop_step:
            begun = trainer.step > self.first_step
            stop, save = self.ranks.agree(self.should_stop(), begun and self.pace.due())  # by the first rank's clock
            if stop:
                if begun:
                    trainer.check()
                    self._save_full(trainer)
                return "preempted", f"stopped on request at step {trainer.step}"
            if save:
                trainer.check()
                self._save_rolling(trainer)
            self._advance(trainer)
            self._keep(trainer)
            self.progress(trainer.step)
        self.roll(None)
        return "done", None

    def _advance(self, trainer: Trainer) -> None:
        began = time.perf_counter()
        log_now = (trainer.step + 1) % self.job.log_every_steps == 0
        values = trainer.advance(log_now)
        self.last_step = trainer.step
        if values:
            self.attempt.metrics(trainer.step, values)
        if len(self._times) < 1000:
            self._times.append(time.perf_counter() - began)

    def _observe(self, trainer: Trainer) -> None:
        """Record what observers are to measure at this step."""
        group = self.observe.pop(trainer.step, [])
        if not group:
            return
        began = time.perf_counter()
        found = trainer.measure([wanted.protocol for wanted in group])
        seconds = (time.perf_counter() - began) / len(group)
        if found.details:
            self.attempt.metrics(trainer.step, found.details)
        for wanted in group:
            self.attempt.evaluated(wanted, found.values[wanted.protocol.key], seconds)

    def _keep(self, trainer: Trainer) -> None:
        """Save and record what is wanted of this step."""
        if kept(self.job, trainer.step, self.first_step):
            trainer.check()
        self._save_wanted(trainer)
        self._observe(trainer)

    def _save_wanted(self, trainer: Trainer) -> None:
        step, job = trainer.step, self.job
        if step in job.full_steps:
            self._save_full(trainer)
        elif step in job.snapshot_steps and not self.have(step):
            self._save(trainer, self.folder.snapshot(step), {"ema": trainer.ema_part()})
        if (every := job.checkpoint_every_steps) and step % every == 0 and step > self.first_step:
            self._save_rolling(trainer)

    def _save(self, trainer: Trainer, target: Path, parts: Parts) -> None:
        staged = self.attempt.staged(f"{target.parent.name}-{target.name}")
        meta = {"trajectory": self.job.trajectory, "step": trainer.step, "attempt": self.attempt.number}
        try:
            write_checkpoint(staged, parts, meta)
        except OSError:  # a full disk needs every byte that it can have back
            shutil.rmtree(staged, ignore_errors=True)
            raise
        publish(staged, target)

    def _save_full(self, trainer: Trainer, rolling: bool = False) -> None:
        target = self.folder.checkpoint(trainer.step)
        if not target.is_dir():
            began = time.perf_counter()
            self._save(trainer, target, trainer.parts())
            self.pace.saved(time.perf_counter() - began, rolling)

    def _save_rolling(self, trainer: Trainer) -> None:
        target = self.folder.checkpoint(trainer.step)
        if not target.is_dir():
            self._save_full(trainer, rolling=True)
            self.roll(target)
