"""Why an attempt ended before its time, in one of few words, from what it left in its folder."""

from __future__ import annotations

import re
from typing import Literal, get_args

from results.stored import AttemptRecord
from sweeps.cancelling import CANCELLED

Cause = Literal["preempted", "timeout", "out of memory", "lost", "cancelled", "user error", "failed"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
VAIN: frozenset[Cause] = frozenset({"user error"})  # trying again ends the same until something is fixed

_MEMORY = re.compile(
    r"\b(OutOfMemoryError|MemoryError|out of memory|oom[- _]?kill\w*|not enough memory)\b", re.IGNORECASE
)
_TIME = re.compile(r"\b(time limit|timeout|timed out)\b", re.IGNORECASE)
_LOST = re.compile(r"\bended without a word\b")  # one of several ranks
# They say what has to be changed; until then trying again ends the same.
_USER = re.compile(r"(Diverged|CheckpointError|DataError|EvaluationError|ComponentError|StudyError)\b")


def cause_of(attempt: AttemptRecord) -> Cause | None:
    """Why an attempt that is over did not do its work; None where it did. One that left no ``DONE.json`` is lost (its
    process or machine died), unless it still runs, which its lease knows."""
    if attempt.status == "done":
        return None
    if attempt.status == "unfinished":
        return "lost"
    return cause_of_reason(attempt.reason or "", attempt.status == "preempted")


def cause_of_reason(reason: str, preempted: bool = False) -> Cause:
    """The same of what an attempt gave as its reason."""
    if reason == CANCELLED:
        return "cancelled"
    if _MEMORY.search(reason):
        return "out of memory"
    if not preempted and _USER.match(reason):
        return "user error"
    if _TIME.search(reason):
        return "timeout"
    if _LOST.search(reason):
        return "lost"
    return "preempted" if preempted else "failed"
