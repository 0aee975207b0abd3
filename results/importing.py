"""Taking an unpacked bundle into a home: what is there stays as it is, and what comes is renamed into place.

Trajectories come before runs and these before verdicts, each step whole or not at all, so a home works at every moment
and importing again completes what was interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from results.appending import append_lines
from results.bundle import RECORDS, Manifest, refused
from results.bundledcode import check_code, code_brought
from results.files import REPAIR, folders, look, read_document
from results.formats import FloorFile, TrajectoryFile
from results.ingest import ingest
from results.layout import Home, TrajectoryDir
from results.store import StoreError, open_store
from results.unbundling import unpack

Alone = Callable[[TrajectoryDir], AbstractContextManager[bool]]


@dataclass
class Imported:
    """What was taken; what was there already; the attempts that got another number, as (trajectory, theirs, ours); and
    the trajectories left out since somebody works on them."""

    runs: int = 0
    trajectories: int = 0
    attempts: int = 0
    snapshots: int = 0
    verdicts: int = 0
    there: int = 0
    renumbered: list[tuple[str, int, int]] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)


def take(bundle: Path, home: Home, alone: Alone, trust_code: bool = False) -> tuple[Manifest, Imported]:
    """Take a bundle into a home, new or not. ``alone`` holds a trajectory's leases, or says that it cannot.

    Raises: BundleError, and nothing of it was taken, if anything in it is not as it should be, or if it brings Python
    code that this home does not have and that is not to be trusted (``trust_code``).
    """
    new = not home.root.exists()
    staged = Home(home.root / f".import.{os.getpid()}-{secrets.token_hex(4)}")  # as sweeps.leftovers knows it
    try:
        manifest = unpack(bundle, staged.root)
        check(bundle, staged, home)
        brought = code_brought(bundle, staged)
        if not trust_code:
            check_code(bundle, brought, home)
        new = False
        return manifest, merge(staged, home, alone)
    finally:
        shutil.rmtree(staged.root, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):
                home.root.rmdir()


def check(bundle: Path, staged: Home, home: Home) -> None:
    """Refuse what the store could not hold, or what contradicts the home. Raises: BundleError."""
    try:
        engine = open_store(URL.create("sqlite", database=str(staged.root / ".trial.sqlite")))
        try:
            ingest(engine, staged)
        finally:
            engine.dispose()
    except StoreError as error:
        said = str(error).replace(f"{staged.root}{os.sep}", "").replace(f" {REPAIR}", "")
        raise refused(bundle, said) from None
    for folder in folders(staged.runs):
        if look(folder / "run.json") is None:
            raise refused(bundle, f"{folder.name} has no run.json")
        if home.run(folder.name).exists() and not _holds(home.run(folder.name), folder):
            said = f"run {folder.name} is in {home.root} with other contents; import it into another home"
            raise refused(bundle, said)
    for path in _files(staged.floors):
        if read_document(path, FloorFile).protocol != path.stem:
            raise refused(bundle, f"floors/{path.name} is of another protocol")
    for folder in folders(staged.trajectories):
        _check_trajectory(bundle, TrajectoryDir(folder), home.trajectory(folder.name))


def _check_trajectory(bundle: Path, staged: TrajectoryDir, ours: TrajectoryDir) -> None:
    key = staged.root.name
    if not staged.description.is_file():
        raise refused(bundle, f"trajectory {key} has no trajectory.json")
    for attempt in folders(staged.attempts):
        segment = _segment(attempt) or {}
        number = segment.get("attempt")
        if segment.get("trajectory") != key or not isinstance(number, int) or attempt != staged.attempt(number):
            said = f"trajectory {key}: the segment.json of attempt {attempt.name} is missing or is another's"
            raise refused(bundle, said)
    if ours.description.is_file():
        pair = [read_document(one.description, TrajectoryFile) for one in (staged, ours)]
        if len({(one.parent, one.seed, one.horizon_steps) for one in pair}) > 1:
            said = f"trajectory {key} starts elsewhere than the one of that name in {ours.root.parent}"
            raise refused(bundle, said)


def merge(staged: Home, home: Home, alone: Alone) -> Imported:
    """Move a bundle that has been checked into a home."""
    done = Imported()
    os.sync()  # what is renamed into place is there, whatever happens
    for folder in folders(staged.trajectories):
        ours = home.trajectory(folder.name)
        with alone(ours) as mine:
            if mine:
                _merge_trajectory(TrajectoryDir(folder), ours, done)
            else:
                done.busy.append(folder.name)
    for folder in folders(staged.runs):
        if _publish(folder, home.run(folder.name)):
            done.runs += 1
        else:
            done.there += 1
    for path in _files(staged.floors):
        _link(path, home.floor(path.stem))
    if staged.verdicts.is_file():
        append_lines(home.verdicts, lambda content: _new_lines(content, staged.verdicts.read_bytes(), done))
    return done


def _merge_trajectory(staged: TrajectoryDir, ours: TrajectoryDir, done: Imported) -> None:
    if _link(staged.description, ours.description):
        done.trajectories += 1
    else:
        done.there += 1
    for note in _files(staged.released):
        _link(note, ours.released / note.name)
    for snapshot in folders(staged.snapshots):
        if _publish(snapshot, ours.snapshots / snapshot.name):
            done.snapshots += 1
        else:
            done.there += 1
    for theirs, number in match(staged, ours).items():
        attempt = staged.attempt(theirs)
        if ours.attempt(number).exists():
            for path in _files(attempt):  # e.g. artefacts that an earlier bundle left out
                _link(path, ours.attempt(number) / path.name)
            done.there += 1
            continue
        if number != theirs:
            _renumber(attempt / "segment.json", number)
            done.renumbered.append((ours.root.name, theirs, number))
        _publish(attempt, ours.attempt(number))
        done.attempts += 1


def match(staged: TrajectoryDir, ours: TrajectoryDir) -> dict[int, int]:
    """Which number each attempt of a bundle has or gets here."""
    here, coming = (
        {int(folder.name): _identity(folder) for folder in folders(one.attempts) if folder.name.isdecimal()}
        for one in (ours, staged)
    )
    return numbered(here, coming)


def numbered(here: Mapping[int, str | None], coming: Mapping[int, str | None]) -> dict[int, int]:
    """Number → number here, of attempts given by what identifies them.

    One that is here already keeps its number here. Another keeps its own if that is above all that are here, else it
    gets the next above them: of two attempts that hold the same row the lowest counts, so what was here still does.
    """
    free, numbers = dict(here), dict[int, int]()
    for exactly in (True, False):
        for theirs, identity in sorted(coming.items()):
            same = [n for n, one in sorted(free.items()) if one == identity and (n == theirs or not exactly)]
            if theirs not in numbers and same:
                numbers[theirs] = same[0]
                del free[same[0]]
    last = max(here, default=0)
    for theirs in sorted(coming.keys() - numbers.keys()):
        last = numbers[theirs] = max(theirs, last + 1)
    return dict(sorted(numbers.items()))


def _identity(attempt: Path) -> str | None:
    """What makes an attempt the one it is: its records, but for its number; None if it has none that can be read."""
    segment = _segment(attempt)
    if segment is None:
        return None
    digest = hashlib.sha256(json.dumps({**segment, "attempt": None}, sort_keys=True).encode())
    for name in RECORDS[1:]:
        path = attempt / name
        digest.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else bytes(32))
    return digest.hexdigest()


def _segment(attempt: Path) -> dict[str, Any] | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        segment = json.loads((attempt / "segment.json").read_bytes())
        return segment if isinstance(segment, dict) else None
    return None


def _renumber(path: Path, number: int) -> None:
    """Write the number of an attempt into its segment.json, in the bundle's own folder."""
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "attempt": number}, indent=1))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _link(staged: Path, target: Path) -> bool:
    """Put a file in its place; never replaces. Returns: whether there was none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(staged, target)
    except FileExistsError:
        return False
    return True


def _publish(staged: Path, target: Path) -> bool:
    """Move a folder to its place by a rename; never replaces. Returns: whether there was none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # since an empty folder would be replaced
        return False
    try:
        staged.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        return False
    return True


def _holds(ours: Path, staged: Path) -> bool:
    """Whether a folder holds every file of another, with the same bytes."""
    pairs = [(path, ours / path.name) for path in _files(staged)]
    return all(mine.is_file() and mine.read_bytes() == path.read_bytes() for path, mine in pairs)


def _new_lines(content: bytes, coming: bytes, done: Imported) -> str:
    """The verdicts that do not stand among those that are there."""
    known = {_canonical(line) for line in content.split(b"\n")}
    lines = []
    for line in coming.split(b"\n")[:-1]:  # a line counts once its newline is there
        if line.strip() and (said := _canonical(line)) not in known:
            known.add(said)
            lines.append(line.decode() + "\n")
    done.verdicts += len(lines)
    return "".join(lines)


def _canonical(line: bytes) -> str:
    with contextlib.suppress(ValueError):
        return json.dumps(json.loads(line), sort_keys=True)
    return line.decode(errors="replace")
