"""A cluster's profile: which resources jobs ask for, and how. Torch-free.

A profile is a YAML file; those in ``sweeps/clusters`` are known by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, field_validator

from meanflow_core.strict import written_by_hand
from meanflow_core.words import refusal, there_is
from studies.errors import StudyError
from studies.strict import Strict, in_one_message
from studies.yamlfile import read_yaml

BUILTIN = Path(__file__).parent.parent / "clusters"

# What we say ourselves; an option of the same name would contradict it.
OURS = frozenset(
    """account array chdir comment constraint cpus-per-task dependency error export gpus gpus-per-node job-name
    kill-on-invalid-dep mem nodes ntasks ntasks-per-node open-mode output partition qos requeue no-requeue signal time
    wckey wrap""".split()  # noqa: SIM905
)


class TimeLimit(Strict):
    """How many minutes a job asks for: ``margin`` times what it is estimated to take, and ``startup_min`` to begin, but
    no less than ``min_min`` and no more than ``max_min``; ``max_min`` where nothing is known. What takes longer is
    saved at the limit and goes back into the queue."""

    min_min: PositiveInt = 10
    max_min: PositiveInt = 24 * 60
    margin: float = Field(default=1.5, ge=1.0)
    startup_min: PositiveFloat = 2.0

    def minutes(self, seconds: float | None) -> int:
        """Minutes to ask for, for a job that is estimated to take so many seconds (None: nobody knows)."""
        if seconds is None:
            return self.max_min
        wanted = self.startup_min + self.margin * seconds / 60
        return max(min(self.min_min, self.max_min), min(self.max_min, -int(-wanted // 1)))


class Cluster(Strict):
    """What jobs ask for. A training job has ``ranks_per_node`` processes on each of ``nodes``, which share every batch;
    what measures has one. ``gpus`` and ``cpus`` are a process's: GPUs for jobs that run on one, cores by default as
    many as the scale has threads. ``memory_gib`` is a node's.

    ``options`` are further options of sbatch by their long names, e.g. ``{mail-type: FAIL, exclusive: true}``;
    ``setup``, shell commands that run on the node first. ``signal_before_s`` is how long before its time limit a job is
    told to save. ``max_running`` bounds how many jobs of one array run at once, ``max_array_size`` how many an array
    has (by default what the cluster allows). ``poll_s`` is how often a command that waits asks for the queue.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: PositiveInt = 1
    ranks_per_node: PositiveInt = 1
    gpus: NonNegativeInt = 0
    cpus: PositiveInt | None = None
    memory_gib: PositiveFloat | None = None
    time: TimeLimit = TimeLimit()
    signal_before_s: PositiveInt = 120
    max_running: PositiveInt = 64
    max_array_size: PositiveInt | None = None
    poll_s: PositiveFloat = 30.0
    python: str | None = None
    setup: tuple[str, ...] = ()
    options: dict[str, Annotated[str | int | bool, in_one_message("a text, a whole number, true or false")]] = {}

    @field_validator("options")
    @classmethod
    def _not_ours(cls, options: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        named = {name.replace("_", "-").lstrip("-"): value for name, value in options.items()}
        if clash := sorted(named.keys() & OURS):
            known = ", ".join(name for name in cls.model_fields if name != "options")
            raise ValueError(
                f"'{clash[0]}' is set by the program, or has a key of its own in the profile (available: {known})"
            )
        return named


def builtin_clusters() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in BUILTIN.glob("*.yaml"))


def load_cluster(name: str) -> Cluster:
    """A profile by its name or path. Raises: StudyError that names file, line and key."""
    looks_like_file = name.endswith((".yaml", ".yml")) or "/" in name
    if not looks_like_file and name not in builtin_clusters():
        raise StudyError(
            f"unknown cluster profile '{name}'{there_is(name, builtin_clusters())}; one of your own is given by its "
            "path, ./mycluster.yaml"
        )
    file = read_yaml(Path(name).expanduser() if looks_like_file else BUILTIN / f"{name}.yaml")
    try:
        with written_by_hand():
            return Cluster.model_validate(file.data)
    except ValidationError as error:
        said = []
        for item in error.errors():
            _, line = file.find(tuple(item["loc"]))
            known = Cluster.model_fields if len(item["loc"]) == 1 else TimeLimit.model_fields
            message = refusal(item)
            if item["type"] == "extra_forbidden":
                message += there_is(item["loc"][-1], known, shown=20)
            said.append(f"{file.path}:{line}: {'.'.join(map(str, item['loc']))}: {message}")
        raise StudyError("\n".join(said)) from None
