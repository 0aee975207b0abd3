"""Work in numbers: how much is done, runs and is left, how long it will take, and on what that rests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from studies.arms import Arm
from sweeps.cost import Cost, Rates
from sweeps.jobs import Job
from sweeps.selection import Standing
from sweeps.session import Session
from sweeps.standing import Work

Reached = Callable[[Work], int | None]  # how far work that runs has come


@dataclass(frozen=True)
class Summary:
    """Counts by standing, and what is left to do. ``evaluations`` that are not measured count as the work that would
    measure them stands; ``jobs`` is how many run now. ``basis`` says on what hours rest, or why they are unknown."""

    arms: int
    arms_done: int
    segments: Mapping[Standing, int]
    evaluations: Mapping[Standing, int]
    jobs: int
    left: Cost
    basis: str

    @property
    def hours_left(self) -> float | None:
        """Hours of one device, training and measuring; without measuring where that takes who knows how long."""
        training, measuring = self.left.gpu_hours, self.left.evaluation_hours
        if training is None or (measuring is None and not self.left.epochs):
            return None
        return training + (measuring or 0.0)

    @property
    def eta_hours(self) -> float | None:
        """Hours until all is done, if as many jobs go on running as do now; None where none does."""
        return self.hours_left / self.jobs if self.jobs and self.hours_left is not None else None


def summarise(
    session: Session, arms: Sequence[Arm], needed: Sequence[Sequence[Work]], rates: Rates, reached: Reached
) -> Summary:
    """Some arms of a session in numbers.

    Args:
        needed: the work of each arm (`by_arm`); what several need counts once.
    """
    mine = list({work.place: work for some in needed for work in some}.values())
    wanted = {point.evaluation for arm in arms for point in arm.points}
    evaluations: Counter[Standing] = Counter()
    for work in mine:
        missing = len(work.unmeasured & wanted)
        evaluations[work.standing] += missing
        evaluations["done"] += len(work.evaluations & wanted) - missing
    left = session.cost([job for work in mine for job in _left(work, reached, wanted)], rates)
    running = sum(work.standing == "running" for work in mine)
    return Summary(
        arms=len(arms),
        arms_done=sum(all(work.standing == "done" for work in some) for some in needed),
        segments=Counter(work.standing for work in mine if work.kind == "train"),
        evaluations=+evaluations,
        jobs=running,
        left=left,
        basis=_basis(left, running),
    )


def _left(work: Work, reached: Reached, wanted: set[str]) -> Iterable[Job]:
    """The jobs of some work, less what its running attempt has done already."""
    at = reached(work) if work.standing == "running" and work.kind == "train" else None
    for job in work.jobs:
        evaluations = tuple(one for one in job.evaluations if one.evaluation in wanted)
        start = job.start_step if at is None else min(max(job.start_step, at), job.stop_step)
        yield job.model_copy(update={"evaluations": evaluations, "start_step": start})


def _basis(left: Cost, running: int) -> str:
    if left.gpu_hours is None or (left.evaluation_hours is None and not left.epochs):
        return "time unknown: run `study doctor --calibrate`"
    said = [f"time from {left.hours_basis or 'times of evaluations'}"]
    if left.evaluation_hours is None:
        said.append("without measuring, whose time is unknown")
    said.append(f"ETA with {running} job{'s' if running > 1 else ''} at a time as now" if running else "nothing runs")
    return "; ".join(said)
