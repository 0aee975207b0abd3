"""A Ray to work on: one of our own on this machine, or a cluster that runs already."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from results.layout import Home
from studies.errors import StudyError
from sweeps.jobs import Job
from sweeps.ray_workers import wants_gpu

OBJECT_STORE_BYTES = 80_000_000  # near the least that Ray takes: what crosses is a path and some JSON
CONNECT_S = 5.0
PROBE_S = 60.0  # Python has to start and to import Ray, on whatever machine
SAID = "probe: "
_PROBE = "import sys; from sweeps.ray_cluster import probe; probe(sys.argv[1])"


@contextmanager
def own_ray(home: Home, cpus: int) -> Iterator[str]:
    """A Ray with so many CPUs that ends with this process; it listens on loopback only. Yields: its address."""
    with _connected(
        home,
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
    ) as address:
        yield address


@contextmanager
def joined_ray(home: Home, address: str) -> Iterator[str]:
    """A cluster that runs already, of which this machine is a node; `check_address` says whether it is."""
    with _connected(home, address=address) as joined:
        yield joined


@contextmanager
def _connected(home: Home, **arguments: Any) -> Iterator[str]:
    import ray

    with _silent():
        with _beginning(home), _loopback_as_it_is():
            ray.init(**arguments, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()


def _silent() -> AbstractContextManager[object]:
    """When a worker or a node dies, Ray prints a page on the command's output, whatever it is told; ours is a line."""
    from ray._private import worker

    return mock.patch.object(worker, "print_to_stdstream", lambda *_, **__: None, create=True)


def _loopback_as_it_is() -> AbstractContextManager[object]:
    """Ray takes 127.0.0.1 for the machine's address in the network: it would listen to all of that, and not find a Ray
    that listens on loopback only."""
    from ray._private import services

    return mock.patch.object(services, "resolve_ip_for_localhost", lambda host: host)


@contextmanager
def _beginning(home: Home) -> Iterator[None]:
    """Ray lets its workers import from the folder in which it is initialised, and takes SIGTERM for itself. The home
    holds nothing to import, but a random.py may lie where the user happens to be; SIGTERM is the command's. What Ray
    starts ignores SIGHUP, which a terminal sends to it, too, where the command is to stop it."""
    home.root.mkdir(parents=True, exist_ok=True)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with contextlib.chdir(home.root):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def probe(address: str) -> None:
    """Join and leave; end the process with a message where that fails."""
    import ray

    try:
        with _loopback_as_it_is():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except BaseException as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.exit(f"\n{SAID}{said[0] if said else type(error).__name__}")


def check_address(address: str) -> None:
    """Raises: StudyError, within seconds, unless a Ray answers there that this process can join.

    Ray itself would try for minutes and then end the process, so another one tries first.
    """
    if address != "auto":
        _check_listens(address)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StudyError(f"--address {address}: {_why_not(error.stderr or b'')}") from None
    if done.returncode:
        raise StudyError(f"--address {address}: {_why_not(done.stderr)}")


def _why_not(stderr: bytes) -> str:
    """Why a probe did not join, from what it and Ray's own log say."""
    if b"InvalidAuthToken" in stderr:
        return "this Ray wants a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to that of its head"
    last = stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if last.startswith(SAID):
        return f"cannot join this Ray: {last.removeprefix(SAID)}"
    return (
        "something listens there, but no Ray answers; give the address that `ray start --head` prints (port 6379, "
        "not that of the dashboard)"
    )


def _check_listens(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or "/" in address:
        raise StudyError(f"--address {address}: write HOST:PORT as `ray start --head` prints it, or 'auto'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise StudyError(f"--address {address}: no Ray is there ({error}); is the cluster's head running?") from None


def slots(jobs: Sequence[Job]) -> int:
    """How many of the jobs the connected Ray can do at once, each taken for the biggest.

    Raises: StudyError where it can do none.
    """
    import ray

    gpus = ray.cluster_resources().get("GPU", 0.0)
    threads, gpu = max(job.threads for job in jobs), any(wants_gpu(job, gpus) for job in jobs)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = sum(_fitting(node.get("CPU", 0.0), node.get("GPU", 0.0), threads, gpu) for node in nodes)
    if not fit:
        there = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise StudyError(
            f"a job needs {threads} CPU{'s' if threads > 1 else ''}{' and a GPU' if gpu else ''} on one node, and no "
            f"node of the Ray cluster has that (available: {there})"
        )
    return fit


def _fitting(cpus: float, gpus: float, threads: int, gpu: bool) -> int:
    return int(min(cpus // threads, gpus) if gpu else cpus // threads)
