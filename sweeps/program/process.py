"""A program of the user's own as a process: started, asked to stop, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from meanflow_core.components import Program, ProgramFile
from meanflow_core.components.program import PYTHON, Word

TETHER = Path(__file__).with_name("tether.py")


class ProgramError(RuntimeError):
    """A trainer or sampler of the user's own failed, or did not keep the protocol. Says what to look at."""


def words_of(words: Sequence[Word], given: Mapping[str, str]) -> list[str]:
    """A command, with what its placeholders stand for."""
    out = []
    for word in words:
        text = word.file if isinstance(word, ProgramFile) else word
        for name, value in {PYTHON: sys.executable, **given}.items():
            text = text.replace(name, value)
        out.append(text)
    return out


def folder_of(program: Program) -> Path | None:
    """Where its commands run: beside its first file, if it has one."""
    return next((Path(file.file).parent for file in program.made_of()), None)


class Running:
    """A process with another that sees to its end (`sweeps.program.tether`), also where we cannot."""

    def __init__(self, words: Sequence[str], program: Program, folder: Path, log: Path, threads: int) -> None:
        self.log, self._from = log, log.stat().st_size if log.exists() else 0
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}  # set by our pool
        environment |= {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-S", str(TETHER), str(os.getpid()), str(program.grace_s), *words],
                cwd=folder_of(program) or folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def status(self) -> int | None:
        """How it ended: its exit status, or minus the number of the signal that ended it; None while it runs."""
        return self.process.poll()

    def wait(self, poll_s: float = 0.1) -> int:
        """Its exit status, once it has ended."""
        while (status := self.status()) is None:
            time.sleep(poll_s)
        return status

    def ask_to_stop(self) -> None:
        """It is killed if it takes longer than its ``grace_s``."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it and what it has started."""
        self._send(signal.SIGUSR1)
        self.process.wait()

    def _send(self, sign: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(sign)

    def last_words(self) -> str:
        """The last line that it wrote, for messages."""
        with self.log.open("rb") as f:
            f.seek(max(self._from, self.log.stat().st_size - 4096))
            lines = f.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")

    def failed(self, name: str) -> ProgramError:
        status = self.status()
        how = f"was ended by {signal.Signals(-status).name}" if status and status < 0 else f"ended with status {status}"
        return ProgramError(f"{name} {how}: {self.last_words()}")


@contextmanager
def running(words: Sequence[str], program: Program, folder: Path, log: Path, threads: int) -> Iterator[Running]:
    """A program, beside its first file or in ``folder``, that is over when the block is left."""
    process = Running(words, program, folder, log, threads)
    try:
        yield process
    finally:
        process.kill()
