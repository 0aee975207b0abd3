"""A trainer of your own on a real SLURM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.plan import Inventory
from sweeps.program.opaque import hashes
from sweeps.session import open_session
from sweeps.slurm.submit import submit_missing
from sweeps.worker import run_job
from tests.homes import TINY, wait_for
from tests.slurm import SlurmCluster
from tests.sweeps.test_slurm import PROFILE, follow

pytestmark = pytest.mark.slurm


def test_a_trainer_of_ones_own_is_told_before_its_job_is_requeued(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Its program saves at SLURM's signal, goes on in the next execution, and ends as it would have undisturbed."""
    own, home = Path(shutil.copytree(TINY.parent / "trainer", tmp_path / "own")), Home(tmp_path / "home")
    text = (own / "train.py").read_text()
    (own / "train.py").write_text(
        text.replace("        towards =", "        __import__('time').sleep(0.1)\n        towards =")
    )
    one = "panels.all.arms={v_epochs: [4], u_epochs: [0]}"
    session = open_session([resolve(load_source(str(own / "foreign.yaml")), "cpu", [one])])
    job = next(job for job in session.jobs(Inventory()) if job.kind == "train")
    (placed,) = submit_missing(home, [job], PROFILE, lambda job: None).values()
    assert wait_for(lambda: any(home.trajectories.glob("*/attempts/*/staged-program/metrics.jsonl")))
    slurm.call("scancel", "--signal=USR2", placed.slurm_id)
    assert follow(home, [job]).complete
    first, *others = [json.loads(path.read_text()) for path in sorted(home.trajectories.glob("*/attempts/*/DONE.json"))]
    assert (first["status"], first["stop_step"] > 0) == ("preempted", True)
    assert [done["start_step"] for done in others] == [first["stop_step"]]
    quiet = Home(tmp_path / "quiet")
    assert run_job(quiet, job)[0] == "done"
    ends = [place.trajectory(job.trajectory).checkpoint(80) / "state" for place in (home, quiet)]
    assert hashes(ends[0]) == hashes(ends[1])
