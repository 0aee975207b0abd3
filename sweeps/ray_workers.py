"""The Ray backend: one Ray task a job. Only the home's path and the job's JSON cross; all else goes through files.

A stop is `ray.cancel`: it reaches a worker on whatever node at once, and needs neither an actor, which could die, nor a
file that a network file system shows late. The worker then saves at a step boundary and returns. Progress is read from
the attempts' files, which the home's file system shows to all nodes anyway. Ray itself repeats nothing: the scheduler
does, and bounds it. Needs a Ray that is connected (`sweeps.ray_cluster`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from results.layout import Home
from sweeps.backend import Event
from sweeps.following import Following
from sweeps.jobs import Job
from sweeps.pool import stop_grace_s
from sweeps.ray_task import do_job

if TYPE_CHECKING:
    from ray import ObjectRef


def wants_gpu(job: Job, gpus: float) -> bool:
    """Whether a job gets a GPU of a cluster that has so many. Ray hides GPUs from tasks that ask for none."""
    return job.device == "cuda" or (job.device == "auto" and gpus > 0)


def ending(error: Exception) -> tuple[Literal["preempted", "lost", "failed"], str]:
    """What an error that Ray raises in place of a result says of the job: (kind of event, reason)."""
    from ray import exceptions as of_ray

    if isinstance(error, of_ray.TaskCancelledError):
        return "preempted", "stopped on request"
    if isinstance(error, of_ray.OutOfMemoryError):
        return "lost", "out of memory: Ray ended its process before its node ran out"
    if isinstance(error, of_ray.NodeDiedError | of_ray.LocalRayletDiedError):
        return "lost", "its node died"
    if isinstance(error, of_ray.WorkerCrashedError):
        return "lost", "its process was killed or crashed"
    cause = error.cause if isinstance(error, of_ray.RayTaskError) and error.cause else error
    said = [line for line in str(cause).splitlines() if line.strip()]
    reason = f"{type(cause).__name__}: {said[-1].strip()}" if said else type(cause).__name__
    if isinstance(cause, ImportError):
        reason += "; the nodes of the Ray cluster need this package, in the version that this command has"
    return "failed", reason


class RayWorkers:
    """Up to ``size`` jobs at once. Use as a context manager: leaving it ends them."""

    def __init__(self, home: Home, size: int) -> None:
        import ray

        self.home, self.size = home, size
        self._ray: Any = ray
        self._do_job = ray.remote(max_retries=0)(do_job)
        self._gpus = ray.cluster_resources().get("GPU", 0.0)
        self._given: dict[ObjectRef[Any], Following] = {}

    def idle(self) -> int:
        return self.size - len(self._given)

    def running(self) -> list[Job]:
        return [given.job for given in self._given.values()]

    def submit(self, job: Job, asked: float | None = None) -> None:
        following = Following(self.home, job)
        task = self._do_job.options(
            name=job.name, num_cpus=job.threads, num_gpus=1 if wants_gpu(job, self._gpus) else 0
        )
        ref = task.remote(str(self.home.root.absolute()), job.model_dump_json(), str(Path.cwd()), asked)
        self._given[ref] = following

    def wait(self, timeout: float) -> list[Event]:
        if not self._given:
            time.sleep(timeout)
            return []
        refs = list(self._given)
        self._ray.wait(refs, timeout=timeout)
        ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        events = [event for ref in refs if ref not in ready for event in self._given[ref].news()]
        return events + [event for ref in ready for event in self._end(ref)]

    def _end(self, ref: ObjectRef[Any]) -> list[Event]:
        given = self._given.pop(ref)
        news = [*given.look(), *given.look()]  # that it began, if that was not seen yet, and then how far it is
        try:
            kind, reason, log = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            kind, reason = ending(error)
            log = given.log
        return [*news, Event(kind, given.job, reason=reason, log=log)]

    def stop(self) -> list[Event]:
        grace_s = stop_grace_s(self.running())
        for ref in self._given:
            self._ray.cancel(ref)
        events, deadline = [], time.monotonic() + grace_s
        while self._given and time.monotonic() < deadline:
            events += self.wait(0.2)
        self.close()
        return events

    def close(self) -> None:
        """End what still runs, saved or not."""
        for ref in self._given:
            self._ray.cancel(ref, force=True)
        self._given.clear()

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
