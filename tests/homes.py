"""Driving the real command line, and homes that several tests read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest import mock

import psutil
import pytest
from filelock import FileLock

from meanflow_core.data.layout import data_root
from studies.cli import main
from tests.fresh import forget_data, fresh_process

STUDY = Path(sys.executable).with_name("study")
TINY = Path(__file__).parent / "assets" / "tiny.yaml"
MICRO = TINY.with_name("micro.yaml")
MARK = "STUDY_TEST_MARK"  # in the environment of a command and of all that it starts
OURS = ("STUDY_", "GIT_")
TRAINING = ("run", "sweep", "retry")  # commands that train, and take --backend
PATIENCE_S = 900.0  # for what takes seconds: machines are shared, and several times slower than one's own


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without anything that would steer the command, plus ``extra``."""
    return {k: v for k, v in os.environ.items() if not k.startswith(OURS)} | {"OMP_NUM_THREADS": "1"} | extra


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def study(
    *args: str | Path, home: Path | None = None, env: dict[str, str] | None = None, cwd: Path | None = None
) -> Done:
    """Call a command, to its end, in this process made as new; what it trains, it trains inline unless told otherwise.

    No command may ever show a traceback. What depends on the process itself (signals, kills, the interpreter's
    environment, imports) takes `study_process`.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with (
        fresh_process(),
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, env or environment(), clear=True),
        mock.patch.object(sys, "argv", _command(args, home)),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        if data_root().is_dir():  # what lies there may have changed since another command read it
            forget_data()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:
            traceback.print_exc()
            status = 1
    out, err = (stream.buffer.getvalue().decode(errors="replace") for stream in streams)  # type: ignore[attr-defined]
    assert "Traceback" not in out + err, out + err
    return Done(status, out, err)


def study_process(
    *args: str | Path, home: Path | None = None, env: dict[str, str] | None = None, cwd: Path | None = None
) -> Done:
    """The same as a process of its own, as a user starts it."""
    done = subprocess.run(
        [str(STUDY), *_command(args, home)[1:]],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=env or environment(),
        cwd=cwd,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def _command(args: Sequence[str | Path], home: Path | None) -> list[str]:
    words = ["study", *map(str, args), *(["--home", str(home)] if home else [])]
    if args[0] in TRAINING and not {"--workers", "--backend"} & set(words):
        words += ["--backend", "inline"]
    return words


def succeeds(
    *args: str | Path, home: Path | None = None, env: dict[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Standard output of a command that must succeed."""
    done = study(*args, home=home, env=env, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dump(home: Path) -> str:
    return succeeds("db", "dump", home=home)


def tensors(home: Path) -> dict[str, str]:
    """sha256 of every published file of tensors, by its path in the home."""
    files = sorted(home.glob("trajectories/*/checkpoints/[0-9]*/*.safetensors"))
    files += sorted(home.glob("trajectories/*/snapshots/[0-9]*/*.safetensors"))
    return {str(f.relative_to(home)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def attempts(home: Path) -> set[Path]:
    return set(home.glob("trajectories/*/attempts/[0-9]*"))


def unfinished(home: Path) -> set[Path]:
    """Attempts without a DONE.json: running or lost."""
    return {folder for folder in attempts(home) if not (folder / "DONE.json").exists()}


class Command:
    """A command in a session of its own, whose processes can be told from all others."""

    started: ClassVar[list[Command]] = []

    def __init__(self, *args: str | Path, home: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.started.append(self)
        self.process = subprocess.Popen(
            [str(STUDY), *map(str, args), "--home", str(home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            env=environment(**{MARK: self.mark}),
            start_new_session=True,
        )

    def alive(self) -> list[psutil.Process]:
        """All processes of this command that live."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(MARK) == self.mark
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """The worker processes; not the command itself, nor multiprocessing's helper."""
        found = []
        for process in self.alive():
            try:
                if "spawn_main" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    @classmethod
    def end_all(cls) -> None:
        """Kill what a test that failed has left running, so that the next ones have the machine."""
        for command in cls.started:
            if not command.over():
                for process in command.alive():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                command.process.wait()
        cls.started.clear()

    def over(self) -> bool:
        return self.process.poll() is not None

    def wait(self, timeout: float = PATIENCE_S) -> tuple[int, str]:
        """(exit status, output); the output holds no traceback."""
        output, _ = self.process.communicate(timeout=timeout)
        assert "Traceback" not in output, output
        return self.process.returncode, output

    def assert_gone(self, within: float = 60.0) -> None:
        """No process of the command is left after so many seconds."""
        assert wait_for(lambda: not self.alive(), within), [p.cmdline() for p in self.alive()]


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE_S, every: float = 0.02) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def _made_once(name: str, args: Sequence[str | Path], tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A home made by one `study run`, the same for all xdist workers."""
    base = tmp_path_factory.getbasetemp()
    home = (base if worker_id == "master" else base.parent) / name
    with FileLock(f"{home}.lock"):
        if not (home / "made").exists():
            succeeds("run", *args, home=home)
            (home / "made").touch()
    return home


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A home with the tiny study, undisturbed. To be read, or copied; never changed."""
    return _made_once("tiny_home", [TINY], tmp_path_factory, worker_id)


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The same of the micro study."""
    return _made_once("micro_home", [MICRO], tmp_path_factory, worker_id)


@pytest.fixture(scope="session")
def micro_long(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The same of its scale ``long``."""
    return _made_once("micro_long_home", [MICRO, "--scale", "long"], tmp_path_factory, worker_id)


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The same of the tiny study's scale ``long``."""
    return _made_once("long_home", [TINY, "--scale", "long"], tmp_path_factory, worker_id)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A home of the test's own in which the tiny study is done."""
    return Path(shutil.copytree(tiny, tmp_path / "home"))
