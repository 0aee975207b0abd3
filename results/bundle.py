"""The file format of a bundle: a tar.gz of plain files, of which the first is a manifest of all others.

Only names that a home uses are allowed in it, so that nothing can lead out of the folder it is unpacked in.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt
from pydantic_core import PydanticCustomError

from results.formats import Format, Name
from results.store import StoreError

MANIFEST = "manifest.json"
BLOCK = 512  # tar's unit
CHUNK_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 256 << 20  # a million files and more
MAX_FILE_BYTES = 8 << 30  # what a plain tar header can say

_RUN = r"runs/[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_TRAJECTORY = r"trajectories/[A-Za-z0-9]{1,64}"
_ATTEMPT = rf"{_TRAJECTORY}/attempts/\d{{4,9}}"
RECORDS = ("segment.json", "metrics.jsonl", "DONE.json")
LOG = "log.txt"
_NAMES = re.compile(
    rf"{_RUN}/(?:run\.json|arms\.jsonl|protocols\.json|source\.patch|untracked\.tar\.gz)"
    rf"|{_TRAJECTORY}/trajectory\.json|{_TRAJECTORY}/released/\d{{9}}"
    rf"|{_TRAJECTORY}/snapshots/\d{{9}}/(?:manifest\.json|ema\.safetensors)"
    rf"|{_ATTEMPT}/(?:segment\.json|metrics\.jsonl|DONE\.json|log\.txt|[A-Za-z0-9][A-Za-z0-9_.-]{{0,90}}\.npy)"
    r"|floors/[A-Za-z0-9]{1,64}\.json"
    r"|verdicts\.jsonl",
    re.ASCII,
)


class BundleError(StoreError):
    """A bundle cannot be written, or is refused. Says which file, why, and what to do."""


def refused(bundle: Path, why: str) -> BundleError:
    """Of a bundle that is not taken."""
    return BundleError(f"{bundle} is refused, and nothing of it was taken: {why}")


def is_name(path: str) -> bool:
    """Whether a bundle may hold a file of this name."""
    return _NAMES.fullmatch(path) is not None


def _known_name(path: str) -> str:
    if not is_name(path):
        raise PydanticCustomError("name", "{path} is no file that a bundle may hold", {"path": repr(path[:200])})
    return path


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Entry):
    """One file of a bundle."""

    path: Annotated[Name, AfterValidator(_known_name)]
    bytes: Annotated[NonNegativeInt, Field(strict=True, lt=MAX_FILE_BYTES)]
    sha256: Annotated[Name, Field(pattern=r"^[0-9a-f]{64}$")]


class StudyEntry(_Entry):
    """What a bundle holds of one study at one scale, for people."""

    study: Name
    scale: Name
    variant: Name | None
    runs: Annotated[int, Field(strict=True, ge=1)]


class Manifest(_Entry):
    """manifest.json, the first file; the others follow in the order of ``files``, by name."""

    format: Format
    kind: Literal["meanflow-study bundle"] = "meanflow-study bundle"
    created: datetime
    version: Name
    weights: Literal["ema"] | None
    studies: list[StudyEntry]
    files: list[FileEntry]
