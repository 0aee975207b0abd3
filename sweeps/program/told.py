"""What a running trainer says: lines of metrics and finished checkpoint folders, taken as they come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from sweeps.program.process import ProgramError
from sweeps.program.protocol import CHECKPOINT, MetricsLine


class MetricsFile:
    """A file that grows by whole lines."""

    def __init__(self, path: Path) -> None:
        self.path, self._read, self._number = path, 0, 0

    def new_lines(self, ended: bool = False) -> Iterator[MetricsLine]:
        """The lines that were finished since the last call; once the program has ``ended``, whatever is left.

        Raises: ProgramError naming the line that is wrong.
        """
        try:
            with self.path.open("rb") as f:
                f.seek(self._read)
                found = f.read()
        except FileNotFoundError:
            return
        whole = found if ended else found[: found.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._number += 1
            if line.strip():
                yield self._parsed(line)

    def _parsed(self, line: bytes) -> MetricsLine:
        try:
            return MetricsLine.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise ProgramError(f"{self.path}:{self._number}: {where}: {first['msg']}") from None


def finished(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the checkpoints that a program has renamed to their step, in order.

    Raises: ProgramError for one that is no folder.
    """
    found = sorted(path for path in folder.iterdir() if CHECKPOINT.fullmatch(path.name))
    for path in found:
        if path.is_symlink() or not path.is_dir():
            raise ProgramError(f"{path} is not a folder: save a checkpoint as a folder of files")
    return [(int(path.name), path) for path in found]
