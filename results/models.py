"""The tables of the store. They hold what the files of a home say (docs/architecture.md) and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no time zone, so it is put back on reading; naive times count as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None else _utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None else _utc(value)


class Number(TypeDecorator[float]):
    """A double; NaN is kept as NULL because SQLite has no NaN and every database must hold the same."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value != value else value  # noqa: PLR0124  (only NaN differs from itself)


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Names of constraints are fixed so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        # Collation "C": PostgreSQL then orders text by code point as SQLite and Python do.
        str: String().with_variant(String(collation="C"), "postgresql"),
        int: BigInteger,
        float: Number,
        bool: Boolean,
        datetime: UtcDateTime,
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


class Owner(Base):
    """The id of the home whose results the store holds (`results.owner`): one row, or none yet."""

    __tablename__ = "owner"

    home: Mapped[str] = mapped_column(primary_key=True)


class Source(Base):
    """How far one file of the home has been read; ``mtime_ns`` 0 means: look again whatever its size."""

    __tablename__ = "source"

    path: Mapped[str] = mapped_column(primary_key=True)  # relative to the home, so that a home can be moved
    offset: Mapped[int]
    lines: Mapped[int]
    size: Mapped[int]
    mtime_ns: Mapped[int]


class Run(Base):
    """One `study run`: run.json."""

    __tablename__ = "run"
    __table_args__ = (Index(None, "study", "scale", "variant", "run"),)

    run: Mapped[str] = mapped_column(primary_key=True)
    created: Mapped[datetime]
    command: Mapped[list[Any]]
    study: Mapped[str]
    scale: Mapped[str]
    variant: Mapped[str | None]
    seeds: Mapped[list[Any]]
    config: Mapped[dict[str, Any]]
    config_hash: Mapped[str]
    provenance: Mapped[dict[str, Any]]


class Protocol(Base):
    """One entry of a run's protocols.json. Runs repeat protocols; the newest run's label is the one shown."""

    __tablename__ = "protocol"

    protocol: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey("run.run", ondelete="CASCADE"), primary_key=True, index=True)
    definition: Mapped[dict[str, Any]]


class Arm(Base):
    """One line of arms.jsonl: an arm for one seed. ``number`` is its place in the file, from 0."""

    __tablename__ = "arm"

    run: Mapped[str] = mapped_column(ForeignKey("run.run", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    panel: Mapped[str | None]
    arm: Mapped[str]
    seed: Mapped[int]
    control: Mapped[bool]
    attributes: Mapped[dict[str, Any]]


def _of_arm() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["run", "arm_number"], ["arm.run", "arm.number"], ondelete="CASCADE")


class Stage(Base):
    """One stage of an arm."""

    __tablename__ = "stage"
    __table_args__ = (_of_arm(),)

    run: Mapped[str] = mapped_column(primary_key=True)
    arm_number: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    trajectory: Mapped[str]
    start_step: Mapped[int]
    stop_step: Mapped[int]
    start_epoch: Mapped[float]
    stop_epoch: Mapped[float]


class Point(Base):
    """One declared measurement of an arm. It exists before its trajectory and evaluation: no foreign keys."""

    __tablename__ = "point"
    __table_args__ = (_of_arm(),)

    run: Mapped[str] = mapped_column(primary_key=True)
    arm_number: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    stage: Mapped[str]
    stage_epoch: Mapped[float]
    epoch: Mapped[float]
    step: Mapped[int]
    trajectory: Mapped[str]
    evaluation: Mapped[str] = mapped_column(index=True)
    protocol: Mapped[str]
    metric: Mapped[str]
    nfe: Mapped[int | None]


class Trajectory(Base):
    """trajectory.json."""

    __tablename__ = "trajectory"

    trajectory: Mapped[str] = mapped_column(primary_key=True)
    parent_trajectory: Mapped[str | None] = mapped_column(index=True)
    parent_step: Mapped[int | None]
    seed: Mapped[int]
    horizon_steps: Mapped[int | None]
    dynamics: Mapped[dict[str, Any]]


class Attempt(Base):
    """segment.json and DONE.json of one attempt; ``status`` is 'unfinished' while there is no DONE.json."""

    __tablename__ = "attempt"

    trajectory: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str | None]
    status: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str | None]
    start_step: Mapped[int | None]
    stop_step: Mapped[int | None]
    steps: Mapped[int | None]
    seconds: Mapped[float | None]
    seconds_per_step: Mapped[float | None]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    host: Mapped[str | None]
    device: Mapped[str | None]
    threads: Mapped[int | None]
    versions: Mapped[dict[str, Any] | None]
    ranks: Mapped[int | None]


class Metric(Base):
    """One training metric at one step, from the lowest attempt that wrote it; NULL for NaN.

    It comes in the same transaction as its attempt; a foreign key would have it looked up for each of millions of rows.
    """

    __tablename__ = "metric"
    # Without the hidden rowid the primary key is the table: half the size, and ordered as it is read.
    __table_args__ = ({"sqlite_with_rowid": False},)

    trajectory: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    attempt: Mapped[int]


class Evaluation(Base):
    """One measured evaluation, from the lowest attempt that wrote it; NULL for NaN."""

    __tablename__ = "evaluation"
    __table_args__ = (ForeignKeyConstraint(["trajectory", "attempt"], ["attempt.trajectory", "attempt.attempt"]),)

    evaluation: Mapped[str] = mapped_column(primary_key=True)
    trajectory: Mapped[str] = mapped_column(index=True)
    step: Mapped[int]
    weights: Mapped[str]
    protocol: Mapped[str]
    metric: Mapped[str]
    nfe: Mapped[int | None]
    value: Mapped[float | None]
    seconds: Mapped[float | None]
    attempt: Mapped[int]


class Verdict(Base):
    """One line of verdicts.jsonl; ``line`` is its number there, from 1."""

    __tablename__ = "verdict"
    __table_args__ = (Index(None, "study", "scale", "variant"),)

    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    study: Mapped[str]
    scale: Mapped[str]
    variant: Mapped[str | None]
    claim: Mapped[str]
    claim_hash: Mapped[str | None]
    protocol: Mapped[str | None]
    metric: Mapped[str | None]
    verdict: Mapped[str]
    direction: Mapped[str | None]
    effect: Mapped[float | None]
    interval_low: Mapped[float | None]
    interval_high: Mapped[float | None]
    n: Mapped[int | None]
    planned_n: Mapped[int | None]
    time: Mapped[datetime]
