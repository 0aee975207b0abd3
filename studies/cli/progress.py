"""Live progress of a run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from studies.cli.output import say

if TYPE_CHECKING:
    from sweeps.backend import Event
    from sweeps.jobs import Job

LINE_EVERY_S = 10.0


class Counter:
    """How much is done, in steps and in evaluations, also inside the jobs that run."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.steps_total = sum(job.steps for job in jobs if job.kind == "train")
        self.evaluations_total = sum(len(job.evaluations) for job in jobs)
        self._finished = {"train": 0, "evaluate": 0}
        self._begun: dict[str, tuple[str, int]] = {}
        self._began = time.monotonic()

    def take(self, event: Event) -> None:
        job = event.job
        if event.kind in {"progress", "preempted"}:  # what was preempted has saved what it did
            if event.step:
                done = event.step - job.start_step if job.kind == "train" else event.step
                self._begun[job.name] = (job.kind, done)
        elif event.kind != "started":
            self._begun.pop(job.name, None)
            if event.kind == "done":
                self._finished["train"] += job.steps if job.kind == "train" else 0
                self._finished["evaluate"] += len(job.evaluations)

    def done(self, kind: str) -> int:
        return self._finished[kind] + sum(n for k, n in self._begun.values() if k == kind)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def rate(self, kind: str) -> float:
        """Per second, since the start."""
        return self.done(kind) / max(1e-9, self.elapsed_s)

    def eta_s(self) -> float | None:
        """Seconds left if things go on as they have; None before anything is done."""
        total = self.steps_total + self.evaluations_total
        share = (self.done("train") + self.done("evaluate")) / total if total else 1.0
        return self.elapsed_s * (1 - share) / share if share > 0 else None


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02}:{s:02}" if h else f"{m}:{s:02}"


class PlainProgress:
    """A line now and then; used where the output is no terminal."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.counter = Counter(jobs)
        self.unheard: Callable[[], None] | None = None  # is called where nothing can be said any more
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.line()
        self.say(f"took {clock(self.counter.elapsed_s)}")

    def say(self, text: str) -> None:
        try:
            say(text)
        except OSError:
            if self.unheard is None:
                raise
            self.unheard()

    def event(self, event: Event) -> None:
        self.counter.take(event)
        if event.kind in {"failed", "lost"}:
            self.say(f"{event.kind}: {event.job.name}: {event.reason}" + (f"; log: {event.log}" if event.log else ""))

    def waiting(self, job: Job, why: str) -> None:
        self.say(f"waiting: {job.name} {why}")

    def tick(self, running: Sequence[Job]) -> None:
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self.line()

    def line(self) -> None:
        self._last = time.monotonic()
        c = self.counter
        self.say(
            f"trained {c.done('train')}/{c.steps_total} steps ({c.rate('train'):.0f}/s), "
            f"evaluated {c.done('evaluate')}/{c.evaluations_total} ({c.rate('evaluate'):.1f}/s), ETA {clock(c.eta_s())}"
        )


class LiveProgress(PlainProgress):
    """Two bars with rate and ETA, and what runs now."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        super().__init__(jobs)
        self._bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}"),
        )
        self._train = self._bars.add_task("training", total=max(1, self.counter.steps_total), rate="", eta="")
        self._evaluate = self._bars.add_task("measuring", total=max(1, self.counter.evaluations_total), rate="", eta="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tick([])
        self._bars.stop()

    def say(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def tick(self, running: Sequence[Job]) -> None:
        c = self.counter
        self._bars.update(self._train, completed=c.done("train"), rate=f"{c.rate('train'):.0f} steps/s")
        self._bars.update(
            self._evaluate,
            completed=c.done("evaluate"),
            rate=f"{c.rate('evaluate'):.1f}/s",
            eta=f"ETA {clock(c.eta_s())}",
        )


T = TypeVar("T")


def tracked(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The items, with a bar on the standard error while they are taken, if that is a terminal; else with nothing."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(stderr=True), transient=True)


def progress(jobs: Sequence[Job], redrawn: bool = True) -> PlainProgress:
    """The kind of progress that fits the output; not ``redrawn`` where jobs write on the terminal themselves."""
    return LiveProgress(jobs) if redrawn and sys.stdout.isatty() else PlainProgress(jobs)
