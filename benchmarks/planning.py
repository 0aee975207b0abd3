"""CPU time of planning and scheduling at sizes n, 2n and 4n, and the ratios: about 2 each where all is linear.

    python benchmarks/planning.py

Three ways to grow, up to 100 arms × 10 seeds and to a tree of 10 000 segments: more arms; more seeds; and more branch
points on one trajectory. The scheduler hands all jobs to 64 simulated nodes, so what is left is its own time, that of
the simulation, and that of the file system (in memory, where there is /dev/shm).
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.simulate import Nobody
from results.layout import Home
from studies.arms import expand
from studies.loader import load_source, resolve
from studies.schema import ResolvedStudy
from sweeps.cost import Rates
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.scheduler import Scheduler
from sweeps.session import Session
from sweeps.simulation import Cluster
from sweeps.tree import build_tree

NODES = 64
PHASES = ("expand", "tree", "jobs", "cost", "all of planning", "schedule")
SHAPES: dict[str, list[tuple[int, int]]] = {  # (arms, seeds)
    "more arms": [(25, 10), (50, 10), (100, 10)],
    "more seeds": [(100, 12), (100, 25), (100, 50)],
    "more branch points": [(1250, 1), (2500, 1), (5000, 1)],
}


def synthetic(arms: int, seeds: int) -> ResolvedStudy:
    """Every arm branches off one trajectory of v at a point of its own, and trains u for 60 epochs."""
    panel = f"panels={{top: {{title: x, arms: {{v_epochs: {list(range(1, arms + 1))}, u_epochs: 60}}}}}}"
    metric = "{name: frechet, features: inception}"
    once = f"measure=[{{metric: {metric}, samples: 50000, stages: [u_finetune], every_epochs: 10}}]"
    overrides = [panel, once, "controls={}", "claims=[]", "figure=null"]
    return resolve(load_source("obs_v_then_u"), "paper", overrides, range(seeds))


def schedule(jobs: list[Job]) -> None:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        cluster = Cluster(Home(Path(folder)), NODES, lambda job: 1.0 + job.steps)
        outcome = Scheduler(cluster.home, cluster, jobs, Nobody(), cluster.clock).run()
        assert outcome.complete and outcome.done == len(jobs)


def measure(arms: int, seeds: int) -> tuple[dict[str, float], str]:
    """Seconds of each phase, and how big it was."""
    seconds: dict[str, float] = {}

    def timed(phase: str, work: Callable[[], Any]) -> Any:
        gc.collect()
        began = process_time()
        result = work()
        seconds[phase] = process_time() - began
        return result

    study = synthetic(arms, seeds)
    expanded = tuple(timed("expand", lambda: expand(study)))
    tree = timed("tree", lambda: build_tree(expanded, {study.study: study.steps_per_epoch}))
    session = Session((study,), expanded, tree)
    jobs = timed("jobs", lambda: session.jobs(Inventory()))
    timed("cost", lambda: session.cost(jobs, Rates()))
    seconds["all of planning"] = sum(seconds.values())
    timed("schedule", lambda: schedule(jobs))
    return seconds, f"{arms} arms × {seeds} seeds: {tree.segments()} segments, {len(jobs)} jobs"


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of planning and scheduling at sizes n, 2n and 4n.")
    parser.add_argument("--shape", choices=list(SHAPES), nargs="+", default=list(SHAPES))
    args = parser.parse_args()
    print(f"CPU seconds, load {os.getloadavg()[0]:.1f}")
    for shape in args.shape:
        print(f"\n| {shape} | " + " | ".join(PHASES) + " |\n" + "|---" * (1 + len(PHASES)) + "|")
        before: dict[str, float] = {}
        for arms, seeds in SHAPES[shape]:
            now, size = measure(arms, seeds)
            ratio = {phase: f" (×{now[phase] / before[phase]:.1f})" for phase in before}
            cells = [f"{now[phase]:.2f}{ratio.get(phase, '')}" for phase in PHASES]
            print(f"| {size} | " + " | ".join(cells) + " |", flush=True)
            before = now


if __name__ == "__main__":
    main()
