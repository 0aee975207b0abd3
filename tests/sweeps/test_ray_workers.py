"""Ray in particular: output, stopping, why a job was lost, where it listens, and addresses that are wrong."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import psutil
import pytest

from results.layout import Home
from studies.errors import StudyError
from studies.loader import load_source, resolve
from sweeps import ray_cluster
from sweeps.backend import Event
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.ray_cluster import _why_not, check_address, slots
from sweeps.ray_workers import RayWorkers, ending, wants_gpu
from sweeps.session import open_session
from tests.homes import MICRO, TINY, Command, study, study_process, tensors, unfinished, wait_for

from .conformance import working

pytestmark = pytest.mark.ray


@pytest.fixture
def job() -> Job:
    """80 steps."""
    jobs = open_session([resolve(load_source(str(TINY)), "cpu")]).jobs(Inventory())
    return next(job for job in jobs if job.kind == "train" and job.steps == 80)


def endless(job: Job) -> Job:
    return job.model_copy(update={"stop_step": 10**8, "full_steps": (10**8,), "checkpoint_every_steps": None})


def until(workers: RayWorkers, *kinds: str, seconds: float = 120) -> Event:
    """The first event of one of some kinds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in workers.wait(0.2):
            if event.kind in kinds:
                return event
    raise AssertionError(f"none of {kinds} came")


def test_output_goes_to_the_log_of_the_attempt_and_nowhere_else(ray_address: str, tmp_path: Path, job: Job) -> None:
    import ray

    def where_output_goes() -> list[str]:  # here, since Ray's workers need not have our tests
        return [str(Path(f"/proc/self/fd/{output}").readlink()) for output in (1, 2)]

    with RayWorkers(Home(tmp_path), 1) as workers:
        workers.submit(job.model_copy(update={"divergence": 1e-6}))
        assert workers.idle() == 0
        failed = until(workers, "done", "failed")
        assert failed.kind == "failed" and "diverges" in Path(failed.log or "").read_text()
        workers.submit(job)
        done = until(workers, "done", "failed", "lost")
        assert done.kind == "done" and done.log != failed.log
        assert "diverges" not in Path(done.log or "").read_text()
    task = ray.remote(where_output_goes)
    assert not any(str(tmp_path) in path for path in ray.get([task.remote(), task.remote()])[0])


def test_stopping_saves_and_leaving_without_it_ends_what_runs(ray_address: str, tmp_path: Path, job: Job) -> None:
    home = Home(tmp_path)
    with RayWorkers(home, 1) as workers:
        workers.submit(endless(job))
        until(workers, "progress")
        (event,) = [event for event in workers.stop() if event.kind != "progress"]
    assert event.kind == "preempted" and "stopped on request at step" in (event.reason or "")
    assert list(home.trajectory(job.trajectory).checkpoints.iterdir()), "it saved"
    with RayWorkers(home, 1) as workers:
        workers.submit(endless(job))
        until(workers, "progress")
        assert working(tmp_path)
    assert wait_for(lambda: not working(tmp_path), 20)
    assert len(unfinished(tmp_path)) == 1


def test_a_job_stopped_before_it_begins_is_handed_back(ray_address: str, tmp_path: Path, job: Job) -> None:
    with RayWorkers(Home(tmp_path), 1) as workers:
        workers.submit(job)
        assert [event.kind for event in workers.stop()][-1] in {"preempted", "done"}
        assert workers.running() == []


def test_reasons_are_told_apart() -> None:
    from ray import exceptions as of_ray

    assert ending(of_ray.TaskCancelledError()) == ("preempted", "stopped on request")
    assert ending(of_ray.OutOfMemoryError("killed"))[1].startswith("out of memory")
    assert ending(of_ray.NodeDiedError("gone")) == ("lost", "its node died")
    assert ending(of_ray.WorkerCrashedError()) == ("lost", "its process was killed or crashed")
    missing = of_ray.RayTaskError("do_job", "trace\nModuleNotFoundError: x", ModuleNotFoundError("No module named 'x'"))
    kind, reason = ending(missing)
    assert kind == "failed" and "No module named 'x'; the nodes of the Ray cluster need this package" in reason
    assert ending(of_ray.RaySystemError("broken"))[0] == "failed"


def test_a_gpu_is_asked_for_where_one_is_wanted(ray_address: str, job: Job) -> None:
    auto, cuda = (job.model_copy(update={"device": device}) for device in ("auto", "cuda"))
    assert [wants_gpu(one, gpus=1) for one in (job, auto, cuda)] == [False, True, True]
    assert [wants_gpu(one, gpus=0) for one in (job, auto, cuda)] == [False, False, True]
    assert slots([job]) == 2 and slots([job, job.model_copy(update={"threads": 2})]) == 1
    with pytest.raises(StudyError, match=r"needs 3 CPUs on one node, and no node .* \(available: 2 CPUs, "):
        slots([job.model_copy(update={"threads": 3})])


def test_it_listens_on_loopback_only(ray_address: str) -> None:
    listening = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            listening |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening and listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_addresses_that_are_wrong_are_refused_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "PROBE_S", 2.0)
    for address in ("nonsense", "ray://127.0.0.1:10001", "127.0.0.1:", ":6379"):
        with pytest.raises(StudyError, match="write HOST:PORT"):
            check_address(address)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StudyError, match=r"no Ray is there .*refused"):
            check_address(address)
        silent.listen()
        with pytest.raises(StudyError, match="something listens there, but no Ray answers"):
            check_address(address)


def test_a_wrong_address_leaves_nothing(tmp_path: Path) -> None:
    done = study("run", TINY, "--backend", "ray", "--address", "127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 2 and "no Ray is there" in done.stderr
    assert list(tmp_path.iterdir()) == []
    done = study("run", TINY, "--address", "127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 2 and "add --backend ray" in done.stderr


def test_a_ray_of_the_commands_own_ends_with_it(micro: Path, tmp_path: Path) -> None:
    """Killed, so that it could not end anything itself; and undisturbed, where files of the user's lie in the way."""
    home = tmp_path / "home"
    command = Command("run", MICRO, "--scale", "long", "--backend", "ray", "--workers", "1", home=home)
    assert wait_for(lambda: bool(unfinished(home)), 120)
    command.process.kill()
    command.process.wait()
    command.assert_gone(within=20)
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')")
    args = ("run", MICRO, "--backend", "ray", "--workers", "1")
    done = study_process(*args, home=tmp_path / "micro", cwd=tmp_path)
    assert "1 worker of the Ray at 127.0.0.1:" in done.stdout, done.stdout + done.stderr
    assert tensors(tmp_path / "micro") == tensors(micro)


def test_why_a_probe_did_not_join() -> None:
    said = b"[gcs_client.cc] Unauthenticated: InvalidAuthToken: missing or incorrect\n"
    assert "wants a token; set RAY_AUTH_MODE=token" in _why_not(said)
    assert _why_not(b"noise\n\nprobe: Version mismatch: 2.60 against 2.9\n").endswith(
        "Version mismatch: 2.60 against 2.9"
    )
    assert "no Ray answers" in _why_not(b"Fatal Python error")
