"""One job by several processes of torchrun:

    torchrun --nproc-per-node 2 -m sweeps.ranked HOME JOB.json

JOB.json is the content of a segment.json without its attempt. Exit status 0 when done, 75 when stopped early.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from meanflow_core.ranks import joined
from results.layout import Home
from sweeps.jobs import EXIT_PREEMPTED, Job
from sweeps.peers import END, follow
from sweeps.worker import run_job


def main(home: str, job_file: str) -> int:
    """Do a job with all ranks that the environment names. Returns: the exit status."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, lambda *_: stop.set())
    place, job = Home(Path(home)), Job.model_validate_json(Path(job_file).read_bytes())
    with joined(job.device) as ranks:
        if not ranks.first:
            follow(place, job, stop.is_set, ranks)
            return 0
        status, reason, log = run_job(place, job, should_stop=stop.is_set, ranks=ranks)
        sys.stdout.write(f"{status}" + (f": {reason}" if reason else "") + (f" (log: {log})" if log else "") + "\n")
        ranks.end(END)
    return {"done": 0, "preempted": EXIT_PREEMPTED}.get(status, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
