"""The SLURM backend on a real cluster, all of whose nodes are this machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from meanflow_core.checkpoint import load_checkpoint
from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.backend import Outcome
from sweeps.cancelling import CANCELLED
from sweeps.cancelling import request as request_end
from sweeps.jobs import Job
from sweeps.needs import outputs_there, producers
from sweeps.plan import Inventory
from sweeps.session import open_session
from sweeps.slurm import queue
from sweeps.slurm.arrays import shape_of
from sweeps.slurm.backend import SlurmBackend
from sweeps.slurm.cancel import cancel_in_queue
from sweeps.slurm.ledger import create, submissions
from sweeps.slurm.profile import Cluster, TimeLimit
from sweeps.slurm.script import parameters
from sweeps.slurm.submit import submit_missing
from sweeps.worker import run_job
from tests.homes import MICRO, PATIENCE_S, STUDY, TINY, dump, environment, tensors, wait_for
from tests.slurm import SlurmCluster
from tests.sweeps.test_scheduler import Quiet

pytestmark = pytest.mark.slurm

PROFILE = Cluster(poll_s=0.5, signal_before_s=10, time=TimeLimit(min_min=1, max_min=10))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text("poll_s: 0.5\nsignal_before_s: 10\ntime: {min_min: 1, max_min: 10}\n")
    return path


def jobs_of(study: Path = TINY) -> list[Job]:
    return open_session([resolve(load_source(str(study)), "cpu")]).jobs(Inventory())


def training(steps: int) -> Job:
    """One job that trains for so many steps from the start."""
    job = next(job for job in jobs_of() if job.kind == "train" and job.steps == 80)
    return job.model_copy(update={"stop_step": steps, "full_steps": (steps,), "snapshot_steps": ()})


def follow(home: Home, jobs: list[Job], profile: Cluster = PROFILE) -> Outcome:
    return SlurmBackend(home, jobs, Quiet(), profile).run()


def undisturbed(job: Job, tmp_path: Path) -> dict[str, str]:
    """What a job leaves when nothing disturbs it."""
    place = Home(tmp_path / "undisturbed")
    assert run_job(place, job)[0] == "done"
    return tensors(place.root)


def attempts_begun(home: Home, job: Job) -> list[Path]:
    return sorted(home.trajectory(job.trajectory).attempts.glob("[0-9]*/segment.json"))


def steps_logged(home: Home, job: Job) -> int:
    return sum(len(path.read_text().splitlines()) for path in home.trajectories.glob("*/attempts/*/metrics.jsonl"))


def study_on_slurm(cluster: SlurmCluster, home: Path, profile: Path, *more: str | Path) -> subprocess.Popen[str]:
    command = [STUDY, "run", MICRO, "--backend", "slurm", "--cluster", profile, "--home", home, *more]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**cluster.environment),
    )


@pytest.mark.stress
def test_a_study_ends_as_it_does_here_and_its_jobs_outlive_the_command(
    slurm: SlurmCluster, micro: Path, tmp_path: Path, profile: Path
) -> None:
    """Killed while it follows, and run again, the command finds its jobs and submits nothing twice."""
    home = tmp_path / "home"
    first = study_on_slurm(slurm, home, profile)
    assert wait_for(lambda: bool(slurm.running()), every=0.2)
    first.kill()  # perhaps in the middle of submitting
    first.wait()
    again = study_on_slurm(slurm, home, profile)
    output, _ = again.communicate(timeout=PATIENCE_S)
    assert (again.returncode, "Traceback" in output) == (0, False), output
    taken = [one for one in submissions(Home(home)) if one.slurm_file and one.slurm_file.slurm_job]
    jobs = [one.job(index) for one in taken for index in range(one.record.members)]
    assert set(Counter((job.kind, job.trajectory, job.stop_step, job.evaluations) for job in jobs).values()) == {1}
    assert dump(home) == dump(micro)
    assert tensors(home) == tensors(micro)
    assert {p.stat().st_mode & 0o777 for p in home.glob("submissions/*/private")} == {0o700}
    assert not slurm.queue()


@pytest.mark.stress
def test_a_job_that_is_requeued_warned_or_preempted_by_one_of_more_weight_ends_bitwise_the_same(
    slurm: SlurmCluster, home: Home, tmp_path: Path
) -> None:
    job = training(3000).model_copy(update={"checkpoint_every_steps": 500})
    (placed,) = submit_missing(home, [job], PROFILE, lambda job: None).values()
    disturbances = [
        lambda: slurm.call("scontrol", "requeue", placed.slurm_id),
        lambda: slurm.call("scancel", "--signal=USR2", placed.slurm_id),
        lambda: slurm.call("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 2"),
    ]
    for number, disturb in enumerate(disturbances, 1):
        assert wait_for(lambda n=number: len(attempts_begun(home, job)) >= n, every=0.2)  # type: ignore[misc]
        logged = steps_logged(home, job)
        assert wait_for(lambda n=logged: steps_logged(home, job) > n + 20, 60, every=0.05)  # type: ignore[misc]
        disturb()
    outcome = follow(home, [job])
    assert outcome.complete
    assert len(attempts_begun(home, job)) == 4
    said = [line.status for line in placed.submission.outcomes(0)]
    assert said == ["preempted", "preempted", "preempted", "done"]
    assert undisturbed(job, tmp_path).items() <= tensors(home.root).items()


@pytest.mark.stress
def test_at_its_time_limit_a_job_is_saved_and_goes_back_into_the_queue(slurm: SlurmCluster, home: Home) -> None:
    """The warning comes up to a minute early: after a minute of two a process has begun on a slow machine, too."""
    job = training(10**7).model_copy(update={"log_every_steps": 1000})
    short = PROFILE.model_copy(update={"signal_before_s": 20, "time": TimeLimit(min_min=2, max_min=2)})
    (placed,) = submit_missing(home, [job], short, lambda job: None).values()
    assert wait_for(lambda: len(attempts_begun(home, job)) == 2, 600, every=0.5)
    first, _ = attempts_begun(home, job)
    ended = json.loads((first.parent / "DONE.json").read_text())
    assert ended["status"] == "preempted"
    assert ended["stop_step"] > 0
    assert home.trajectory(job.trajectory).checkpoint(ended["stop_step"]).is_dir()
    assert placed.submission.outcomes(0)[0].steps == ended["stop_step"]
    assert slurm.queue() == [placed.slurm_id], "the same job, which goes on"


@pytest.mark.stress
def test_a_node_daemon_that_dies_costs_time_only(slurm: SlurmCluster, home: Home, tmp_path: Path) -> None:
    """The node counts as lost while its process runs on; the job is given out again and finds the lease held."""
    job = training(4000).model_copy(update={"checkpoint_every_steps": 500})
    (placed,) = submit_missing(home, [job], PROFILE, lambda job: None).values()
    assert wait_for(lambda: steps_logged(home, job) > 0, every=0.1)
    slurm.kill_node_daemon()
    try:
        assert wait_for(lambda: placed.slurm_id not in slurm.running(), every=0.5), "the node counts as lost"
    finally:
        slurm.restart_node_daemon()
    assert follow(home, [job]).complete
    assert undisturbed(job, tmp_path).items() <= tensors(home.root).items()


# Between nodes gloo would listen on the network's interface; these nodes share the loopback's.
ON_LOOPBACK = ("export GLOO_SOCKET_IFNAME=lo STUDY_RENDEZVOUS=file://{folder}/meet-$SLURM_JOB_ID-$SLURM_RESTART_COUNT",)


def rank_of(slurm_id: str, rank: int) -> int:
    """The process of a rank of a job."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            said, words = process.environ(), process.cmdline()
            ours = said.get("SLURM_JOB_ID") == slurm_id and said.get("SLURM_PROCID") == str(rank)
            if ours and "submitit.core._submit" in words and "srun" not in words[0]:
                return process.pid
    raise LookupError(f"no rank {rank} of job {slurm_id}")


