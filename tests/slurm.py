"""A real SLURM on this machine, for tests: its daemons listen on loopback ports and keep to a folder of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.homes import wait_for

ACCOUNTING_PROGRAMS = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun", "setpriv")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
ReturnToService=2
SlurmdTimeout=10
KillWait=20
MaxArraySize=1001
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""

# Nodes of which there may be several on one machine, each with a daemon of its own.
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} State=UNKNOWN\n"

# Besides: the controller soon forgets jobs that have ended, so that only accounting knows how.
WITH_ACCOUNTING = """\
MinJobAge=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge/socket
JobAcctGatherType=jobacct_gather/linux
"""
DATABASE_DAEMON = """\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
CommunicationParameters=NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=accounts
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing() -> str | None:
    """Why no SLURM can be started here; None if one can."""
    return _missing(PROGRAMS, "slurm-wlm munge")


def missing_accounting() -> str | None:
    """The same of one with accounting."""
    return _missing((*PROGRAMS, *ACCOUNTING_PROGRAMS), "slurm-wlm munge slurmdbd mariadb-server")


def _missing(programs: Sequence[str], packages: str) -> str | None:
    if absent := [name for name in programs if not shutil.which(name)]:
        return f"SLURM is not installed ({', '.join(absent)} missing; apt-get install {packages})"
    return None if os.geteuid() == 0 else "starting SLURM takes root"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class SlurmCluster:
    """A running cluster. ``environment`` makes SLURM's commands speak to it. With ``accounting`` it has slurmdbd on a
    MariaDB of its own, and its controller soon forgets. Its ``nodes`` are all this machine."""

    def __init__(self, folder: Path, cpus: int = 2, accounting: bool = False, nodes: int = 1) -> None:
        self.folder = folder
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir(parents=True)
        for parent in (folder, *folder.parents):  # munged, as its own user, must reach its folder
            if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o111)
        self.host = socket.gethostname().split(".")[0]
        controller, port, database, *node_ports = free_ports(3 + nodes)
        self.names = [self.host, *(f"{self.host}-{number}" for number in range(2, nodes + 1))]
        text = CONFIGURATION.format(host=self.host, controller=controller, folder=folder)
        for name, node_port in zip(self.names, node_ports, strict=True):
            text += NODE.format(name=name, host=self.host, port=node_port, cpus=cpus)
        text += WITH_ACCOUNTING.format(port=port, folder=folder) if accounting else ""
        (folder / "slurm.conf").write_text(text)
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self.processes: list[subprocess.Popen[bytes]] = []
        try:
            self._start_munge()
            if accounting:
                self._start_accounting(port, database)
            self._start("slurmctld", "-D")
            self.node, *_ = [self._start("slurmd", "-D", "-N", name) for name in self.names]
            if not wait_for(
                lambda: len(self.call("sinfo", "-N", "-h", "-p", "main", "-t", "idle").split("\n")) > nodes, 180
            ):
                raise RuntimeError((folder / "slurmctld.log").read_text())
        except BaseException:
            self.stop()
            raise

    def _start(self, *command: str, user: str | None = None) -> subprocess.Popen[bytes]:
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        with (self.folder / f"{command[0]}.out").open("ab") as out:
            process = subprocess.Popen(
                [*as_user, *command], stdout=out, stderr=out, env=os.environ | self.environment, start_new_session=True
            )
        self.processes.append(process)
        return process

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(secrets.token_bytes(1024))
        for path in (folder, folder / "key"):
            shutil.chown(path, "munge", "munge")
        (folder / "key").chmod(0o400)
        options = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        paths = [f"--{option}={folder / name}" for option, name in options.items()]
        self._start("munged", "--foreground", "--num-threads=2", *paths, user="munge")
        if not wait_for((folder / "socket").exists, 60):
            raise RuntimeError((self.folder / "munged.out").read_text())

    def _start_accounting(self, port: int, database: int) -> None:
        data = self.folder / "mariadb"
        user = ["--no-defaults", f"--datadir={data}", "--user=root"]
        subprocess.run(
            ["mariadb-install-db", *user, "--skip-test-db", "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
        )
        grant = data / "grant.sql"
        grant.write_text(
            "CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm';\nGRANT ALL ON *.* TO slurm@'127.0.0.1';\n"
        )
        network = ["--bind-address=127.0.0.1", f"--port={database}", f"--socket={data}/socket"]
        self._start("mariadbd", *user, *network, "--skip-name-resolve", f"--init-file={grant}")
        if not wait_for((data / "socket").exists, 180, every=0.2):
            raise RuntimeError((self.folder / "mariadbd.out").read_text())
        configuration = self.folder / "slurmdbd.conf"
        configuration.write_text(
            DATABASE_DAEMON.format(host=self.host, port=port, database=database, folder=self.folder)
        )
        configuration.chmod(0o600)
        self._start("slurmdbd", "-D")
        if not wait_for(lambda: bool(self.call("sacctmgr", "--noheader", "list", "user")), 180, every=0.5):
            raise RuntimeError((self.folder / "slurmdbd.log").read_text())
        self.call("sacctmgr", "--immediate", "add", "cluster", "test")

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | self.environment, timeout=60, check=False
        )
        return done.stdout if done.returncode == 0 else ""

    def queue(self) -> list[str]:
        """Ids of the jobs in the queue, arrays task by task."""
        return self.call("squeue", "--noheader", "--array", "--format=%i").split()

    def running(self) -> list[str]:
        return self.call("squeue", "--noheader", "--array", "--format=%i", "--states=RUNNING").split()

    def kill_node_daemon(self) -> None:
        """The node daemon dies; what it started runs on, as on a node that lost its network."""
        self.node.kill()
        self.node.wait()

    def restart_node_daemon(self) -> None:
        self.node = self._start("slurmd", "-D", "-N", self.host)

    def cancel_all(self) -> None:
        if ids := {i.split("_")[0] for i in self.queue()}:
            self.call("scancel", *ids)
            wait_for(lambda: not self.queue(), 60, every=0.2)

    def stop(self) -> None:
        self.cancel_all()
        steps = [p for p in psutil.process_iter(["cmdline"]) if str(self.folder) in " ".join(p.info["cmdline"] or [])]
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for process in steps:
            if process.is_running():
                process.kill()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of one node for all tests of this process."""
    if why := missing():
        pytest.skip(why)
    running = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster with accounting."""
    if why := missing_accounting():
        pytest.skip(why)
    running = SlurmCluster(tmp_path_factory.mktemp("accounting"), accounting=True)
    yield running
    running.stop()


@pytest.fixture
def two_nodes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """A cluster of two nodes, to which SLURM's commands of this process speak."""
    if why := missing():
        pytest.skip(why)
    running = SlurmCluster(tmp_path_factory.mktemp("two"), nodes=2)
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    yield running
    running.stop()


@pytest.fixture
def slurm(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """The cluster with an empty queue; SLURM's commands of this process speak to it."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield cluster
    cluster.cancel_all()
