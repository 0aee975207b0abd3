"""The worker's contract: what stands in ``segment.json`` and ``DONE.json``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from meanflow_core.config import Checkpoint, Dynamics, Protocol, trajectory_key
from meanflow_core.own import Source, with_sources
from meanflow_core.registry import spec_field
from sweeps.rolling import APART_S

EXIT_PREEMPTED = 75  # sysexits' EX_TEMPFAIL: stopped early at a step boundary, state saved

Status = Literal["done", "failed", "preempted", "busy"]
Progress = Callable[[int], None]  # told the step reached, or the number of evaluations done
ShouldStop = Callable[[], bool]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1


class WantedEvaluation(BaseModel):
    """One evaluation of a job: its key, its step and its protocol."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evaluation: str
    step: NonNegativeInt
    protocol: Protocol


class Job(_Record):
    """One unit of work on one trajectory: train a segment (start, stop], or evaluate some of its checkpoints.

    Of a training job, ``evaluations`` are those that are observed while training passes their step, and ``rolling_s``
    are seconds between checkpoints to resume from (`sweeps.rolling`), besides those every ``checkpoint_every_steps``.
    ``sources`` are the files that components of the user's own come from.
    """

    kind: Literal["train", "evaluate"]
    trajectory: str
    dynamics: Dynamics
    seed: int
    horizon_steps: PositiveInt | None = None
    parent: Checkpoint | None = None
    start_step: NonNegativeInt
    stop_step: NonNegativeInt
    full_steps: tuple[int, ...] = ()
    snapshot_steps: tuple[int, ...] = ()
    evaluations: tuple[WantedEvaluation, ...] = ()
    log_every_steps: PositiveInt = 100
    checkpoint_every_steps: PositiveInt | None = None
    rolling_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = APART_S
    observers: tuple[spec_field("observer"), ...] = ()  # type: ignore[valid-type]
    divergence: PositiveFloat = 1e4
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = 1
    sources: dict[str, Source] = {}

    @model_validator(mode="before")
    @classmethod
    def _sources_first(cls, given: Any) -> Any:
        return with_sources(given)

    @property
    def name(self) -> str:
        return f"{self.kind} {self.trajectory[:8]} {self.start_step}→{self.stop_step} (seed {self.seed})"

    @property
    def steps(self) -> int:
        return self.stop_step - self.start_step

    def check_key(self) -> None:
        """Raises: ValueError if the trajectory key is not the one that these dynamics have."""
        key = trajectory_key(self.parent, self.dynamics, self.seed, self.horizon_steps)
        if key != self.trajectory:
            raise ValueError(f"trajectory {self.trajectory} does not belong to these dynamics (theirs is {key})")


class Done(_Record):
    """How an attempt ended. An attempt without one is running or lost."""

    status: Status
    reason: str | None = None
    kind: Literal["train", "evaluate"]
    start_step: int
    stop_step: int
    steps: int = Field(ge=0)
    seconds: float
    seconds_per_step: float | None = None
    started: str
    ended: str
    host: str
    device: str
    threads: int
    ranks: PositiveInt = 1
    versions: dict[str, str] = {}


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
