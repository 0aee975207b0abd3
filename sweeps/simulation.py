"""A simulated cluster, by discrete events on a clock of its own: nodes that only pretend to work, fail and are taken
away. A `Scheduler` drives it as it drives real workers; what jobs publish are empty folders in a real home."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from meanflow_core.config import Checkpoint
from results.layout import Home
from sweeps.backend import Event
from sweeps.jobs import Job
from sweeps.needs import inputs, inputs_ready, makes

Seconds = Callable[[Job], float]


@dataclass(frozen=True)
class Troubles:
    """What befalls every node, in seconds: how long until it fails or is taken away (means of exponential laws) and how
    long it is then gone; and how long a job takes to start."""

    failure_s: float = math.inf
    repair_s: float = 3600.0
    preemption_s: float = math.inf
    away_s: float = 3600.0
    startup_s: float = 0.0


@dataclass
class Stint:
    """A job on a node, from one time to another, and how it ended: the steps it had left, and those that it kept."""

    job: Job
    node: int
    start: float
    left: int
    end: float = math.inf
    how: str = "running"
    kept: int = 0


@dataclass
class _Node:
    number: int
    up: bool = True
    stint: Stint | None = None


@dataclass
class Cluster:
    """Workers in name only. ``seconds`` says how long a whole job takes; ``trace`` holds what was done."""

    home: Home
    nodes: int
    seconds: Seconds
    troubles: Troubles = Troubles()
    seed: int = 0
    now: float = 0.0
    trace: list[Stint] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._agenda: list[tuple[float, int, Callable[[], Event | None]]] = []
        self._number = count()
        self._reached: dict[str, int] = {}  # by job: the step of its own last checkpoint
        self._nodes = [_Node(number) for number in range(self.nodes)]
        for node in self._nodes:
            self._come_up(node)

    def clock(self) -> float:
        return self.now

    def idle(self) -> int:
        return sum(node.up and node.stint is None for node in self._nodes)

    def running(self) -> list[Job]:
        return [node.stint.job for node in self._nodes if node.stint]

    def submit(self, job: Job, asked: float | None = None) -> None:
        assert inputs_ready(self.home, job), f"{job.name} was given before its inputs were there"
        node = next(node for node in self._nodes if node.up and node.stint is None)
        left = job.stop_step - self._reached.get(job.name, job.start_step)
        stint = Stint(job, node.number, self.now, left)
        self.trace.append(stint)
        node.stint = stint
        share = left / job.steps if job.kind == "train" and job.steps else 1.0
        self._at(self.now + self.troubles.startup_s + share * self.seconds(job), lambda: self._finish(node, stint))

    def wait(self, timeout: float) -> list[Event]:
        """The next events, whenever they come, since nothing happens in between; none where only a node came back."""
        if not self._agenda:
            self.now += timeout
        idle = self.idle()
        events: list[Event] = []
        while self._agenda and not events and self.idle() <= idle:
            self.now = self._agenda[0][0]
            while self._agenda and self._agenda[0][0] == self.now:
                event = heappop(self._agenda)[2]()
                if event is not None:
                    events.append(event)
        return events

    def stop(self) -> list[Event]:
        return [event for node in self._nodes if (event := self._end(node, "preempted", saves=True))]

    def _at(self, time: float, what: Callable[[], Event | None]) -> None:
        if time < math.inf:
            heappush(self._agenda, (time, next(self._number), what))

    def _in(self, mean_s: float) -> float:
        return self.now + self._random.expovariate(1 / mean_s) if mean_s < math.inf else math.inf

    def _come_up(self, node: _Node) -> None:
        node.up = True
        fails, goes = self._in(self.troubles.failure_s), self._in(self.troubles.preemption_s)
        if fails < goes:
            self._at(fails, lambda: self._go_down(node, "lost", self.troubles.repair_s))
        else:
            self._at(goes, lambda: self._go_down(node, "preempted", self.troubles.away_s))

    def _go_down(self, node: _Node, how: str, for_s: float) -> Event | None:
        node.up = False
        self._at(self.now + for_s, lambda: self._come_up(node))
        return self._end(node, how, saves=how == "preempted")

    def _finish(self, node: _Node, stint: Stint) -> Event | None:
        if node.stint is not stint:  # it was cut short
            return None
        for made in makes(stint.job):
            folder = self.home.trajectory(made.trajectory)
            full = made.step in stint.job.full_steps
            (folder.checkpoint if full else folder.snapshot)(made.step).mkdir(parents=True, exist_ok=True)
        return self._end(node, "done", saves=True)

    def _end(self, node: _Node, how: str, *, saves: bool) -> Event | None:
        stint, node.stint = node.stint, None
        if stint is None:
            return None
        stint.end, stint.how = self.now, how
        stint.kept = stint.left if how == "done" else self._keep(stint, saves)
        return Event(how, stint.job, reason="its node failed" if how == "lost" else None)  # type: ignore[arg-type]

    def _keep(self, stint: Stint, saves: bool) -> int:
        """Publish the last checkpoint of a job that was cut short. Returns: by how many steps it got further."""
        job = stint.job
        if job.kind != "train" or not job.steps:
            return 0
        worked = max(0.0, stint.end - stint.start - self.troubles.startup_s)
        began, every = job.stop_step - stint.left, 1 if saves else job.checkpoint_every_steps
        at = min(job.stop_step - 1, began + int(worked / self.seconds(job) * job.steps))
        at = max(began, at // every * every) if every else began
        if at > began:
            checkpoints = self.home.trajectory(job.trajectory)
            checkpoints.checkpoint(at).mkdir(parents=True, exist_ok=True)
            if job.name in self._reached:
                checkpoints.checkpoint(self._reached[job.name]).rmdir()
            self._reached[job.name] = at
        return at - began


def critical_path(jobs: Iterable[Job], seconds: Seconds) -> float:
    """How long the longest chain of jobs takes in which each needs what the one before makes (parents before children).

    With the work of all jobs over the number of nodes it bounds every makespan from below.
    """
    there: dict[Checkpoint, float] = {}
    longest = 0.0
    for job in jobs:
        end = max((there.get(at, 0.0) for at, _ in inputs(job)), default=0.0) + seconds(job)
        longest = max(longest, end)
        there |= dict.fromkeys(makes(job), end)
    return longest


def ideal(jobs: Iterable[Job], seconds: Seconds, nodes: int) -> float:
    """The least makespan there can be without troubles: max(critical path, work / nodes), in seconds."""
    jobs = list(jobs)
    return max(critical_path(jobs, seconds), sum(map(seconds, jobs)) / nodes)
