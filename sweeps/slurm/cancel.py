"""Taking jobs out of SLURM's queue, with a line that says it was us."""

from __future__ import annotations

from collections.abc import Collection

from results.layout import Home
from sweeps.cancelling import CANCELLED
from sweeps.jobs import now
from sweeps.slurm import queue as slurm
from sweeps.slurm.ledger import OutcomeLine
from sweeps.slurm.live import live


def cancel_in_queue(home: Home, work: Collection[tuple[str, str]]) -> list[str]:
    """Cancel the jobs of a home that wait, of some kinds on some trajectories; those that run look for the request
    themselves, and save.

    Returns: SLURM's ids of what was cancelled. Raises: SlurmError.
    """
    queued = slurm.queue()
    hit = [one for one in live(home, queued) if (one.job.kind, one.job.trajectory) in work]
    waiting = [one for one in hit if not queued[one.slurm_id].running]
    for one in waiting:
        one.submission.ended(one.index, OutcomeLine(status="cancelled", reason=CANCELLED, time=now()))
    slurm.cancel([one.slurm_id for one in waiting])
    return [one.slurm_id for one in waiting]
