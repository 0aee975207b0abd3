"""Profiles, arrays and scripts: what is decided before any cluster is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.layout import Home
from studies.errors import StudyError
from studies.loader import load_source, resolve
from sweeps.cancelling import CANCELLED, request
from sweeps.jobs import Job
from sweeps.needs import covers, producers
from sweeps.plan import Inventory
from sweeps.session import open_session
from sweeps.slurm import queue
from sweeps.slurm.arrays import Shape, arrays, shape_of
from sweeps.slurm.backend import SlurmBackend
from sweeps.slurm.ledger import create
from sweeps.slurm.profile import BUILTIN, Cluster, TimeLimit, builtin_clusters, load_cluster
from sweeps.slurm.script import parameters, render
from sweeps.slurm.submit import found_in_queue, planned_arrays
from tests.homes import TINY, study
from tests.sweeps.test_scheduler import Quiet


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    return open_session([resolve(load_source(str(TINY)), "cpu", seeds=[0, 1])]).jobs(Inventory())


def test_the_profiles_that_come_with_us_are_valid() -> None:
    assert builtin_clusters() == ["gpu_example", "single_node"]
    example = load_cluster("gpu_example")
    assert (example.gpus, example.time.max_min, example.options["mail-type"]) == (1, 1440, "FAIL")
    assert load_cluster(str(BUILTIN / "single_node.yaml")) == load_cluster("single_node")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partitoin: gpu\n", ":1: partitoin: unknown key (did you mean 'partition'? available: partition,"),
        (
            "gpus: 1\ntime: {max: 5}\n",
            ":2: time.max: unknown key (did you mean 'max_min'? available: min_min, max_min, margin, startup_min)",
        ),
        ("gpus: -1\n", ":1: gpus: Input should be greater than or equal to 0"),
        ("gpus: true\n", ":1: gpus: true is no number"),
        ("time: {max_min: 5,\n  startup_min: false}\n", ":2: time.startup_min: false is no number"),
        ("options:\n  array: 0-5\n", ":1: options: 'array' is set by the program"),
        ("options: {cpus_per_task: 4}\n", "'cpus-per-task' is set by the program, or has a key of its own"),
        ("options: {exclude: [a, b]}\n", "takes a text, a whole number, true or false"),
        ("gpus: 1\ngpus: 2\n", ":2: "),
        ("- a\n", "mapping"),
    ],
)
def test_a_faulty_profile_is_refused_at_its_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(StudyError) as refused:
        load_cluster(str(path))
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_an_unknown_profile_is_refused_with_what_there_is() -> None:
    with pytest.raises(StudyError, match=r"unknown cluster profile 'mine' \(available: gpu_example, single_node\);"):
        load_cluster("mine")
    with pytest.raises(StudyError, match="there is no file"):
        load_cluster("./nowhere.yaml")


@pytest.mark.parametrize(("seconds", "minutes"), [(None, 60), (0.0, 10), (600.0, 17), (1e9, 60), (60 * 5.34, 11)])
def test_a_job_asks_for_its_estimate_within_bounds(seconds: float | None, minutes: int) -> None:
    assert TimeLimit(min_min=10, max_min=60, margin=1.5, startup_min=2).minutes(seconds) == minutes


def test_processes_that_share_the_steps_ask_for_their_share_of_the_time(jobs: list[Job], tmp_path: Path) -> None:
    trainings = [job for job in jobs if job.kind == "train"][:1]
    minutes = []
    for nodes, ranks in ((1, 1), (2, 3)):
        cluster = Cluster(nodes=nodes, ranks_per_node=ranks, time=TimeLimit(min_min=1, max_min=10**6))
        (array,) = planned_arrays(Home(tmp_path), trainings, cluster, lambda job: 6 * 3600.0, 10)
        minutes.append(array.minutes)
    assert minutes == [2 + 1.5 * 360, 2 + 1.5 * 60]


def test_producers_are_who_makes_what_a_job_needs(jobs: list[Job]) -> None:
    for place, made_by in enumerate(producers(jobs)):
        job = jobs[place]
        for other in made_by:
            maker = jobs[other]
            assert maker.kind == "train"
            made = {*maker.full_steps, *maker.snapshot_steps}
            if job.kind == "evaluate":
                assert maker.trajectory == job.trajectory
                assert made & {w.step for w in job.evaluations}
            else:
                assert job.start_step in maker.full_steps
        needs_something = job.kind == "evaluate" or job.start_step > 0
        assert bool(made_by) == needs_something


def test_a_job_covers_what_is_less_than_it(jobs: list[Job]) -> None:
    for job in jobs:
        assert [other.name for other in jobs if covers(other, job)] == [job.name]
        if len(job.evaluations) > 1:
            less = job.model_copy(update={"evaluations": job.evaluations[:1]})
            assert covers(job, less)
            assert not covers(less, job)


@st.composite
def forests(draw: st.DrawFn) -> list[set[int]]:
    """For each of some jobs, the earlier ones that it waits for."""
    n = draw(st.integers(1, 30))
    return [draw(st.sets(st.integers(0, i - 1), max_size=2)) if i else set() for i in range(n)]


@given(forests(), st.integers(1, 5), st.data())
def test_arrays_hold_every_job_once_after_what_it_waits_for(
    after: list[set[int]], largest: int, data: st.DataObject
) -> None:
    jobs = list(range(len(after)))
    shapes = {job: data.draw(st.sampled_from([Shape(False, 1), Shape(True, 8)])) for job in jobs}
    chosen = data.draw(st.sets(st.sampled_from(jobs), min_size=1))
    made = list(arrays(jobs, after, chosen, largest, shapes.__getitem__))  # type: ignore[arg-type]
    members = [place for array in made for place in array.members]
    assert sorted(members) == sorted(chosen)
    submitted: set[int] = set(jobs) - chosen
    for array in made:
        assert 1 <= len(array.members) <= largest
        assert array.after <= submitted, "SLURM must know the id of what is waited for"
        for place in array.members:
            assert array.after == after[place]
            assert array.shape == shapes[place]
        submitted |= set(array.members)


def test_siblings_are_one_array(jobs: list[Job], tmp_path: Path) -> None:
    planned = list(planned_arrays(Home(tmp_path), jobs, Cluster(), lambda job: 60.0, 1000))
    roots = planned[0]
    assert roots.after == ()
    assert {job.seed for job in roots.jobs} == {0, 1}
    assert all(job.parent is None and job.start_step == 0 for job in roots.jobs)
    assert len(planned) == len({p.after for p in planned})
    assert {p.minutes for p in planned} == {10}
    assert len(list(planned_arrays(Home(tmp_path), jobs, Cluster(), lambda job: None, 2))) > len(planned)


def test_the_script_says_what_the_profile_says(tmp_path: Path) -> None:
    wanted = parameters(load_cluster("gpu_example"), Shape(gpu=True, threads=8), 90, "study-x", ["7_2", "7_10"])
    script = render(wanted, tmp_path, 3, "python")
    for line in (
        "#SBATCH --array=0-2%3",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=my_project",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=65536M",
        "#SBATCH --time=90",
        "#SBATCH --signal=USR2@300",
        "#SBATCH --dependency=afterok:7_2:7_10",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --requeue",
        "#SBATCH --mail-type=FAIL",
        "#SBATCH --exclude=node17",
        "module load cuda",
        "export PYTHONSAFEPATH=1",
    ):
        assert line in script.splitlines(), script
    assert "srun --unbuffered" in script
    assert "--cpus-per-task=8" in script.splitlines()[-1]
    plain = render(parameters(Cluster(), Shape(gpu=True, threads=1), 10, "study-y", []), tmp_path, 1, "python")
    assert not {"gpus", "array", "dependency", "mem", "partition"} & {
        line.removeprefix("#SBATCH --").split("=")[0] for line in plain.splitlines()
    }


def test_a_job_asks_for_what_it_uses(jobs: list[Job]) -> None:
    train, evaluate = (next(job for job in jobs if job.kind == kind) for kind in ("train", "evaluate"))
    large = Cluster(nodes=2, ranks_per_node=4, gpus=1)
    on_gpu = {"device": "cuda", "threads": 8}
    assert shape_of(train, Cluster()) == shape_of(evaluate, large) == Shape(gpu=False, threads=1)
    assert shape_of(train.model_copy(update=on_gpu), large) == Shape(gpu=True, threads=8, nodes=2, ranks=4)
    wanted = parameters(large, shape_of(train.model_copy(update=on_gpu), large), 10, "study-x", [])
    assert (wanted["nodes"], wanted["ntasks_per_node"], wanted["gpus_per_node"]) == (2, 4, 4)
    assert "--kill-on-bad-exit=1" in wanted["srun_args"]
    wanted = parameters(large, shape_of(evaluate.model_copy(update=on_gpu), large), 10, "study-x", [])
    assert (wanted["nodes"], wanted["gpus_per_node"], "ntasks_per_node" in wanted) == (1, 1, False)
    assert "gpus_per_node" not in parameters(large, shape_of(train, large), 10, "study-x", [])


def test_a_dry_run_needs_no_cluster_and_leaves_nothing(tmp_path: Path) -> None:
    done = study("run", TINY, "--backend", "slurm", "--cluster", "gpu_example", "--dry-run", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("#!/bin/bash") == 9
    assert "--dependency=afterok:ARRAY1_0" in done.stdout
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backend", "slurm"], "--backend slurm needs a cluster profile"),
        (["--backend", "slurm", "--cluster", "nowhere"], "unknown cluster profile 'nowhere'"),
        (["--backend", "slurm", "--cluster", "single_node", "--workers", "2"], "in SLURM the profile"),
        (["--detach"], "--detach goes with --backend slurm"),
        (["--dry-run"], "--dry-run goes with --backend slurm"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str], said: str, tmp_path: Path) -> None:
    done = study("run", TINY, *options, home=tmp_path / "home")
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "home").exists()


def test_without_slurm_it_is_said_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = study("run", TINY, "--backend", "slurm", "--cluster", "single_node", home=tmp_path / "home")
    assert (done.returncode, "there is no 'sbatch' here" in done.stderr) == (2, True), done.stderr
    with pytest.raises(queue.SlurmError, match="there is no 'squeue' here"):
        queue.queue()


def commands(folder: Path, **scripts: str) -> None:
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def test_the_queue_is_read_task_by_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "12_0|study-a|RUNNING|None\n12_1|study-a|PENDING|DependencyNeverSatisfied\n13|other|RUNNING|None\n"
    commands(tmp_path, squeue=f"printf '{listed}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = queue.queue()
    assert set(found) == {"12_0", "12_1"}
    assert (found["12_0"].running, found["12_1"].running) == (True, False)
    assert found["12_1"].reason == queue.NEVER


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("PENDING", "Priority", None),
        ("PENDING", "JobArrayTaskLimit", None),
        ("PENDING", "AssocGrpGRES", None),
        ("PENDING", queue.NEVER, None),
        ("RUNNING", "JobHeldUser", None),
        ("PENDING", "launch failed requeued held", "scontrol release 12_3"),
        ("PENDING", "JobHeldAdmin", "scontrol release 12_3"),
        ("PENDING", "PartitionDown", "job 12_3 (PartitionDown)"),
        ("PENDING", "AssocMaxJobsLimit", "(AssocMaxJobsLimit)"),
    ],
)
def test_what_waits_until_somebody_does_something_is_told_from_what_waits_its_turn(
    state: str, reason: str, said: str | None
) -> None:
    stuck = queue.Queued("12_3", "study-a", state, reason).stuck
    assert stuck is None if said is None else said in (stuck or "")
    assert "release" not in (stuck or "") or "eld" in reason


@pytest.mark.parametrize(
    ("scontrol", "sacct", "state"),
    [
        ("echo 'JobId=12 JobState=TIMEOUT Reason=TimeLimit'", "exit 1", "TIMEOUT"),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "echo 'OUT_OF_MEMORY'", "OUT_OF_MEMORY"),
        ("exit 1", "echo 'CANCELLED by 1000'", "CANCELLED"),
        ("exit 1", "echo 'Slurm accounting storage is disabled' >&2; exit 1", None),
        ("exit 1", "true", None),
    ],
)
def test_how_a_job_ended_is_asked_with_and_without_accounting(
    scontrol: str, sacct: str, state: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, scontrol=scontrol, sacct=sacct)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert queue.ended("12") == state


def test_a_controller_that_does_not_answer_is_told_from_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    commands(tmp_path, squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(queue.SlurmDown):
        queue.queue()
    commands(tmp_path, squeue="echo 'squeue: error: Invalid user' >&2; exit 1")
    with pytest.raises(queue.SlurmError, match="Invalid user") as refused:
        queue.queue()
    assert not isinstance(refused.value, queue.SlurmDown)


def test_arrays_are_as_large_as_the_cluster_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, scontrol="echo 'MaxArraySize            = 501'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert queue.max_array_size() == 501


def test_what_was_cancelled_is_not_taken_for_what_will_do_it_nor_submitted_again(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while SLURM did not answer, a job stays in the queue; cancelled when it was lost, it is not there."""
    home, job = Home(tmp_path / "home"), jobs[0]
    submission = create(home, [job], 1, ())
    submission.answered("12")
    commands(tmp_path, squeue=f"echo '12|{submission.name}|PENDING|None'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert list(found_in_queue(home, [job])) == [0]
    before = SlurmBackend(home, [job], Quiet(), Cluster())
    request(home, job.trajectory, job.kind)
    assert found_in_queue(home, [job]) == {}
    assert before.run().failures[0].reason == CANCELLED
    os.utime(home.trajectory(job.trajectory).cancelled(job.kind), (0, 0))
    after = SlurmBackend(home, [job], Quiet(), Cluster())
    assert after._drop_cancelled() == [job], "asked for since"
