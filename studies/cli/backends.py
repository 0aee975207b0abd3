"""Where work is executed: the options, and the backend that they name."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.errors import StudyError

if TYPE_CHECKING:
    from results.layout import Home
    from sweeps.backend import Backend, Watcher
    from sweeps.jobs import Job
    from sweeps.slurm.profile import Cluster
    from sweeps.slurm.submit import Seconds


class BackendName(StrEnum):
    """What can execute jobs."""

    local = "local"
    slurm = "slurm"


WorkersOpt = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes here. Default: as many as the cores allow.")
]
BackendOpt = Annotated[
    BackendName, typer.Option("--backend", help="What executes the work: processes here, or a SLURM cluster.")
]
ClusterOpt = Annotated[
    str | None,
    typer.Option(
        "--cluster", envvar="STUDY_CLUSTER", metavar="PROFILE", help="SLURM: a cluster profile, ./mycluster.yaml."
    ),
]
DetachOpt = Annotated[bool, typer.Option("--detach", help="SLURM: end as soon as all is in the queue.")]
DryRunOpt = Annotated[
    bool, typer.Option("--dry-run", help="SLURM: print the batch scripts instead of submitting them.")
]


@dataclass(frozen=True)
class Execution:
    """How work is executed: by which backend, and with what."""

    backend: BackendName
    workers: int | None
    cluster: Cluster | None
    detach: bool
    dry_run: bool

    @property
    def here(self) -> bool:
        """Whether this machine does the work, so that it must have what the work needs."""
        return self.backend is BackendName.local


def execution(backend: BackendName, workers: int | None, cluster: str | None, detach: bool, dry_run: bool) -> Execution:
    """From options. Raises: StudyError for an option that the backend does not have or lacks, and a faulty profile."""
    if backend is not BackendName.slurm:
        for option, given in (("--detach", detach), ("--dry-run", dry_run)):
            if given:
                raise StudyError(f"{option} goes with --backend slurm")
        return Execution(backend, workers, None, detach, dry_run)
    from sweeps.slurm.profile import builtin_clusters, load_cluster

    if workers is not None:
        raise StudyError("--workers goes with --backend local; in SLURM the profile's max_running bounds an array")
    if cluster is None:
        raise StudyError(
            "--backend slurm needs a cluster profile: --cluster ./mycluster.yaml, or one of "
            f"{', '.join(builtin_clusters())} (docs/orchestration.md)"
        )
    if not dry_run and not shutil.which("sbatch"):
        raise StudyError("there is no 'sbatch' here: --backend slurm runs on a machine that can submit to SLURM")
    return Execution(backend, workers, load_cluster(cluster), detach, dry_run)


def default_workers(jobs: Sequence[Job]) -> int:
    """Cores over threads a job; on a GPU one process, since a second would share it."""
    if any(job.device != "cpu" for job in jobs):
        from studies.cli.choose import has_gpu

        if has_gpu() or any(job.device == "cuda" for job in jobs):
            return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(job.threads for job in jobs))


@contextmanager
def opened_backend(how: Execution, home: Home, jobs: Sequence[Job], watcher: Watcher) -> Iterator[Backend]:
    """The backend that executes jobs."""
    if how.cluster is not None:
        from sweeps.slurm.backend import SlurmBackend

        yield SlurmBackend(home, jobs, watcher, how.cluster, estimates(home.root), detach=how.detach)
        return
    from sweeps.pool import Pool
    from sweeps.scheduler import Scheduler

    with Pool(home, _size(how, jobs)) as pool:
        yield Scheduler(home, pool, jobs, watcher)


def announcement(how: Execution, jobs: Sequence[Job]) -> str:
    """What to say before jobs are executed."""
    if how.backend is BackendName.slurm:
        return "submitting to SLURM; Ctrl-C leaves the jobs in the queue, running again finds them there"
    size = _size(how, jobs)
    return f"{size} worker{'s' if size > 1 else ''}; Ctrl-C stops cleanly, running again continues"


def _size(how: Execution, jobs: Sequence[Job]) -> int:
    return min(how.workers or default_workers(jobs), len(jobs))


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


def print_scripts(cluster: Cluster, home: Home, jobs: Sequence[Job]) -> None:
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
        sys.stdout.write(f"# --- array {number}: {len(planned.jobs)} jobs\n{listed}{script}\n")
