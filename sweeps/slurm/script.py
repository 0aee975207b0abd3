"""A job array as the text of a batch script, rendered by submitit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sweeps.slurm.arrays import Shape
from sweeps.slurm.profile import Cluster

SIGNAL = "USR2"  # what submitit has SLURM send before the time limit


def parameters(cluster: Cluster, shape: Shape, minutes: int, name: str, after: Collection[str]) -> dict[str, Any]:
    """What an array asks for, in submitit's names.

    Args:
        after: SLURM's ids of the jobs that must have ended well.
    """
    cpus = cluster.cpus or shape.threads
    cpus *= shape.ranks if shape.one_process else 1
    gpus = cluster.gpus * shape.ranks if shape.gpu else 0
    together = ["--kill-on-bad-exit=1"] if shape.tasks > 1 else []  # the others would wait for one that is gone
    wanted = {
        "job_name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "time": minutes,
        "cpus_per_task": cpus,
        "gpus_per_node": gpus or None,
        "nodes": shape.nodes,
        "ntasks_per_node": shape.ranks if shape.tasks > 1 else None,
        "mem": f"{round(cluster.memory_gib * 1024)}M" if cluster.memory_gib else None,
        "dependency": "afterok:" + ":".join(sorted(after, key=_numbers)) if after else None,
        "signal_delay_s": cluster.signal_before_s,
        "array_parallelism": cluster.max_running,
        "stderr_to_stdout": True,
        "wckey": "meanflow-study",
        "srun_args": [f"--cpus-per-task={cpus}", *together],  # since SLURM 22.05, srun does not take it from the job
        "setup": ["export PYTHONSAFEPATH=1", *cluster.setup],
        "additional_parameters": {
            "requeue": True,
            "kill-on-invalid-dep": "yes",  # what waits for a job that failed would wait for ever
            **{option: value for option, value in cluster.options.items() if value is not False},
        },
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _numbers(slurm_id: str) -> list[int | str]:
    """Sorts 9 before 10, and leaves what is no number (a dry run) in place."""
    return [int(part) if part.isdigit() else -1 for part in slurm_id.split("_")]


def render(wanted: Mapping[str, Any], folder: Path, members: int, python: str) -> str:
    """The batch script of an array, as it would be submitted."""
    from submitit.slurm.slurm import _make_sbatch_string

    text: str = _make_sbatch_string(
        command=f"{python} -u -m submitit.core._submit {folder}",
        folder=folder,
        map_count=members if members > 1 else None,
        **wanted,
    )
    return text
