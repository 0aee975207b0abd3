"""SLURM's own commands: what is in the queue, how a job ended, cancelling and requeueing. Works without accounting."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from studies.errors import StudyError

TIMEOUT_S = 60
CHUNK = 200  # ids a command line
PREFIX = "study-"
NEVER = "DependencyNeverSatisfied"

# Why jobs wait where all is well: what is before them, what they start from, what the cluster has and who may use it.
ORDINARY = re.compile(
    r"None|Priority|Resources|Dependency|BeginTime|Cleaning|Prolog|Licenses|Reservation|JobArrayTaskLimit|(Assoc|QOS)Grp\w+"
)
HELD = re.compile(r"held", re.IGNORECASE)  # JobHeldUser, JobHeldAdmin, launch failed requeued held


class SlurmError(StudyError):
    """SLURM's commands are missing, or refuse."""


class SlurmDown(SlurmError):
    """The controller does not answer at present."""


@dataclass(frozen=True)
class Queued:
    """A job in the queue. ``slurm_id`` is 12, or 12_3 for a task of an array; ``name`` begins with `PREFIX`."""

    slurm_id: str
    name: str
    state: str
    reason: str

    @property
    def running(self) -> bool:
        return self.state in {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING"}

    @property
    def stuck(self) -> str | None:
        """Why it may wait until somebody does something, in SLURM's words and what that is; None where all is well."""
        if self.running or not self.reason or self.reason == NEVER or ORDINARY.fullmatch(self.reason):
            return None
        release = f": 'scontrol release {self.slurm_id}' lets it go on" if HELD.search(self.reason) else ""
        return f"is held up in SLURM's queue as job {self.slurm_id} ({self.reason}){release}"


def call(command: Sequence[str]) -> str:
    """Standard output of one of SLURM's commands. Raises: SlurmDown, SlurmError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise SlurmError(
            f"there is no '{command[0]}' here: --backend slurm runs on a machine that can submit to SLURM"
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmDown(f"'{command[0]}' gave no answer within {TIMEOUT_S} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        down = re.search(r"contact slurm controller|Connection refused|Socket timed out|Zero Bytes", said)
        raise (SlurmDown if down else SlurmError)(f"{' '.join(command[:2])}: {said}")
    return done.stdout


def queue() -> dict[str, Queued]:
    """Our jobs that are pending or running, by id; arrays task by task."""
    listed = call(["squeue", "--me", "--noheader", "--array", "--format=%i|%j|%T|%r"])
    found = {}
    for line in listed.splitlines():
        slurm_id, name, state, reason = line.strip().split("|", 3)
        if name.startswith(PREFIX):
            found[slurm_id] = Queued(slurm_id, name, state, reason)
    return found


def ended(slurm_id: str) -> str | None:
    """How a job that left the queue ended, in SLURM's words (TIMEOUT, OUT_OF_MEMORY, ...): from the controller as long
    as it remembers, else from accounting where there is any; None if neither knows. Raises: SlurmDown."""
    known = _told(["scontrol", "show", "job", "--oneliner", slurm_id])
    if found := re.search(r"\bJobState=(\S+)", known):
        return found[1]
    accounted = _told(
        ["sacct", "--noheader", "--parsable2", "--allocations", "--format=State", "--jobs", slurm_id]
    ).split()
    return accounted[0] if accounted else None


def _told(command: Sequence[str]) -> str:
    """What one of SLURM's commands says of a job; nothing where it has forgotten the job, or is not there itself."""
    try:
        return call(command)
    except SlurmDown:
        raise
    except SlurmError:
        return ""


def cancel(slurm_ids: Collection[str]) -> None:
    """Cancel jobs; those that are over already are no error."""
    ids = sorted(slurm_ids)
    for first in range(0, len(ids), CHUNK):
        try:
            call(["scancel", *ids[first : first + CHUNK]])
        except SlurmDown:
            raise
        except SlurmError as error:
            if "Invalid job id" not in str(error):
                raise


def requeue(slurm_id: str) -> None:
    """Put a running job back into the queue; SLURM ends it."""
    call(["scontrol", "requeue", slurm_id])


def max_array_size() -> int:
    """How many jobs an array of this cluster can have."""
    said = re.search(r"^MaxArraySize\s*=\s*(\d+)", call(["scontrol", "show", "config"]), re.MULTILINE)
    return max(1, int(said[1])) if said else 1000
