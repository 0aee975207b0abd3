"""Which backend executes the jobs of a run, and how it is opened."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from meanflow_core.words import counted
from studies.cli.options import BackendName
from studies.cli.output import say
from studies.errors import StudyError

if TYPE_CHECKING:
    from results.layout import Home
    from sweeps.backend import Backend, Watcher
    from sweeps.jobs import Job
    from sweeps.slurm.profile import Cluster
    from sweeps.slurm.submit import Seconds

Start = Callable[["list[Job]", "Watcher"], "Backend"]
STOPPING = "Ctrl-C stops cleanly, running again continues"


@dataclass(frozen=True)
class BackendChoice:
    """The backend asked for, and what only some of them take. Raises: StudyError for what it does not take."""

    name: BackendName = BackendName.LOCAL
    workers: int | None = None
    address: str | None = None
    cluster: str | None = None
    detach: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.address is not None and self.name is not BackendName.RAY:
            raise StudyError(f"--address {self.address} is that of a Ray cluster: add --backend ray")
        slurm = self.name is BackendName.SLURM
        for option, given in (("--detach", self.detach), ("--dry-run", self.dry_run)):
            if given and not slurm:
                raise StudyError(f"{option} goes with --backend slurm")
        if slurm and self.workers is not None:
            raise StudyError(
                "--workers is for this machine and Ray; in SLURM the profile's max_running bounds an array"
            )
        if self.name is BackendName.INLINE and self.workers is not None:
            raise StudyError("--workers does not go with --backend inline, which does one job after another")
        if slurm:
            self.profile()

    def profile(self) -> Cluster:
        """The cluster profile asked for. Raises: StudyError where there is none, or it is faulty."""
        from sweeps.slurm.profile import builtin_clusters, load_cluster

        if self.cluster is None:
            raise StudyError(
                "--backend slurm needs a cluster profile: --cluster ./mycluster.yaml, or one of "
                f"{', '.join(builtin_clusters())} (docs/orchestration.md)"
            )
        return load_cluster(self.cluster)

    def check(self, home: Home) -> None:
        """Raises: StudyError where it cannot be reached, or not use this home; before anything is recorded or begun."""
        if self.address is not None:
            from sweeps.ray_cluster import check_address

            check_address(self.address)
        if self.name is BackendName.SLURM and not shutil.which("sbatch"):
            raise StudyError("there is no 'sbatch' here: --backend slurm runs on a machine that can submit to SLURM")
        if self.name is BackendName.SLURM and "%" in str(home.root.resolve()):
            raise StudyError(f"{home.root}: SLURM replaces '%' in the paths of logs: give a home without, by --home")

    @property
    def elsewhere(self) -> bool:
        """Whether jobs run on other machines, whose devices this one does not have."""
        return self.address is not None or self.name is BackendName.SLURM


def open_backend(choice: BackendChoice, home: Home, jobs: list[Job]) -> AbstractContextManager[Start]:
    """Get a backend ready for jobs like these; leaving it ends whatever of them still runs here. All that it is given
    counts as asked for now, so that no later round of a search begins what was cancelled in an earlier one.

    Yields: what starts it on some jobs, as often as there are more.
    """
    from sweeps.cancelling import moment

    return _OPEN[choice.name](choice, home, jobs, moment(home))


@contextmanager
def _local(choice: BackendChoice, home: Home, jobs: list[Job], asked: float) -> Iterator[Start]:
    from sweeps.needs import inputs_ready
    from sweeps.pool import Pool
    from sweeps.scheduler import Scheduler

    size = min(choice.workers or default_workers(jobs), len(jobs))
    say(f"{_workers(size)}; {STOPPING}")
    with Pool(home, size) as pool:
        pool.start(sum(1 for _ in islice((job for job in jobs if inputs_ready(home, job)), size)))
        yield lambda jobs, watcher: Scheduler(home, pool, jobs, watcher, asked=asked)


@contextmanager
def _ray(choice: BackendChoice, home: Home, jobs: list[Job], asked: float) -> Iterator[Start]:
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
            yield lambda jobs, watcher: Scheduler(home, workers, jobs, watcher, asked=asked)


@contextmanager
def _slurm(choice: BackendChoice, home: Home, jobs: list[Job], asked: float) -> Iterator[Start]:
    from sweeps.slurm.backend import SlurmBackend

    cluster, seconds = choice.profile(), estimates(home.root)
    say("submitting to SLURM; Ctrl-C leaves the jobs in the queue, running again finds them there")
    yield lambda jobs, watcher: SlurmBackend(home, jobs, watcher, cluster, seconds, choice.detach, asked)


@contextmanager
def _inline(choice: BackendChoice, home: Home, jobs: list[Job], asked: float) -> Iterator[Start]:
    from sweeps.inline import inline

    say(f"one job after another in this process; {STOPPING}")
    yield lambda jobs, watcher: inline(home, jobs, watcher, asked)


_OPEN: dict[BackendName, Callable[[BackendChoice, Home, list[Job], float], AbstractContextManager[Start]]] = {
    BackendName.LOCAL: _local,
    BackendName.RAY: _ray,
    BackendName.SLURM: _slurm,
    BackendName.INLINE: _inline,
}


def _workers(size: int) -> str:
    return counted(size, "worker")


def default_workers(jobs: list[Job]) -> int:
    """Cores over threads a job; on a GPU one process, since a second would share it."""
    if any(job.device != "cpu" for job in jobs):
        from studies.cli.choose import has_gpu

        if has_gpu() or any(job.device == "cuda" for job in jobs):
            return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(job.threads for job in jobs))


def estimates(root: Path) -> Seconds:
    """How long jobs take, from the store or the calibration of a home; None where neither knows."""
    from studies.cli.store import rates_of
    from sweeps.cost import cost_of

    rates = rates_of(root)

    def seconds(job: Job) -> float | None:
        cost = cost_of([job], rates, {job.trajectory: 1})
        if cost.gpu_hours is None or cost.evaluation_hours is None:
            return None
        return 3600 * (cost.gpu_hours + cost.evaluation_hours)

    return seconds


def print_scripts(cluster: Cluster, home: Home, jobs: list[Job]) -> None:
    """The batch scripts that would be submitted, in order; nothing is written or submitted."""
    from sweeps.slurm.queue import PREFIX, SlurmError, max_array_size
    from sweeps.slurm.script import parameters, render
    from sweeps.slurm.submit import planned_arrays

    try:
        largest = min(cluster.max_array_size or 10**9, max_array_size())
    except SlurmError:  # no cluster is needed to look at scripts
        largest = cluster.max_array_size or 1000
    for number, planned in enumerate(planned_arrays(home, jobs, cluster, estimates(home.root), largest), 1):
        name = f"{PREFIX}ARRAY{number}"
        wanted = parameters(cluster, planned.array.shape, planned.minutes, name, planned.after)
        listed = "".join(f"#   task {index}: {job.name}\n" for index, job in enumerate(planned.jobs))
        folder = home.submissions.absolute() / name / "private"
        script = render(wanted, folder, len(planned.jobs), cluster.python or sys.executable)
        sys.stdout.write(f"# --- array {number}: {counted(len(planned.jobs), 'job')}\n{listed}{script}\n")
