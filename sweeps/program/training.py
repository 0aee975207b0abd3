"""Training a segment by a program of the user's own: told where to begin, watched, asked to stop, and believed only
where it left a file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meanflow_core.components import Program
from meanflow_core.components.program import SEGMENT
from meanflow_core.config import Checkpoint, Dynamics
from meanflow_core.manifest import publish
from results.layout import Home
from sweeps.attempt import STAGED, Attempt
from sweeps.jobs import EXIT_PREEMPTED, Job, Progress, ShouldStop, Status
from sweeps.plan import checkpoint_steps
from sweeps.program.opaque import state_of, wrap
from sweeps.program.process import ProgramError, Running, running, words_of
from sweeps.program.protocol import SegmentFile, checkpoint_name, write_file
from sweeps.program.told import MetricsFile, finished
from sweeps.segment import Segment

LOOK_S = 0.1
CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"


def program_of(dynamics: Dynamics) -> Program:
    """The trainer of dynamics that have one. Raises: ProgramError where a file of it is not what was planned."""
    assert dynamics.trainer is not None
    if changed := dynamics.trainer.changed():
        raise ProgramError("; ".join(changed))
    return dynamics.trainer


def told_dynamics(dynamics: Dynamics) -> dict[str, Any]:
    """What a program is told of the dynamics: all but how it is started itself."""
    return {name: value for name, value in dynamics.dump().items() if name != "trainer"}


def place_of(home: Home, at: Checkpoint) -> Path:
    """Where a program's checkpoint is published: all of them are whole, at branch points and elsewhere."""
    folder = home.trajectory(at.trajectory)
    full = folder.checkpoint(at.step)
    return full if full.is_dir() else folder.snapshot(at.step)


def tell(work: Path, dynamics: Dynamics, **fields: Any) -> list[str]:
    """Write down in a new folder what a program is to do: the other ``fields`` of a `SegmentFile`.

    Returns: the command that does it.
    """
    program = program_of(dynamics)
    checkpoints, path = work / CHECKPOINTS, work / "segment.json"
    checkpoints.mkdir(parents=True)
    said = SegmentFile(
        dynamics=told_dynamics(dynamics),
        options=program.options,
        checkpoints=str(checkpoints.resolve()),
        metrics=str((work / METRICS).resolve()),
        **fields,
    )
    write_file(path, said)
    return words_of((*program.launch, *program.command), {SEGMENT: str(path.resolve())})


