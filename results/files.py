"""Reads the files of a home. Every complaint names the file and, in JSON lines, the line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from results.layout import FORMAT
from results.store import StoreError

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

CHUNK_BYTES = 4 << 20  # of JSON lines held in memory at once
REPAIR = "Repair or move it, then run `study db rebuild`."


class FileError(StoreError):
    """One file of the home is wrong; the others can still be read."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a file has been read, and what it looked like then (see `results.models.Source`)."""

    offset: int = 0
    lines: int = 0
    size: int = 0
    mtime_ns: int = 0

    def fits(self, stat: os.stat_result) -> bool:
        """Whether the file still looks as it did."""
        return (self.size, self.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def folders(path: Path) -> list[Path]:
    """The folders in a folder, by name, without hidden ones (not yet published); none where there is none."""
    try:
        with os.scandir(path) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"The folder {path} cannot be read: {error.strerror}.") from error
    return [path / name for name in names]


def look(path: Path) -> os.stat_result | None:
    """The file's size and time; None where there is no such file. Raises: FileError for a pipe, say, of which one would
    wait for ever."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from error
    if not S_ISREG(found.st_mode):
        raise FileError(f"{path} is not a regular file. {REPAIR}")
    return found


def read_document(path: Path, model: type[M]) -> M:
    """A JSON file as its model."""
    try:
        return model.model_validate_json(_bytes(path))
    except ValidationError as error:
        raise FileError(f"{path}: {_first(error)}. {REPAIR}") from error


def read_protocols(path: Path) -> dict[str, dict[str, Any]]:
    """protocols.json: protocol key to resolved protocol."""
    try:
        entries = TypeAdapter(dict[str, Any]).validate_json(_bytes(path))
        if entries.pop("format", FORMAT) != FORMAT:
            raise FileError(f"{path}: it is in another format than {FORMAT}; update meanflow-study.")
        return TypeAdapter(dict[str, dict[str, Any]]).validate_python(entries)
    except ValidationError as error:
        raise FileError(f"{path}: {_first(error)}. {REPAIR}") from error


def read_whole_lines(path: Path, adapter: TypeAdapter[T]) -> list[T]:
    """All lines of a JSON-lines file that was published whole: a line that is cut off is an error here."""
    entries = []
    for number, line in enumerate(_bytes(path).splitlines(), 1):
        if line.strip():
            try:
                entries.append(adapter.validate_json(line))
            except ValidationError as error:
                raise FileError(f"{path}, line {number}: {_first(error)}. {REPAIR}") from error
    return entries


class Lines(Generic[T]):
    """The lines of a growing JSON-lines file after a mark.

    A line counts once its newline is there; what follows the last newline is cut off or still being written
    and is left for later. A malformed line is passed over: `problem` then tells of the first one, and `mark`
    stays before it, so that the next reader meets it too. Both are valid once `batches` is exhausted.
    """

    def __init__(self, path: Path, start: Mark, adapter: TypeAdapter[T]) -> None:
        self.path, self.mark, self.problem = path, start, ""
        self._position, self._adapter = start, adapter

    def batches(self) -> Iterator[list[tuple[int, T]]]:
        """Lists of (line number from 1, entry), a few megabytes of text at a time."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_size < self._position.offset:
                    raise FileError(
                        f"{self.path} is shorter than when it was last read. If that is meant, or if the "
                        "store belongs to another home, run `study db rebuild`."
                    )
                file.seek(self._position.offset)
                self.mark = Mark(self._position.offset, self._position.lines, stat.st_size, stat.st_mtime_ns)
                while raw := file.readlines(CHUNK_BYTES):
                    yield self._parse(raw)
        except OSError as error:
            raise FileError(f"{self.path} cannot be read: {error.strerror}.") from error

    def _parse(self, raw: list[bytes]) -> list[tuple[int, T]]:
        entries = []
        number, offset = self._position.lines, self._position.offset
        for line in raw:
            if not line.endswith(b"\n"):  # only the last line can be
                break
            number += 1
            if line.strip():
                try:
                    entries.append((number, self._adapter.validate_json(line)))
                except ValidationError as error:
                    if not self.problem:
                        self.problem = f"{self.path}, line {number}: {_first(error)}. {REPAIR}"
                        self.mark = Mark(offset, number - 1)
            offset += len(line)
        self._position = Mark(offset, number)
        if not self.problem:
            self.mark = Mark(offset, number, self.mark.size, self.mark.mtime_ns)
        return entries


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}. {REPAIR}") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
