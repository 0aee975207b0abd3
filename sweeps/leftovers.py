"""What processes that died have left in a home: half-written files, staged folders, stale leases, unpublished runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil

from results.layout import Home, TrajectoryDir
from sweeps.attempt import STAGED
from sweeps.lease import holder

Kind = Literal["staged", "lease", "leftover", "run"]
Leftover = tuple[Kind, Path]

GRACE_S = 600.0  # nothing that is written aside takes so long from one write to the next
DISCARDED = ".discarded-"

# Whoever writes a file whole writes it aside as .NAME.PID-RANDOM first (`sweeps.attempt.write_atomically`).
_ASIDE = (
    r"\.(?:calibration\.json|import|trajectory\.json|segment\.json|DONE\.json|.+\.npy)\.(?P<pid>\d+)(?:-[0-9a-f]{8})?"
)
_LEASE = r"\.(?:\w+\.lease|home\.json)\.[0-9a-f]{32}"
_PASSING = r"\.(?:rebuild|now)-\w+"
_HIDDEN = re.compile(rf"{_ASIDE}|{_LEASE}|{_PASSING}")
_RUN = re.compile(r"\.\d{8}T\d+-[0-9a-f]+")


def of_trajectory(folder: TrajectoryDir) -> Iterator[Leftover]:
    """What is left over in a trajectory, given that nobody holds its leases."""
    for attempt in _entries(folder.attempts):
        for path in _entries(attempt):
            if path.name.startswith(STAGED):
                yield "staged", path
            elif _is_over(path):
                yield "leftover", path
    for part in (folder.checkpoints, folder.snapshots):
        yield from (("leftover", path) for path in _entries(part) if path.name.startswith(DISCARDED))
    yield from (("leftover", path) for path in _entries(folder.root) if _is_over(path))
    yield from (("lease", path) for path in folder.leases if path.exists() and holder(path) is None)


def of_home(home: Home) -> Iterator[Leftover]:
    """What is left over beside the trajectories."""
    yield from (("leftover", path) for path in _entries(home.root) if _is_over(path))
    yield from (("run", path) for path in _entries(home.runs) if _RUN.fullmatch(path.name) and _age_s(path) > GRACE_S)
    if home.gc_lease.exists() and holder(home.gc_lease) is None:
        yield "lease", home.gc_lease


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, by name; nothing where it is none."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_over(path: Path) -> bool:
    """Whether this is a file or folder that was written aside, and whoever did so is gone: nothing in it was touched
    for `GRACE_S`, and no process of that number has lived since then."""
    found = _HIDDEN.fullmatch(path.name)
    if found is None or path.is_symlink():
        return False
    age = _age_s(path)
    return age > GRACE_S and not (found["pid"] and _lives_since(int(found["pid"]), age))


def _lives_since(pid: int, age_s: float) -> bool:
    try:
        return psutil.Process(pid).create_time() < time.time() - age_s
    except psutil.Error:
        return False


def _age_s(path: Path) -> float:
    """Seconds since a file, or anything in a folder, was touched; 0 where it has just gone."""
    try:
        return time.time() - max(p.lstat().st_mtime for p in (path, *path.rglob("*")))
    except FileNotFoundError:
        return 0.0
