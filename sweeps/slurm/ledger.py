"""What was submitted, in files: a submission is one job array, and survives whoever submitted it.

submissions/<name>/
    submission.json     written before sbatch is called: SLURM knows the array by this name
    jobs/0003.json      the job of task 3
    slurm.json          SLURM's id, once it is known
    private/            submitit's script, pickles and logs; only the owner may look inside
    outcomes/0003.jsonl how each execution of task 3 ended
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from results.layout import Home
from sweeps.attempt import write_atomically
from sweeps.jobs import Job, now
from sweeps.slurm.queue import PREFIX


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1


class SubmissionFile(_File):
    """submission.json"""

    name: str
    created: str
    members: PositiveInt
    minutes: PositiveInt
    after: tuple[str, ...] = ()


class SlurmFile(_File):
    """slurm.json; ``slurm_job`` is None for an array that SLURM never took."""

    slurm_job: str | None


class OutcomeLine(BaseModel):
    """How one execution of a task ended: as its attempt did; ``missing`` where its input was not there; ``cancelled``
    by us; ``lost`` where one of its processes died without a word."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["done", "failed", "preempted", "busy", "missing", "cancelled", "lost"]
    reason: str | None = None
    log: str | None = None
    steps: NonNegativeInt = 0
    restarts: NonNegativeInt = 0
    time: str


class Submission:
    """One job array, in its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def private(self) -> Path:
        return self.root / "private"

    @property
    def record(self) -> SubmissionFile:
        return SubmissionFile.model_validate_json((self.root / "submission.json").read_bytes())

    @property
    def asked(self) -> float:
        """When its jobs were asked for, in seconds since the epoch, by the file system's clock."""
        return (self.root / "submission.json").stat().st_mtime

    @property
    def slurm_file(self) -> SlurmFile | None:
        """SLURM's answer; None while it is not known whether SLURM took the array."""
        try:
            return SlurmFile.model_validate_json((self.root / "slurm.json").read_bytes())
        except FileNotFoundError:
            return None

    def answered(self, slurm_job: str | None) -> None:
        write_atomically(self.root / "slurm.json", SlurmFile(slurm_job=slurm_job).model_dump_json())

    def job(self, index: int) -> Job:
        return Job.model_validate_json((self.root / "jobs" / f"{index:04d}.json").read_bytes())

    def ended(self, index: int, line: OutcomeLine) -> None:
        path = self.root / "outcomes" / f"{index:04d}.jsonl"
        with path.open("a", encoding="utf-8") as f:
            f.write(line.model_dump_json() + "\n")

    def outcomes(self, index: int) -> list[OutcomeLine]:
        """How the executions of a task ended so far, oldest first; a line that is cut off counts for nothing."""
        path = self.root / "outcomes" / f"{index:04d}.jsonl"
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_bytes().splitlines(keepends=True):
                with contextlib.suppress(ValidationError):
                    found.append(OutcomeLine.model_validate_json(line))
        return found


def create(home: Home, jobs: Sequence[Job], minutes: int, after: Sequence[str]) -> Submission:
    """Write down what is about to be submitted."""
    home.submissions.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = f"{PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    submission = Submission(home.submissions / name)
    submission.root.mkdir(mode=0o700)
    for folder in ("jobs", "outcomes", "private"):
        (submission.root / folder).mkdir(mode=0o700)
    for index, job in enumerate(jobs):
        write_atomically(submission.root / "jobs" / f"{index:04d}.json", job.model_dump_json())
    record = SubmissionFile(name=name, created=now(), members=len(jobs), minutes=minutes, after=tuple(after))
    write_atomically(submission.root / "submission.json", record.model_dump_json(indent=1))
    return submission


def submissions(home: Home) -> Iterator[Submission]:
    """All submissions that were written down whole, oldest first."""
    if home.submissions.is_dir():
        for root in sorted(home.submissions.glob(f"{PREFIX}*")):
            if (root / "submission.json").is_file():
                yield Submission(root)


def task_id(slurm_job: str, members: int, index: int) -> str:
    """SLURM's id of one task of an array; a single job is no array."""
    return slurm_job if members == 1 else f"{slurm_job}_{index}"
