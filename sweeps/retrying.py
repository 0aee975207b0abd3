"""What of the work that did not end well is worth another attempt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from results.stored import AttemptRecord
from sweeps.causes import VAIN, Cause
from sweeps.selection import Filter, Selected
from sweeps.standing import Work, by_arm, place_of


@dataclass(frozen=True)
class Verdict:
    """Work that is not done: whether it is tried ``again``, and ``why`` not. ``cause`` and ``reason`` say how its
    newest attempt ended; where the cause is None it was never begun, and waits for something that did not end well.
    What was cancelled before it was begun has that for a cause."""

    work: Work
    again: bool
    cause: Cause | None = None
    reason: str | None = None
    why: str | None = None


def verdicts(
    selected: Sequence[Selected],
    found: Sequence[Sequence[Work]],
    attempts: Sequence[AttemptRecord],
    cancelled: Callable[[Work], bool],
    asked: Filter,
    limit: int,
    force: bool,
) -> list[Verdict]:
    """The work of arms of which something did not end well, parents before children.

    Args:
        found: the work of each selected study, as it stands.
        attempts: those on their trajectories.
        cancelled: whether somebody asked for work that was never begun to end.
        limit: how many attempts that did not end well are enough.
    """

    def cause_of(work: Work) -> Cause | None:
        never_begun = work.standing == "missing" and work.attempt is None
        return "cancelled" if never_begun and cancelled(work) else work.cause

    made: dict[object, Verdict] = {}
    for one, works in zip(selected, found, strict=True):
        ends = {key: node.boundaries() for key, node in one.stored.session.tree.nodes.items()}
        bad = [a for a in attempts if a.trajectory in ends and a.status != "done"]
        tried = Counter(place_of(ends, attempt) for attempt in bad)
        concerned = {
            work.place
            for of_arm in by_arm(one.arms, works)
            if any(cause_of(work) is not None and asked.wants(work.standing, work.kind) for work in of_arm)
            for work in of_arm
        }
        for work in works:
            if work.place in concerned and work.standing not in {"done", "running", "queued"}:
                made.setdefault(work.place, _verdict(work, cause_of(work), tried[work.place], limit, force))
    return list(made.values())


def _verdict(work: Work, cause: Cause | None, tried: int, limit: int, force: bool) -> Verdict:
    if cause is None or work.attempt is None:
        return Verdict(work, True, cause)
    reason = work.attempt.reason
    if not force and cause in VAIN:
        return Verdict(work, False, cause, reason, "it would end the same: mend it, then --force")
    if not force and tried >= limit:
        return Verdict(work, False, cause, reason, f"tried {tried} times: --limit, or --force")
    return Verdict(work, True, cause, reason)
