"""A trainer of your own that does not do what it should: what is said, and that nothing wrong is published."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import psutil
import pytest

from results.layout import Home
from scripts.make_schemas import FOLDER, schemas
from studies.loader import load_source, resolve
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.program.opaque import hashes
from sweeps.program.verifying import missing_proof, trials_of, verify_program
from sweeps.session import open_session
from sweeps.slurm.arrays import shape_of
from sweeps.slurm.profile import Cluster
from sweeps.slurm.script import parameters
from sweeps.worker import run_job
from tests.homes import wait_for

ASSETS = Path(__file__).parents[1] / "assets" / "trainer"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The trainer and its study, in a folder of the user's."""
    return Path(shutil.copytree(ASSETS, tmp_path / "own"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def changed(own: Path, old: str, new: str) -> None:
    text = (own / "train.py").read_text()
    assert old in text, old
    (own / "train.py").write_text(text.replace(old, new))


def jobs_of(own: Path, *overrides: str) -> list[Job]:
    """Training the only stage of 20 steps, and measuring it."""
    one = "panels.all.arms={v_epochs: [1], u_epochs: [0]}"
    return open_session([resolve(load_source(str(own / "foreign.yaml")), "cpu", [one, *overrides])]).jobs(Inventory())


RENAME = 'aside.rename(checkpoints / f"{step:09d}")'
MKDIR = '(aside / "deep").mkdir(parents=True)'
WRONG = {
    "it fails": ("if ends:", "raise RuntimeError('no luck')\n        if ends:", "status 1: RuntimeError: no luck"),
    "it is killed": ("if ends:", "__import__('os').kill(0, 9)\n        if ends:", "was ended by SIGKILL"),
    "it saves nothing": (RENAME, "__import__('shutil').rmtree(aside)", "left no checkpoint of step 0"),
    "an empty checkpoint": ('np.save(aside / "deep" / "weights.npy", weights)', "pass", "is empty: save the state"),
    "a file for a checkpoint": (RENAME, '(checkpoints / f"{step:09d}").touch()', "is not a folder"),
    "a link": (MKDIR, f'{MKDIR}; (aside / "link").symlink_to("/etc/passwd")', "neither a file nor a folder"),
    "no JSON": ("f.write(json.dumps(", 'f.write("size: " + json.dumps(', "metrics.jsonl:1: the line: Invalid JSON"),
    "a number that is none": ("float(abs(weights).sum())", "float('nan')", "metrics.jsonl:1: "),
    "a word for a number": ("float(abs(weights).sum())", "'large'", "metrics.jsonl:1: values.size"),
    "another step": ('json.dumps({"step": step', 'json.dumps({"step": step + 900', "but the segment is from 0 to 20"),
    "nothing reported": ('{"size": float(abs(weights).sum())}', "{}", "reported no 'size' at step 20"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_trainer_that_breaks_the_protocol(own: Path, home: Home, wrong: str) -> None:
    old, new, said = WRONG[wrong]
    changed(own, old, new)
    job, _ = jobs_of(own)
    status, reason, log = run_job(home, job)
    assert (status, said in str(reason)) == ("failed", True), reason
    if wrong != "nothing reported":
        assert not home.trajectory(job.trajectory).checkpoint(20).exists()
    if wrong == "it fails":
        assert log is not None
        assert "Traceback" in log.read_text(), "what it wrote is in the log"


X = "x=x.astype(np.float32)"
SAMPLES = {
    "none": (f'np.savez(request["output"], {X})', "pass", "wrote no samples"),
    "by another name": (X, "samples=x", "its .npz has no 'x'"),
    "of another shape": (X, "x=x[:3]", "where floating-point (100, 1, 8, 8) was asked for"),
    "whole numbers": (X, "x=x.astype(int)", "where floating-point (100, 1, 8, 8) was asked for"),
    "not finite": (X, "x=x * np.nan", "samples are not finite"),
    "objects": (X, "x=np.array([{}], dtype=object)", "is not an .npz of arrays"),
    "a failure": ("    given =", "    sys.exit('no memory')\n    given =", "ended with status 1: no memory"),
}


@pytest.mark.parametrize("wrong", SAMPLES)
def test_a_sampler_that_breaks_the_protocol(own: Path, home: Home, wrong: str) -> None:
    old, new, said = SAMPLES[wrong]
    changed(own, old, new)
    train, measure = jobs_of(own)
    assert run_job(home, train)[0] == "done"
    status, reason, _ = run_job(home, measure)
    assert (status, said in str(reason)) == ("failed", True), reason


def test_a_file_that_changes_after_planning_stops_the_job(own: Path, home: Home) -> None:
    """What a job in a queue trains is what was planned, or nothing."""
    job, _ = jobs_of(own)
    changed(own, "import numpy as np", "import numpy as np  # edited")
    status, reason, _ = run_job(home, job)
    assert (status, "is not what it was when this was planned" in str(reason)) == ("failed", True), reason


def slowly(own: Path) -> None:
    changed(own, "        towards =", "        __import__('time').sleep(0.05)\n        towards =")


def stopped_at(home: Home, job: Job, step: int) -> str:
    """Ask an attempt to stop once it has come so far. Returns: its status."""
    reached = [0]
    return run_job(home, job, lambda at: reached.__setitem__(0, at), lambda: reached[0] >= step)[0]


@pytest.mark.parametrize("resume", ["exact", "approximate", "none"])
def test_stopped_it_saves_and_goes_on_if_it_can(own: Path, home: Home, tmp_path: Path, resume: str) -> None:
    slowly(own)
    job, _ = jobs_of(own, f"trainer.resume={resume}")
    assert stopped_at(home, job, 0 if resume == "none" else 10) == "preempted"
    folder = home.trajectory(job.trajectory)
    stop = max((int(path.name) for path in folder.checkpoints.glob("*")), default=0)
    assert (stop >= 10) == (resume != "none"), "what cannot be restored is not kept"
    assert run_job(home, job)[0] == "done"
    told = [path.read_text() for path in sorted(folder.attempts.glob("*/DONE.json"))]
    assert f'"start_step": {stop}' in told[-1]
    quiet = Home(tmp_path / "quiet")
    assert run_job(quiet, job)[0] == "done"
    ends = [place.trajectory(job.trajectory).checkpoint(20) / "state" for place in (home, quiet)]
    assert hashes(ends[0]) == hashes(ends[1])


def test_what_is_measured_later_is_reported_by_passing_again(own: Path, home: Home) -> None:
    """A step that has its checkpoint, but not the number that is wanted of it, is done again from before."""
    one = "panels.all.arms={v_epochs: [2], u_epochs: [0]}"
    study = resolve(load_source(str(own / "foreign.yaml")), "cpu", [one])
    session = open_session([study])
    (job, *_) = session.jobs(Inventory())
    silent = job.model_copy(update={"evaluations": ()})
    assert run_job(home, silent)[0] == "done"
    (again, *_) = session.jobs(session.inventory(home, set()))
    assert (again.start_step, again.stop_step, len(again.evaluations)) == (0, 40, 2)
    status, reason, _ = run_job(home, again)
    assert status == "done", reason


def test_what_cannot_be_repeated_is_never_mixed(own: Path, home: Home) -> None:
    slowly(own)
    changed(own, '"values": {"size"', '"values": {"pid": float(__import__("os").getpid()), "size"')
    job, _ = jobs_of(own, "trainer.resume=none", "measure.1.every_epochs=1")
    assert stopped_at(home, job, 0) == "preempted"
    folder = home.trajectory(job.trajectory)
    assert not (folder.attempt(1) / "metrics.jsonl").read_bytes(), "nothing of it counts"
    assert run_job(home, job)[0] == "done"
    status, reason, _ = run_job(home, job.model_copy(update={"snapshot_steps": (0, 10)}))
    assert (status, "would be of another execution" in str(reason)) == ("failed", True), reason


def test_75_without_a_step_is_a_failure(own: Path, home: Home) -> None:
    changed(own, "    while True:", "    sys.exit(75)\n    while True:")
    status, reason, _ = run_job(home, jobs_of(own)[0])
    assert (status, "status 75" in str(reason)) == ("failed", True), reason


def test_a_last_line_may_lack_its_end(own: Path, home: Home) -> None:
    changed(own, ' + "\\n")', " + (chr(10) if step < 20 else ''))")
    status, reason, _ = run_job(home, jobs_of(own)[0])
    assert status == "done", reason


def test_nothing_is_left_behind(own: Path, home: Home, tmp_path: Path) -> None:
    """What a program has started is over with it, and it is over when its worker is killed."""
    seconds = str(7_000_000 + os.getpid())
    sleeping, start = f"sleep {seconds}", f"import subprocess\n    subprocess.Popen(['sleep', '{seconds}'])"
    changed(own, "    stopped, rate", f"    {start}\n    stopped, rate")
    assert run_job(home, jobs_of(own)[0])[0] == "done"
    assert wait_for(lambda: not _running(sleeping), 5)
    slowly(own)
    changed(own, "lambda *_: stopped.append(True)", "signal.SIG_IGN")
    job = jobs_of(own, "trainer.grace_s=0.5", "trainer.resume=approximate", "steps_per_epoch=2000")[0]
    (tmp_path / "job.json").write_text(job.model_dump_json())
    worker = subprocess.Popen(
        [sys.executable, "-m", "sweeps.ranked", str(tmp_path / "other"), str(tmp_path / "job.json")]
    )
    assert wait_for(lambda: bool(_running(sleeping)))
    worker.kill()
    worker.wait()
    assert wait_for(lambda: not _running(sleeping) and not _running(str(own / "train.py")), 10)


def _running(words: str) -> list[int]:
    return [p.pid for p in psutil.process_iter() if _command_of(p).find(words) >= 0]


def _command_of(process: psutil.Process) -> str:
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_fewer_steps_do_not_outweigh_what_more_have_shown(own: Path, home: Home) -> None:
    late = "weights = weights + (step == 30) * __import__('os').getpid() * 1e-9"
    changed(own, "        towards =", f"        {late}\n        towards =")
    session = open_session([resolve(load_source(str(own / "foreign.yaml")), "cpu")])
    trial = trials_of(session)[0]
    assert verify_program(home, trial, 25, 25)
    assert missing_proof(home, trial) is not None
    assert not verify_program(home, trial, 2, 2)
    assert "found otherwise after 25 + 25 steps" in str(missing_proof(home, trial))
    assert missing_proof(home, dataclasses.replace(trial, device="cuda")) is not None


def test_what_does_not_stop_is_ended(own: Path, home: Home) -> None:
    slowly(own)
    changed(own, "lambda *_: stopped.append(True)", "signal.SIG_IGN")
    job, _ = jobs_of(own, "trainer.grace_s=0.2", "trainer.resume=approximate")
    assert stopped_at(home, job, 10) == "preempted"
    assert not home.trajectory(job.trajectory).checkpoint(20).exists()


def test_a_cluster_gives_it_one_process_with_all_that_several_would_have(own: Path) -> None:
    job, measure = jobs_of(own, "device=cuda")
    cluster = Cluster(ranks_per_node=4, nodes=2, gpus=1, cpus=6)
    wanted = parameters(cluster, shape_of(job, cluster), 10, "name", [])
    assert (wanted["nodes"], wanted["gpus_per_node"], wanted["cpus_per_task"]) == (1, 4, 24)
    assert "ntasks_per_node" not in wanted
    assert parameters(cluster, shape_of(measure, cluster), 10, "name", [])["gpus_per_node"] == 1


def test_the_trainer_imports_none_of_our_packages() -> None:
    for folder in (ASSETS, Path(__file__).parents[2] / "docs" / "examples" / "trainer"):
        text = (folder / "train.py").read_text()
        assert not re.search(r"(import|from) (meanflow_core|studies|sweeps|results|reports)", text)


def test_the_schemas_are_those_of_the_models_and_of_what_is_written(own: Path, home: Home) -> None:
    for file, text in schemas().items():
        assert (FOLDER / file).read_text() == text, "run python -m scripts.make_schemas"
    changed(own, "    stopped, rate", "    print(json.dumps(job))\n    stopped, rate")
    changed(own, "    given =", "    print(json.dumps(request))\n    given =")
    for kind, job in zip(("segment", "request"), jobs_of(own), strict=True):
        status, _, log = run_job(home, job)
        assert (status, log is not None) == ("done", True)
        (told, *_) = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]  # type: ignore[union-attr]
        jsonschema.validate(told, json.loads(schemas()[f"{kind}.schema.json"]))
    line = {"step": 3, "values": {"loss": 0.5}}
    jsonschema.validate(line, json.loads(schemas()["metrics-line.schema.json"]))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**line, "epoch": 1}, json.loads(schemas()["metrics-line.schema.json"]))