@pytest.mark.parametrize("nodes", [1, pytest.param(2, marks=pytest.mark.stress)])
def test_two_processes_that_train_together_stop_together_and_go_on(
    nodes: int, request: pytest.FixtureRequest, home: Home, tmp_path: Path
) -> None:
    """As one would, but for the order of summation; on one node or on two. Where one is killed both end, and the first
    says so before SLURM ends it."""
    cluster: SlurmCluster = request.getfixturevalue("slurm" if nodes == 1 else "two_nodes")
    job = training(500)
    setup = [] if nodes == 1 else [line.format(folder=tmp_path) for line in ON_LOOPBACK]
    pair = PROFILE.model_copy(update={"nodes": nodes, "ranks_per_node": 2 // nodes, "setup": setup})
    (placed,) = submit_missing(home, [job], pair, lambda job: None).values()
    assert wait_for(lambda: steps_logged(home, job) > 0, every=0.05)
    os.kill(rank_of(placed.slurm_id, 1), signal.SIGKILL)
    assert wait_for(lambda: not cluster.queue(), 60, every=0.2)
    (line,) = placed.submission.outcomes(0)
    assert (line.status, line.reason and "rank 1 ended without a word" in line.reason) == ("lost", True)
    logged = steps_logged(home, job)
    (placed,) = submit_missing(home, [job], pair, lambda job: None).values()
    assert wait_for(lambda: steps_logged(home, job) > logged + 5, every=0.05)
    where = cluster.call("squeue", "--noheader", "--format=%D %N", "--jobs", placed.slurm_id).split()
    assert where == [str(nodes), f"{cluster.host},{cluster.host}-2" if nodes == 2 else cluster.host]
    cluster.call("scancel", "--signal=USR2", placed.slurm_id)
    assert follow(home, [job], pair).complete
    lost, first, second = (json.loads((path.parent / "DONE.json").read_text()) for path in attempts_begun(home, job))
    assert (lost["status"], lost["reason"]) == ("failed", line.reason)
    assert (first["status"], second["status"]) == ("preempted", "done")
    assert first["ranks"] == second["ranks"] == 2
    assert second["start_step"] == first["stop_step"] > 0
    alone = Home(tmp_path / "alone")
    assert run_job(alone, job)[0] == "done"
    ours, theirs = (
        load_checkpoint(place.trajectory(job.trajectory).checkpoint(500)).parts["ema"] for place in (alone, home)
    )
    scale = max(float(value.abs().max()) for value in ours.values())
    assert max(float((theirs[name] - value).abs().max()) for name, value in ours.items()) < 0.05 * scale


def test_what_runs_and_what_waits_ends_on_request(slurm: SlurmCluster, home: Home) -> None:
    job = training(10**7)
    later = job.model_copy(update={"start_step": 10**7, "stop_step": 10**7 + 10, "full_steps": (10**7 + 10,)})
    runs, waits = submit_missing(home, [job, later], PROFILE, lambda job: None).values()
    assert wait_for(lambda: steps_logged(home, job) > 0, every=0.1)
    request_end(home, job.trajectory, "train")
    assert cancel_in_queue(home, {("train", job.trajectory)}) == [waits.slurm_id]
    assert wait_for(lambda: not slurm.queue(), 60, every=0.2)
    assert [line.reason for line in runs.submission.outcomes(0)] == [CANCELLED]
    assert [line.status for line in waits.submission.outcomes(0)] == ["cancelled"]
    (attempt,) = attempts_begun(home, job)
    ended = json.loads((attempt.parent / "DONE.json").read_text())
    assert (ended["status"], ended["reason"]) == ("failed", CANCELLED)
    assert home.trajectory(job.trajectory).checkpoint(ended["stop_step"]).is_dir(), "saved where it stopped"


def test_a_job_that_is_held_is_said_to_be_and_goes_on_when_it_is_released(slurm: SlurmCluster, home: Home) -> None:
    looks = 0

    class Releasing(Quiet):
        def tick(self, running: Sequence[Job]) -> None:
            nonlocal looks
            looks += 1
            if looks == 3:  # by then others would have been told twice
                (release,) = re.findall(r"'(scontrol release \S+)'", self.why[0])
                slurm.call(*release.split())

    watcher, held = Releasing(), PROFILE.model_copy(update={"options": {"hold": True}})
    assert SlurmBackend(home, [training(20)], watcher, held).run().complete
    (why,) = watcher.why
    assert "is held up in SLURM's queue as job" in why and "(JobHeldUser)" in why


@pytest.mark.stress
def test_what_is_killed_is_tried_again_a_bounded_number_of_times(slurm: SlurmCluster, home: Home) -> None:
    job = training(10**6).model_copy(update={"checkpoint_every_steps": None})  # so that it gets no further
    killed: set[int] = set()
    backend = SlurmBackend(home, [job], Quiet(), PROFILE)

    def kill(_number: int, _frame: object) -> None:
        lease = home.trajectory(job.trajectory).lease("train")
        try:
            pid = json.loads(lease.read_text())["pid"]
        except (OSError, ValueError):
            return
        if pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, 1.0, 0.2)
    try:
        outcome = backend.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    (failure,) = outcome.failures
    assert "3 times" in failure.reason
    assert len(killed) == 3


def test_an_array_whose_submitter_died_before_it_knew_the_id_is_adopted(slurm: SlurmCluster, home: Home) -> None:
    job = training(20)
    submission = create(home, [job], 5, ())
    script = submission.private / "script.sh"
    from sweeps.slurm.script import render

    wanted = parameters(PROFILE, shape_of(job, PROFILE), 5, submission.name, ())
    script.write_text(render(wanted, submission.private, 1, str(STUDY.with_name("python"))))
    assert "Submitted" in slurm.call("sbatch", str(script))
    (placed,) = submit_missing(home, [job], PROFILE, lambda job: None).values()
    assert placed.submission.name == submission.name
    assert follow(home, [job]).complete
    assert len(list(submissions(home))) == 1


def test_what_has_ended_since_the_command_looked_is_not_submitted_again(slurm: SlurmCluster, home: Home) -> None:
    """Nor waited for by what starts from it, even if that waits for something else, too."""
    jobs = jobs_of(MICRO)
    ended = next(job for job in jobs if any(jobs.index(job) in makers for makers in producers(jobs)))
    assert run_job(home, ended)[0] == "done"
    outcome = follow(home, jobs)
    assert outcome.complete
    assert outcome.done == len(jobs)
    given = [one.job(index) for one in submissions(home) for index in range(one.record.members)]
    assert len(given) == len(jobs) - 1
    assert ended not in given


def test_one_that_slurm_never_saw_is_given_up(slurm: SlurmCluster, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.slurm import submit

    monkeypatch.setattr(submit, "ADOPTION_PATIENCE_S", 0.0)
    never = create(home, [training(20)], 5, ())
    assert follow(home, [training(20)]).complete
    answer = never.slurm_file
    assert answer is not None
    assert answer.slurm_job is None


def test_what_starts_from_what_nobody_makes_is_not_submitted(slurm: SlurmCluster, home: Home) -> None:
    job = training(20).model_copy(update={"start_step": 10})
    assert follow(home, [job]).blocked == [job]
    assert not list(submissions(home))


def test_a_job_looks_for_its_input_itself(slurm: SlurmCluster, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever SLURM believes of the job that should have made it."""
    monkeypatch.setenv("STUDY_FILES_PATIENCE_S", "0")
    job = training(20).model_copy(update={"start_step": 10})
    (placed,) = submit_missing(home, [job], PROFILE, lambda job: None).values()
    assert wait_for(lambda: bool(placed.submission.outcomes(0)), every=0.2)
    (line,) = placed.submission.outcomes(0)
    assert (line.status, line.reason) == ("missing", "what it starts from or measures is not there")


def test_refusals_are_in_slurms_words_and_lose_nothing(slurm: SlurmCluster, tmp_path: Path) -> None:
    profile = tmp_path / "wrong.yaml"
    profile.write_text("partition: nowhere\n")
    command = study_on_slurm(slurm, tmp_path / "home", profile)
    output, _ = command.communicate(timeout=120)
    assert (command.returncode, "Traceback" in output) == (2, False), output
    assert "invalid partition specified: nowhere" in output
    assert not slurm.queue()


def test_a_controller_that_is_away_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, slurm: SlurmCluster, home: Home
) -> None:
    asked = []
    real = queue.queue

    def now_and_then() -> dict[str, queue.Queued]:
        asked.append(time.monotonic())
        if len(asked) in {3, 4}:
            raise queue.SlurmDown("Unable to contact slurm controller")
        return real()

    monkeypatch.setattr(queue, "queue", now_and_then)
    assert follow(home, [training(20)]).complete
    assert len(asked) > 4


def test_a_detached_command_leaves_its_jobs_to_the_cluster(slurm: SlurmCluster, home: Home) -> None:
    job = training(20)
    outcome = SlurmBackend(home, [job], Quiet(), PROFILE, detach=True).run()
    assert (outcome.left, outcome.complete) == ([job], False)
    assert wait_for(lambda: outputs_there(home, job), every=0.2)
    assert wait_for(lambda: not slurm.queue(), 60, every=0.2)
    assert follow(home, []).complete


@pytest.mark.stress
def test_accounting_says_how_a_job_ended_that_the_controller_has_forgotten(
    accounting: SlurmCluster, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in accounting.environment.items():
        monkeypatch.setenv(name, value)
    assert follow(home, [training(20)]).complete, "with accounting all goes as without"
    wraps = {"COMPLETED": "true", "FAILED": "exit 3", "CANCELLED": "sleep 600"}
    ids = {
        state: accounting.call("sbatch", "--parsable", "--output=/dev/null", f"--wrap={command}").strip()
        for state, command in wraps.items()
    }
    assert wait_for(lambda: set(accounting.queue()) == {ids["CANCELLED"]}, 60, every=0.2)
    queue.cancel([ids["CANCELLED"]])
    assert wait_for(lambda: not any(accounting.call("scontrol", "show", "job", i) for i in ids.values()), every=1)
    assert {state: (queue.ended(i) or "").split()[0] for state, i in ids.items()} == {state: state for state in wraps}
    assert_loopback_only(accounting)


def assert_loopback_only(cluster: SlurmCluster) -> None:
    ours = {process.pid for process in cluster.processes}
    listening = [c for c in psutil.net_connections("inet") if c.pid in ours and c.status == psutil.CONN_LISTEN]
    assert listening
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


def test_no_process_of_the_cluster_listens_beyond_loopback(slurm: SlurmCluster) -> None:
    assert_loopback_only(slurm)
