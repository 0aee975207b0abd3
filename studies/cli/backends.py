"""Which backend executes the jobs of a run, and how it is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studies.cli.options import BackendName
from studies.cli.output import say
from studies.errors import StudyError

if TYPE_CHECKING:
    from results.layout import Home
    from sweeps.backend import Backend, Watcher
    from sweeps.jobs import Job

Start = Callable[["list[Job]", "Watcher"], "Backend"]
STOPPING = "Ctrl-C stops cleanly, running again continues"


@dataclass(frozen=True)
class BackendChoice:
    """The backend asked for, and what only some of them take. Raises: StudyError for what it does not take."""

    name: BackendName = BackendName.LOCAL
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.address is not None and self.name is not BackendName.RAY:
            raise StudyError(f"--address {self.address} is that of a Ray cluster: add --backend ray")

    def check(self) -> None:
        """Raises: StudyError where it cannot be reached; before anything is recorded or begun."""
        if self.address is not None:
            from sweeps.ray_cluster import check_address

            check_address(self.address)

    @property
    def elsewhere(self) -> bool:
        """Whether jobs run on other machines, whose devices this one does not have."""
        return self.address is not None


def open_backend(choice: BackendChoice, home: Home, jobs: list[Job]) -> AbstractContextManager[Start]:
    """Get a backend ready for jobs like these; leaving it ends whatever of them still runs here.

    Yields: what starts it on some jobs, as often as there are more.
    """
    return _OPEN[choice.name](choice, home, jobs)


@contextmanager
def _local(choice: BackendChoice, home: Home, jobs: list[Job]) -> Iterator[Start]:
    from sweeps.pool import Pool
    from sweeps.scheduler import Scheduler

    size = min(choice.workers or default_workers(jobs), len(jobs))
    say(f"{_workers(size)}; {STOPPING}")
    with Pool(home, size) as pool:
        yield lambda jobs, watcher: Scheduler(home, pool, jobs, watcher)


@contextmanager
def _ray(choice: BackendChoice, home: Home, jobs: list[Job]) -> Iterator[Start]:
    from sweeps.ray_cluster import joined_ray, own_ray, slots
    from sweeps.ray_workers import RayWorkers
    from sweeps.scheduler import Scheduler

    size = min(choice.workers or default_workers(jobs), len(jobs))
    threads = max(job.threads for job in jobs)
    opened = joined_ray(home, choice.address) if choice.address else own_ray(home, size * threads)
    with opened as address:
        fit = slots(jobs)
        if choice.address:
            size = min(choice.workers or fit, len(jobs))
        say(f"{_workers(size)} of the Ray at {address}; {STOPPING}")
        with RayWorkers(home, size) as workers:
            yield lambda jobs, watcher: Scheduler(home, workers, jobs, watcher)


_OPEN: dict[BackendName, Callable[[BackendChoice, Home, list[Job]], AbstractContextManager[Start]]] = {
    BackendName.LOCAL: _local,
    BackendName.RAY: _ray,
}


def _workers(size: int) -> str:
    return f"{size} worker{'s' if size > 1 else ''}"


def default_workers(jobs: list[Job]) -> int:
    """Cores over threads a job; on a GPU one process, since a second would share it."""
    if any(job.device != "cpu" for job in jobs):
        from studies.cli.choose import has_gpu

        if has_gpu() or any(job.device == "cuda" for job in jobs):
            return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(job.threads for job in jobs))
