"""A PostgreSQL server of the test's own, stopped in the middle of a run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.homes import STUDY, TINY, environment, study, wait_for

pytestmark = pytest.mark.postgres


class Server:
    """Started and stopped at will; as the user postgres where we are root, whom PostgreSQL refuses to serve."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://study@127.0.0.1:{self.port}/postgres"
        self.process: subprocess.Popen[bytes] | None = None
        data = ["-D", str(folder / "data")]
        subprocess.run(self.command("initdb", *data, "-U", "study", "--auth=trust", "--no-sync",
                                    "--encoding=UTF8", "--locale=C"), check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip

    def command(self, program: str, *args: str) -> list[str]:
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        return [*as_postgres, str(self.programs / program), *args]

    def start(self) -> None:
        options = ("listen_addresses=127.0.0.1", "fsync=off", f"unix_socket_directories={self.folder}")
        settings = [word for option in options for word in ("-c", option)]
        command = self.command("postgres", "-D", str(self.folder / "data"), "-p", str(self.port), *settings)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        ready = self.command("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
        assert wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, 60, every=0.2)

    def stop(self) -> None:
        """At once, as a machine that goes down does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
            self.process = None


@pytest.fixture
def server() -> Iterator[Server]:
    if not os.environ.get("STUDY_TEST_POSTGRES"):
        pytest.skip("postgres: STUDY_TEST_POSTGRES (a SQLAlchemy URL) is not set")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        pytest.skip("postgres: no server programs under /usr/lib/postgresql to start a server of our own with")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        one = Server(folder, programs[-1].parent)
        try:
            one.start()
            yield one
        finally:
            one.stop()


def test_nothing_is_lost_when_the_database_goes_down_during_a_run(server: Server, tmp_path: Path) -> None:
    home, env = tmp_path / "home", environment(STUDY_STORE=server.url)
    command = [str(STUDY), "run", str(TINY), "--workers", "1", "--home", str(home)]
    run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert wait_for(lambda: any(home.glob("trajectories/*/attempts/*")), 120)
    server.stop()
    output, _ = run.communicate(timeout=240)
    assert run.returncode == 2, output
    assert "Traceback" not in output
    assert f"127.0.0.1:{server.port}/postgres failed" in output and "Nothing is lost" in output

    again = study("run", TINY, home=home, env=env)  # while it is still down
    assert again.returncode == 2 and "Nothing is lost" in again.stderr

    server.start()
    done = study("run", TINY, home=home, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything is there already" in done.stdout, "the run went on to its end without the database"
    kept = study("db", "dump", home=home, env=env).stdout
    assert kept == study("db", "dump", home=home).stdout, "what SQLite makes of the same files"
    assert kept.count('["evaluation"') == 18
