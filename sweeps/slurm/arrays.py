"""Jobs → job arrays: pure functions. Jobs that wait for the same and ask for the same are one array."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from sweeps.jobs import Job
from sweeps.slurm.profile import Cluster


@dataclass(frozen=True)
class Shape:
    """The resources of a job: on each of ``nodes``, ``ranks`` processes of ``threads`` threads, on GPUs or not. Or one
    process has what ``ranks`` would have, since it starts others itself."""

    gpu: bool
    threads: int
    nodes: int = 1
    ranks: int = 1
    one_process: bool = False

    @property
    def tasks(self) -> int:
        """How many processes SLURM starts."""
        return 1 if self.one_process else self.nodes * self.ranks


def shape_of(job: Job, cluster: Cluster) -> Shape:
    """Only training is shared by several processes. A trainer of your own starts them itself, on one node."""
    gpu = job.device != "cpu"
    if job.kind != "train":
        return Shape(gpu, job.threads)
    if job.dynamics.trainer is not None:
        return Shape(gpu, job.threads, 1, cluster.ranks_per_node, one_process=True)
    return Shape(gpu, job.threads, cluster.nodes, cluster.ranks_per_node)


@dataclass(frozen=True)
class Array:
    """Jobs by their places in the list, and those that must have ended well before any of them starts."""

    members: tuple[int, ...]
    after: frozenset[int]
    shape: Shape


def arrays(
    jobs: Sequence[Job],
    after: Sequence[Collection[int]],
    chosen: Collection[int],
    largest: int,
    shape: Callable[[Job], Shape],
) -> Iterator[Array]:
    """Group the chosen jobs: one array for each set of jobs waited for and each shape, in pieces of ``largest``.

    Args:
        after: for each job, the places of those that it waits for. Producers stand before what they produce for, and so
            do their arrays.
    """
    groups: dict[tuple[frozenset[int], Shape], list[int]] = {}
    for place in sorted(chosen):
        groups.setdefault((frozenset(after[place]), shape(jobs[place])), []).append(place)
    for (waited_for, wanted), members in groups.items():
        for first in range(0, len(members), largest):
            yield Array(tuple(members[first : first + largest]), waited_for, wanted)
