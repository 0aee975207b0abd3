"""What training a segment needs, whoever trains: where to resume, what is wanted and not there, what to clear away."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from meanflow_core.config import Checkpoint
from results.layout import Home
from sweeps.attempt import STAGED, Attempt, recorded_evaluations
from sweeps.jobs import Job, Progress, ShouldStop, WantedEvaluation
from sweeps.plan import checkpoint_steps


class Segment:
    """A training job in one attempt. ``periodic`` is its rolling checkpoint; ``observe``, by step, what is still to be
    recorded while training passes."""

    def __init__(self, attempt: Attempt, home: Home, job: Job, progress: Progress, should_stop: ShouldStop) -> None:
        self.attempt, self.home, self.job = attempt, home, job
        self.progress, self.should_stop = progress, should_stop
        self.folder = home.trajectory(job.trajectory)
        self.first_step = self.last_step = job.start_step
        self.periodic: Path | None = None
        recorded = recorded_evaluations(self.folder) if job.evaluations else set()
        self.observe: dict[int, list[WantedEvaluation]] = {}
        for wanted in job.evaluations:
            if wanted.evaluation not in recorded:  # e.g. by an attempt that was killed later
                self.observe.setdefault(wanted.step, []).append(wanted)

    def states(self) -> set[int]:
        """Steps at which training can be taken up again."""
        return checkpoint_steps(self.folder.checkpoints)

    def begin(self) -> Checkpoint | None:
        """The nearest own checkpoint at or before the first thing that is missing, else the parent's, else nothing."""
        wanted = {*self.job.full_steps, *self.job.snapshot_steps, self.job.stop_step}
        missing = sorted({s for s in wanted if not self.have(s)} | set(self.observe))
        limit = missing[0] if missing else self.job.stop_step
        own = [s for s in self.states() if s <= limit]
        return Checkpoint(self.job.trajectory, max(own)) if own else self.job.parent

    def have(self, step: int) -> bool:
        """Whether what is wanted of a step is published."""
        if self.folder.checkpoint(step).is_dir():
            return True
        return step not in self.job.full_steps and self.folder.snapshot(step).is_dir()

    def roll(self, target: Path | None) -> None:
        """Keep one rolling checkpoint of our own, for resuming; branch points and ends stay."""
        if self.periodic is not None:
            self.discard(self.periodic)
        self.periodic = target

    def discard(self, folder: Path) -> None:
        """Remove a folder. A rename comes first, so that at no moment half of it can be seen."""
        aside = self.attempt.staged(f"discarded-{folder.name}")
        with contextlib.suppress(OSError):
            folder.rename(aside)
            shutil.rmtree(aside)

    def clear_up(self) -> None:
        """Remove what earlier attempts, which are over since we hold the lease, had begun to write or remove."""
        for folder in self.folder.attempts.glob(f"*/{STAGED}*"):
            self.discard(folder)
