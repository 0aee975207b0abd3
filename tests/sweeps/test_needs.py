"""What a job needs, and what counts as there."""

from __future__ import annotations

from pathlib import Path

from meanflow_core.config import Checkpoint
from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.needs import inputs_ready, missing_input
from sweeps.plan import Inventory
from sweeps.session import open_session
from sweeps.worker import run_job
from tests.homes import TINY, tensors


def test_what_another_command_has_passed_is_not_missing(tmp_path: Path) -> None:
    """A job was planned from a rolling checkpoint; whoever trains there has saved the next one and removed it."""
    jobs = open_session([resolve(load_source(str(TINY)), "cpu")]).jobs(Inventory())
    job = next(job for job in jobs if job.kind == "train" and job.steps == 80 and job.parent is None)
    home, alone = Home(tmp_path / "home"), Home(tmp_path / "alone")
    planned = job.model_copy(update={"start_step": 30})
    assert missing_input(home, planned) == Checkpoint(job.trajectory, 30)
    first = job.model_copy(update={"stop_step": 40, "full_steps": (40,), "snapshot_steps": (), "evaluations": ()})
    assert run_job(home, first)[0] == "done"
    assert inputs_ready(home, planned)
    assert missing_input(home, job.model_copy(update={"start_step": 50})) == Checkpoint(job.trajectory, 50)
    assert run_job(home, planned)[0] == "done"
    assert run_job(alone, job)[0] == "done"
    ends = [
        {path: sha for path, sha in tensors(place.root).items() if "/000000080/" in path} for place in (alone, home)
    ]
    assert ends[0]
    assert ends[0] == ends[1]
