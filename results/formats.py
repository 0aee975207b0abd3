"""The files of a home as they are read (docs/architecture.md). Fields that are not stored are not named."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticCustomError

from results.layout import FORMAT

Whole = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]  # what a BIGINT holds
Real = Annotated[float, Field(strict=True)]
Name = Annotated[str, Field(strict=True)]
Document = dict[str, Any]


def _known_format(value: int) -> int:
    if value != FORMAT:
        raise PydanticCustomError(
            "format",
            "it is in format {found}, this program reads format {known}; update meanflow-study",
            {"found": value, "known": FORMAT},
        )
    return value


Format = Annotated[int, Field(strict=True), AfterValidator(_known_format)]


class _File(BaseModel):
    """Fields that this version does not know are ignored; another format number is refused."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Line(_File):
    """A line need not repeat the format number, but may."""

    format: Format = FORMAT


class RunFile(_File):
    """run.json"""

    format: Format
    run: Name
    created: datetime
    command: list[Any]
    study: Name
    scale: Name
    variant: Name | None = None
    seeds: list[Whole]
    config: Document
    config_hash: Name
    provenance: Document


class FloorFile(_File):
    """floors/<protocol>.json"""

    format: Format
    protocol: Name
    metric: Name
    value: Real
    draws: Whole


class StageEntry(_File):
    """A stage in a line of arms.jsonl. Epochs may be fractions."""

    name: Name
    trajectory: Name
    start_step: Whole
    stop_step: Whole
    start_epoch: Real
    stop_epoch: Real


class PointEntry(_File):
    """A point in a line of arms.jsonl; ``nfe`` is null for a metric that draws no samples."""

    stage: Name
    stage_epoch: Real
    epoch: Real
    step: Whole
    trajectory: Name
    evaluation: Name
    protocol: Name
    metric: Name
    nfe: Whole | None


class ArmLine(_Line):
    """A line of arms.jsonl. Study, scale and variant are those of the run."""

    panel: Name | None = None
    arm: Name
    seed: Whole
    control: bool = False
    attributes: Document
    stages: list[StageEntry]
    points: list[PointEntry]


class Parent(_File):
    """The checkpoint that a trajectory starts from."""

    trajectory: Name
    step: Whole


class TrajectoryFile(_File):
    """trajectory.json"""

    format: Format
    trajectory: Name
    parent: Parent | None
    seed: Whole
    horizon_steps: Whole | None
    dynamics: Document


class SegmentFile(_File):
    """segment.json, as far as it describes the attempt."""

    format: Format = FORMAT
    kind: Literal["train", "evaluate"]
    start_step: Whole | None = None
    stop_step: Whole | None = None
    device: Name | None = None
    threads: Whole | None = None


class DoneFile(_File):
    """DONE.json. Durations are in seconds; steps count from the root of the chain."""

    format: Format
    status: Literal["done", "failed", "preempted"]
    reason: Name | None = None
    kind: Literal["train", "evaluate"]
    start_step: Whole | None = None
    stop_step: Whole | None = None
    steps: Whole | None = None
    seconds: Real | None = None
    seconds_per_step: Real | None = None
    started: datetime | None = None
    ended: datetime | None = None
    host: Name | None = None
    device: Name | None = None
    threads: Whole | None = None
    versions: Document | None = None
    ranks: Whole | None = None


class MetricsLine(_Line):
    """Training metrics of one step in metrics.jsonl."""

    type: Literal["metrics"]
    step: Whole
    values: dict[str, Real | None]


class EvaluationLine(_Line):
    """One evaluation in metrics.jsonl; ``seconds`` is how long it took."""

    type: Literal["evaluation"]
    evaluation: Name
    step: Whole
    weights: Name
    protocol: Name
    metric: Name
    nfe: Whole | None
    value: Real | None
    seconds: Real | None = None


class VerdictLine(_Line):
    """A line of verdicts.jsonl."""

    study: Name
    scale: Name
    variant: Name | None = None
    claim: Name
    claim_hash: Name | None = None
    protocol: Name | None = None
    metric: Name | None = None
    verdict: Name
    direction: Name | None = None
    effect: Real | None = None
    interval: tuple[Real | None, Real | None] | None = None
    n: Whole | None = None
    planned_n: Whole | None = None
    time: datetime


class CommittedTable(_File):
    """The CSV that a committed record is about; of its ``rows``, so many are ``measured``."""

    file: Annotated[Name, Field(pattern=r"^[A-Za-z0-9_.\-]+\.csv$")]
    sha256: Annotated[Name, Field(pattern=r"^[0-9a-f]{64}$")]
    rows: Whole
    measured: Whole


class CommittedRun(_File):
    """A run whose arms stand in a committed table: what trained them, and where."""

    run: Name
    created: datetime
    seeds: list[Whole]
    commit: Name | None = None
    dirty: bool | None = None
    packages: Document
    machine: Document


class CommittedArm(_File):
    """An arm of a committed table."""

    panel: Name
    arm: Name
    control: bool
    attributes: Document


class CommittedWork(_File):
    """Finished attempts of one kind, device, number of threads and library versions, on the trajectories of a committed
    table; ``hours`` are those of the processes that shared a device, summed up."""

    kind: Literal["train", "evaluate"]
    device: Name | None
    threads: Whole | None
    versions: Document | None
    attempts: Whole
    hours: Real


class CommittedClaim(_File):
    """A claim as its test was declared, and under each reading (``role``, ``protocol``) the arms that it compares, each
    with its stage and, of a trend, its level; or the ``problem`` that stands in the way."""

    id: Name
    hash: Name
    panel: Name
    test: Name
    direction: Name | None
    summary: Name
    window: tuple[Real, Real] | None
    margin: Real | None
    alpha: Real
    readings: list[Document]


class CommittedRecord(_File):
    """<study>_<scale>.json beside a committed table of results: what it was made of, and what is claimed of it."""

    format: Format
    kind: Literal["meanflow-study results"]
    study: Name
    scale: Name
    table: CommittedTable
    config_hash: Name
    config: Document
    runs: Annotated[list[CommittedRun], Field(min_length=1)]
    work: list[CommittedWork]
    arms: list[CommittedArm]
    protocols: dict[str, Document]
    claims: list[CommittedClaim]


ARM_LINE = TypeAdapter(ArmLine)
VERDICT_LINE = TypeAdapter(VerdictLine)
ATTEMPT_LINE: TypeAdapter[MetricsLine | EvaluationLine] = TypeAdapter(
    Annotated[MetricsLine | EvaluationLine, Field(discriminator="type")]
)
