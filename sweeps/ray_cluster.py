"""A Ray to work on: one of our own on this machine, or a cluster that runs already."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from results.layout import Home
from studies.errors import StudyError
from sweeps.jobs import Job
from sweeps.ray_workers import wants_gpu

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 80_000_000  # near the least that Ray takes: what crosses is a path and some JSON
CONNECT_S = 5.0
PROBE_S = 30.0
QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}
_PROBE = """
import logging, sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except BaseException as error:
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    sys.exit("\\n" + (said[0] if said else type(error).__name__))
"""


@contextmanager
def own_ray(home: Home, cpus: int) -> Iterator[str]:
    """A Ray with so many CPUs that ends with this process; it listens on loopback only. Yields: its address."""
    import ray
    from ray._private import services

    # Ray takes 127.0.0.1 for the machine's address in the network, and would then listen to all of it.
    loopback = mock.patch.object(services, "resolve_ip_for_localhost", lambda host: host)
    with _beginning(home), loopback:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address=LOOPBACK,
            **QUIET,
        )
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


@contextmanager
def joined_ray(home: Home, address: str) -> Iterator[str]:
    """A cluster that runs already, of which this machine is a node. Raises: StudyError where there is none."""
    import ray

    check_address(address)
    with _beginning(home):
        ray.init(address=address, **QUIET)
    try:
        yield address
    finally:
        ray.shutdown()


@contextmanager
def _beginning(home: Home) -> Iterator[None]:
    """Ray lets its workers import from the folder in which it is initialised, and takes SIGTERM for itself. The home
    holds nothing to import, but a random.py may lie where the user happens to be; SIGTERM is the command's."""
    home.root.mkdir(parents=True, exist_ok=True)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.chdir(home.root):
            yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def check_address(address: str) -> None:
    """Raises: StudyError, within seconds, unless a Ray answers there that this process can join.

    Ray itself would try for minutes and then end the process, so another one tries first.
    """
    if address != "auto":
        _check_listens(address)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, address],
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StudyError(
            f"--address {address}: something listens there, but no Ray answers; give the address that `ray start "
            "--head` prints (port 6379, not that of the dashboard)"
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise StudyError(f"--address {address}: cannot join this Ray: {said[-1] if said else 'its probe died'}")


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
            f"node of the Ray cluster has that (there is: {there})"
        )
    return fit


def _fitting(cpus: float, gpus: float, threads: int, gpu: bool) -> int:
    return int(min(cpus // threads, gpus) if gpu else cpus // threads)
