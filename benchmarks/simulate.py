"""The whole paper on a simulated cluster: the real plan and the real scheduler, on workers that only pretend.

    python benchmarks/simulate.py                       # 64 nodes; 1, 5 and 20 seeds
    python benchmarks/simulate.py --failure-days 3

Every study at the scales `paper` and `paper-ffhq`, from an empty home. How long a job takes is its useful FLOPs
(`sweeps.cost`) over the rate of a node, evaluations included. With troubles, every node fails and is taken away at
random times; a job whose node fails loses what it did since its last checkpoint, and both take time to start again.

The ideal is the larger of the critical path and of work over nodes: no schedule can be shorter.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from results.layout import Home
from studies.loader import builtin_names, load_source, resolve
from sweeps.backend import Event, Outcome
from sweeps.cost import Rates
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.scheduler import Scheduler
from sweeps.session import open_session
from sweeps.simulation import Cluster, Troubles, critical_path

SCALES = ("paper", "paper-ffhq")
DAY = 86400.0
HOUR = 3600.0
HEAD = (
    "seeds",
    "jobs",
    "work, node-hours",
    "critical path, h",
    "work / nodes, h",
    "ideal, h",
    "makespan, h",
    "to ideal",
    "with troubles, h",
    "to ideal",
    "failures, preemptions",
    "lost, node-hours",
    "simulated in, s",
)


class Nobody:
    """A watcher that looks away."""

    def event(self, event: Event) -> None: ...

    def waiting(self, job: Job, holder: str) -> None: ...

    def tick(self, running: Sequence[Job]) -> None: ...


@dataclass
class Work:
    """Jobs, parents before children, and how long each takes."""

    jobs: list[Job]
    of: dict[str, float]

    def seconds(self, job: Job) -> float:
        return self.of[job.name]


def whole_paper(seeds: Sequence[int], flops_per_s: float) -> Work:
    """Everything that the paper needs, seed by seed."""
    work = Work([], {})
    rates = Rates(flops_per_s={"dit": flops_per_s, "mlp": flops_per_s})
    for scale in SCALES:
        sources = [source for name in builtin_names() if scale in (source := load_source(name)).data["scales"]]
        session = open_session([resolve(source, scale, (), seeds) for source in sources])
        jobs = session.jobs(Inventory())
        for job in jobs:
            cost = session.cost([job], rates)
            assert cost.gpu_hours is not None and cost.evaluation_hours is not None
            work.of[job.name] = HOUR * (cost.gpu_hours + cost.evaluation_hours)
        work.jobs += jobs
    assert len(work.of) == len(work.jobs), "two jobs share a name"
    work.jobs.sort(key=lambda job: job.seed)
    return work


def simulate(work: Work, nodes: int, troubles: Troubles, seed: int = 0) -> tuple[Cluster, Outcome]:
    """Let the scheduler do the work on a cluster."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Home(Path(folder)), nodes, work.seconds, troubles, seed)
        return cluster, Scheduler(cluster.home, cluster, work.jobs, Nobody(), cluster.clock).run()


def main() -> None:
    parser = argparse.ArgumentParser(description="Makespan of the whole paper on a simulated cluster.")
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 5, 20], help="how many, for each simulation")
    parser.add_argument("--flops", type=float, default=2e14, help="useful FLOP/s of a node")
    parser.add_argument("--failure-days", type=float, default=30.0, help="mean days until a node fails")
    parser.add_argument("--preemption-days", type=float, default=7.0, help="mean days until a node is taken away")
    parser.add_argument("--startup-minutes", type=float, default=5.0, help="until a job trains")
    args = parser.parse_args()
    bad = Troubles(args.failure_days * DAY, HOUR, args.preemption_days * DAY, HOUR, 60 * args.startup_minutes)
    print(
        f"{args.nodes} nodes of {args.flops:g} FLOP/s. With troubles, a node fails once in {args.failure_days:g} days "
        f"and is taken away once in {args.preemption_days:g}, both for an hour, and a job takes "
        f"{args.startup_minutes:g} min to start.\n"
    )
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for seeds in args.seeds:
        print("| " + " | ".join(row(whole_paper(range(seeds), args.flops), args.nodes, bad)) + " |", flush=True)


def row(work: Work, nodes: int, troubles: Troubles) -> list[str]:
    began = perf_counter()
    total, path = sum(work.of.values()), critical_path(work.jobs, work.seconds)
    ideal = max(path, total / nodes)
    spans, ends, lost = [], Counter[str](), 0.0
    for trouble in (Troubles(), troubles):
        cluster, outcome = simulate(work, nodes, trouble)
        assert outcome.complete, f"{len(outcome.failures)} jobs failed, {len(outcome.blocked)} are blocked"
        spans.append(cluster.now)
        ends = Counter(stint.how for stint in cluster.trace)
        lost = sum(stint.end - stint.start for stint in cluster.trace) - total
    cells = [total, path, total / nodes, ideal]
    return [
        str(len({job.seed for job in work.jobs})),
        str(len(work.jobs)),
        *(f"{cell / HOUR:,.0f}" for cell in cells),
        *(cell for span in spans for cell in (f"{span / HOUR:,.0f}", f"{span / ideal:.3f}")),
        f"{ends['lost']}, {ends['preempted']}",
        f"{lost / HOUR:,.0f}",
        f"{perf_counter() - began:.1f}",
    ]


if __name__ == "__main__":
    main()
