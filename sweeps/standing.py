"""How the work of stored arms stands: done, running, queued, missing, failed, preempted or lost.

*Work* is a segment, or the evaluations of the checkpoints of one: what `missing_jobs` makes a job of where it is not
done. Pure functions of the tree, of what a home holds, of its attempts and of who holds which lease.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from results.stored import AttemptRecord
from studies.arms import Arm
from sweeps.causes import Cause, cause_of
from sweeps.jobs import Job
from sweeps.plan import Inventory, missing_jobs
from sweeps.queued import QueuedJob
from sweeps.selection import KINDS, Kind, Standing
from sweeps.session import Session
from sweeps.tree import Tree

Place = tuple[str | None, str, int]  # kind, trajectory, and where the segment stops
Ends = Mapping[str, Sequence[int]]  # by trajectory, its start and where its segments stop
Held = Callable[[AttemptRecord], str | None]  # who works on an unfinished attempt; None if nobody does


@dataclass(frozen=True)
class Work:
    """A segment (start, stop], or the evaluations of its checkpoints.

    ``evaluations`` are the keys of what is measured by it and ``unmeasured`` those that are not there yet; ``jobs`` are
    what is left to do; ``attempt`` is the newest that tried; ``where`` says who works on it or has it queued.
    """

    kind: Kind
    trajectory: str
    seed: int
    start_step: int
    stop_step: int
    evaluations: frozenset[str]
    unmeasured: frozenset[str] = frozenset()
    jobs: tuple[Job, ...] = ()
    standing: Standing = "missing"
    attempt: AttemptRecord | None = None
    where: str | None = None

    @property
    def name(self) -> str:
        return f"{self.kind} {self.trajectory[:8]} {self.start_step}→{self.stop_step} (seed {self.seed})"

    @property
    def place(self) -> Place:
        """What tells it from all other work, whatever study wants it."""
        return self.kind, self.trajectory, self.stop_step

    @property
    def cause(self) -> Cause | None:
        """Why the newest attempt did not do it; None where it is done, runs or was never tried."""
        ended = self.standing in {"failed", "preempted", "lost"}
        return cause_of(self.attempt) if self.attempt and ended else None


def works(
    session: Session,
    arms: Sequence[Arm],
    have: Inventory,
    attempts: Iterable[AttemptRecord],
    held: Held,
    queued: Iterable[QueuedJob] = (),
) -> list[Work]:
    """The work that some arms of a session need, parents before children, and how it stands.

    Args:
        attempts: those on the trajectories of these arms, oldest first; others do not matter.
    """
    reach = reaches(arms)
    tree = Tree({key: node for key, node in session.tree.nodes.items() if key in reach})
    ends = {node.key: node.boundaries() for node in tree}
    left: dict[Place, tuple[Job, ...]] = {}
    for job in missing_jobs(tree, have, session.settings):
        at = _place(ends, job.kind, job.trajectory, job.stop_step)
        left[at] = (*left.get(at, ()), job)
    mine = [attempt for attempt in attempts if attempt.trajectory in reach]
    tried = {place_of(ends, attempt): attempt for attempt in mine}
    newest = {(attempt.kind, attempt.trajectory): attempt.attempt for attempt in mine}
    waiting = {_place(ends, q.kind, q.trajectory, q.stop_step): q.where for q in queued if q.trajectory in reach}

    def look(work: Work) -> Work:
        attempt, unmeasured = tried.get(work.place), work.evaluations - have.evaluated
        jobs = tuple(filter(_makes_something, (_of_these(job, unmeasured) for job in left.get(work.place, ()))))
        if not jobs:
            return replace(work, standing="done", attempt=attempt)
        last = attempt is not None and newest[attempt.kind, attempt.trajectory] == attempt.attempt
        standing, where = _stands(attempt, held if last else _nobody, waiting.get(work.place))
        return replace(work, unmeasured=unmeasured, jobs=jobs, standing=standing, attempt=attempt, where=where)

    wanted = frozenset(point.evaluation for arm in arms for point in arm.points)
    return [look(work) for work in _all(tree, ends, reach, wanted)]


def reaches(arms: Iterable[Arm]) -> dict[str, int]:
    """By trajectory, how far some arms follow it."""
    reach: dict[str, int] = {}
    for arm in arms:
        for stage in arm.stages:
            reach[stage.trajectory.key] = max(stage.stop_step, reach.get(stage.trajectory.key, 0))
    return reach


def by_arm(arms: Sequence[Arm], found: Sequence[Work]) -> list[list[Work]]:
    """Of each arm the work that it needs: what lies on its way, and what measures one of its points."""
    segments: dict[str, list[Work]] = {}
    measuring: dict[str, Work] = {}
    for work in found:
        if work.kind == "train":
            segments.setdefault(work.trajectory, []).append(work)
        else:
            measuring |= dict.fromkeys(work.evaluations, work)
    needed = []
    for arm in arms:
        reach = reaches([arm])
        train = [work for key, stop in reach.items() for work in segments.get(key, ()) if work.stop_step <= stop]
        evaluate = [measuring[point.evaluation] for point in arm.points if point.evaluation in measuring]
        needed.append([*train, *{work.place: work for work in evaluate}.values()])
    return needed


def _all(tree: Tree, ends: Ends, reach: Mapping[str, int], wanted: frozenset[str]) -> Iterator[Work]:
    """Every segment, and the evaluations of every segment that has any, as if nothing were there."""
    for node in tree:
        keys: dict[Place, set[str]] = {}
        for step, at in node.points.items():
            for key, protocol in at.items():
                kind: Kind = "train" if protocol.observed else "evaluate"
                keys.setdefault(_place(ends, kind, node.key, step), set()).add(key)
        for low, high in pairwise(ends[node.key]):
            for kind in KINDS if high <= reach[node.key] else ():
                measured = wanted & keys.get((kind, node.key, high), set())
                if kind == "train" or measured:
                    yield Work(kind, node.key, node.trajectory.seed, low, high, measured)


def _place(ends: Ends, kind: str | None, trajectory: str, stop_step: int) -> Place:
    """The segment in which a step lies; its start does not."""
    stops = ends[trajectory][1:]
    return kind, trajectory, stops[min(bisect_left(stops, stop_step), len(stops) - 1)]


def place_of(ends: Ends, attempt: AttemptRecord) -> Place:
    """The segment that an attempt was at. One that ended early says how far it came, so where it began tells."""
    early = attempt.kind == "train" and attempt.status in {"failed", "preempted"}
    step = (attempt.start_step or 0) + 1 if early else attempt.stop_step or 0
    return _place(ends, attempt.kind, attempt.trajectory, step)


def _of_these(job: Job, unmeasured: frozenset[str]) -> Job:
    """A job with only those of its evaluations."""
    kept = tuple(wanted for wanted in job.evaluations if wanted.evaluation in unmeasured)
    return job if len(kept) == len(job.evaluations) else job.model_copy(update={"evaluations": kept})


def _makes_something(job: Job) -> bool:
    return bool(job.evaluations or job.full_steps or job.snapshot_steps or (job.kind == "train" and job.steps))


def _stands(attempt: AttemptRecord | None, held: Held, queued: str | None) -> tuple[Standing, str | None]:
    """How work that is not done stands, and who has it."""
    holder = held(attempt) if attempt and attempt.status == "unfinished" else None
    if holder:
        return "running", holder
    if queued:
        return "queued", queued
    if attempt is None or attempt.status == "done":  # what it made is gone
        return "missing", None
    if attempt.status == "unfinished":
        return "lost", None
    return ("preempted" if attempt.status == "preempted" else "failed"), None


def _nobody(attempt: AttemptRecord) -> None:
    return None