class ProgramTraining(Segment):
    """Has (start, stop] trained. Of a program that cannot resume nothing is published or recorded before all is done,
    lest two executions be mixed."""

    def __init__(self, attempt: Attempt, home: Home, job: Job, progress: Progress, should_stop: ShouldStop) -> None:
        super().__init__(attempt, home, job, progress, should_stop)
        self.program = program_of(job.dynamics)
        self.repeatable = self.program.resume != "none"
        self.work = attempt.staged("program")
        self.wanted = {step for step in (*job.full_steps, *job.snapshot_steps) if not self.have(step)} | {job.stop_step}
        self._seconds = 0.0

    def seconds_per_step(self) -> float | None:
        steps = self.last_step - self.first_step
        return round(self._seconds / steps, 6) if steps > 0 and self._seconds > 0 else None

    def states(self) -> set[int]:
        """All that it has saved, before whatever it is still to report: it reports steps that it does."""
        if not self.repeatable:
            return set()
        saved = super().states() | checkpoint_steps(self.folder.snapshots)
        return {step for step in saved if step < min(self.observe, default=step + 1)}

    def run(self) -> tuple[Status, str | None]:
        self.clear_up()
        self._refuse_to_mix()
        at = self.begin()
        self.first_step = self.last_step = at.step if at else 0
        self.wanted = {step for step in self.wanted if step >= self.first_step}
        metrics = MetricsFile(self.work / METRICS)
        words = self._told(at)
        began = time.monotonic()
        with running(words, self.program, self.work, self.attempt.log_path, self.job.threads) as process:
            self._watch(process, metrics)
            status = process.wait()
            self._take(metrics, ended=status == 0)
        self._seconds = time.monotonic() - began
        if status != 0 and (self.should_stop() or (status == EXIT_PREEMPTED and self.last_step > self.first_step)):
            return "preempted", f"stopped on request at step {self.last_step}"
        if status != 0:
            raise process.failed(self.program.name)
        self._check_whole()
        self.roll(None)
        self.discard(self.work)
        return "done", None

    def _told(self, at: Checkpoint | None) -> list[str]:
        job = self.job
        report: dict[str, tuple[int, ...]] = {}
        for step, group in sorted(self.observe.items()):
            for wanted in group:
                name = wanted.protocol.metric_label
                report[name] = (*report.get(name, ()), step)
        return tell(
            self.work,
            job.dynamics,
            trajectory=job.trajectory,
            seed=job.seed,
            start_step=self.first_step,
            stop_step=job.stop_step,
            horizon_steps=job.horizon_steps,
            resume_from=str(state_of(place_of(self.home, at), at._asdict()).resolve()) if at else None,
            branch=at is not None and at.trajectory != job.trajectory,
            save_steps=tuple(sorted(self.wanted)),
            checkpoint_every_steps=job.checkpoint_every_steps if self.repeatable else None,
            log_every_steps=job.log_every_steps,
            report=report,
            device=job.device,
            threads=job.threads,
        )

    def _refuse_to_mix(self) -> None:
        """Raises: ProgramError where an execution that cannot be repeated has left something already: another one would
        be mixed with it."""
        saved = checkpoint_steps(self.folder.checkpoints) | checkpoint_steps(self.folder.snapshots)
        if saved and not self.repeatable:
            raise ProgramError(
                f"{self.program.name} cannot resume, and what it saved before ({len(saved)} checkpoints) would be of "
                f"another execution: move {self.folder.root} away, and all of it is trained anew"
            )

    def _watch(self, process: Running, metrics: MetricsFile) -> None:
        """Take what comes until the program has ended, and ask it to where we are asked."""
        asked = False
        while process.status() is None:
            self._take(metrics)
            if not asked and self.should_stop():
                process.ask_to_stop()
                asked = True
            time.sleep(LOOK_S)

    def _take(self, metrics: MetricsFile, ended: bool = False) -> None:
        """Record and publish what the program has finished since the last look; of one that cannot resume, once it has
        ended well."""
        if not (self.repeatable or ended):
            return
        before = self.last_step
        for line in metrics.new_lines(ended):
            self._reached(line.step, f"{metrics.path}: metrics")
            self.attempt.metrics(line.step, line.values)
            self._report(line.step, line.values)
        for step, folder in finished(self.work / CHECKPOINTS):
            self._reached(step, str(folder))
            self._publish(step, folder)
        if self.last_step > before:
            self.progress(self.last_step)

    def _reached(self, step: int, what: str) -> None:
        if not self.first_step <= step <= self.job.stop_step:
            asked = f"{self.first_step} to {self.job.stop_step}"
            raise ProgramError(f"{what} of step {step}, but the segment is from {asked}")
        self.last_step = max(self.last_step, step)

    def _report(self, step: int, values: Mapping[str, float]) -> None:
        """Record what the study wants of the numbers that the program reports."""
        group = self.observe.get(step, [])
        for wanted in [one for one in group if one.protocol.metric_label in values]:
            self.attempt.evaluated(wanted, values[wanted.protocol.metric_label], 0.0)
            group.remove(wanted)

    def _publish(self, step: int, saved: Path) -> None:
        full = step in self.job.full_steps or step not in self.job.snapshot_steps
        target = self.folder.checkpoint(step) if full else self.folder.snapshot(step)
        staged = self.attempt.folder / f"{STAGED}{target.parent.name}-{target.name}"
        meta = {"trajectory": self.job.trajectory, "step": step, "attempt": self.attempt.number}
        wrap(saved, staged, self.program.name, meta)
        new = publish(staged, target)
        if new and step not in self.wanted:
            self.roll(target)

    def _check_whole(self) -> None:
        """Raises: ProgramError if something that was asked for is not there, though the program ended well."""
        for step in sorted(self.wanted):
            if not place_of(self.home, Checkpoint(self.job.trajectory, step)).is_dir():
                where = self.work / CHECKPOINTS / checkpoint_name(step)
                raise ProgramError(f"{self.program.name} ended well, but left no checkpoint of step {step} ({where})")
        for step, group in sorted(self.observe.items()):
            if group:
                label = group[0].protocol.metric_label
                raise ProgramError(f"{self.program.name} ended well, but reported no '{label}' at step {step}")
