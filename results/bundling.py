"""Writing a bundle: results, configurations and provenance of some runs of a home, for another home."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import secrets
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from gzip import GzipFile
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from results.bundle import (
    BLOCK,
    CHUNK_BYTES,
    LOG,
    MANIFEST,
    MAX_FILE_BYTES,
    RECORDS,
    BundleError,
    FileEntry,
    Manifest,
    StudyEntry,
    is_name,
)
from results.files import folders, read_document
from results.formats import VERDICT_LINE, ArmLine, RunFile, TrajectoryFile
from results.layout import FORMAT, Home, TrajectoryDir
from results.recorded import read_arms, read_run, trajectories_of, whose

RUN_FILES = ("run.json", "arms.jsonl", "protocols.json", "source.patch", "untracked.tar.gz")
Source = Path | bytes
Snapshot = Callable[[TrajectoryDir, int], Mapping[str, Source]]  # the files, by name, of the EMA weights of a step


@dataclass(frozen=True)
class Taken:
    """What goes into a bundle besides what always does. ``snapshot`` finds EMA weights; None: they stay behind."""

    logs: bool = False
    artefacts: bool = False
    snapshot: Snapshot | None = None


def write_bundle(out: Path, home: Home, runs: Sequence[str], taken: Taken) -> Manifest:
    """Write a bundle of some runs and of the trajectories that they name, parents included; aside first, then renamed.

    Raises: StoreError where a file of the home cannot be read; BundleError if one changes meanwhile.
    """
    records = [read_run(home, name) for name in runs]
    sources = dict(sorted(_sources(home, records, taken).items()))
    manifest = Manifest(
        format=FORMAT,
        created=datetime.now(UTC).replace(microsecond=0),
        version=importlib.metadata.version("meanflow-study"),
        weights="ema" if taken.snapshot else None,
        studies=[
            StudyEntry(study=study, scale=scale, variant=variant, runs=count)
            for (study, scale, variant), count in sorted(
                Counter(map(whose, records)).items(), key=lambda item: (item[0][:2], item[0][2] or "")
            )
        ],
        files=[_entry(name, source) for name, source in sources.items()],
    )
    aside = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as raw:
            _write(raw, manifest, sources)
            raw.flush()
            os.fsync(raw.fileno())
        aside.rename(out)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return manifest


def _sources(home: Home, runs: Sequence[RunFile], taken: Taken) -> dict[str, Source]:
    """What a bundle holds, by name."""
    found: dict[str, Source] = {}
    points: dict[str, set[int]] = {}  # by trajectory, where something is measured
    protocols: set[str] = set()
    for run in runs:
        folder = home.run(run.run)
        found |= {f"runs/{run.run}/{name}": folder / name for name in RUN_FILES if (folder / name).is_file()}
        for arm in read_arms(home, run.run):
            _add_points(points, arm)
            protocols |= {point.protocol for point in arm.points}
    found |= {f"floors/{key}.json": home.floor(key) for key in sorted(protocols) if home.floor(key).is_file()}
    for key in _with_parents(home, points):
        files = _of_trajectory(home.trajectory(key), points.get(key, set()), taken)
        found |= {f"trajectories/{key}/{name}": source for name, source in files.items()}
    if verdicts := _verdicts(home.verdicts, {whose(run) for run in runs}):
        found["verdicts.jsonl"] = verdicts
    return found


def _add_points(points: dict[str, set[int]], arm: ArmLine) -> None:
    for key in trajectories_of(arm):
        points.setdefault(key, set())
    for point in arm.points:
        points[point.trajectory].add(point.step)


def _with_parents(home: Home, keys: Iterable[str]) -> Iterator[str]:
    """Those of the trajectories that are there, and what they start from."""
    todo, seen = list(keys), set()
    while todo:
        key = todo.pop()
        description = home.trajectory(key).description
        if key not in seen and description.is_file():
            seen.add(key)
            yield key
            parent = read_document(description, TrajectoryFile).parent
            todo.extend([parent.trajectory] if parent else [])


def _of_trajectory(folder: TrajectoryDir, points: Iterable[int], taken: Taken) -> dict[str, Source]:
    found: dict[str, Source] = {"trajectory.json": folder.description}
    for attempt in folders(folder.attempts):
        if attempt.name.isdecimal() and (attempt / "segment.json").is_file():
            names = [*RECORDS, *([LOG] if taken.logs else [])]
            names += [path.name for path in attempt.glob("[!.]*.npy")] if taken.artefacts else []
            files = {name: attempt / name for name in names if (attempt / name).is_file()}
            found |= {f"attempts/{attempt.name}/{name}": path for name, path in files.items()}
    # Full states stay behind, on purpose.
    steps = {step.name for place in (folder.checkpoints, folder.released) for step in _numbered(place)}
    found |= {f"released/{name}": b"" for name in steps}
    for step in points if taken.snapshot else ():
        assert taken.snapshot is not None
        weights = taken.snapshot(folder, step)
        found |= {f"snapshots/{step:09d}/{name}": source for name, source in weights.items()}
    return found


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []


def _verdicts(path: Path, wanted: set[tuple[str, str, str | None]]) -> bytes:
    """The whole lines of some studies, as they stand."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    kept = []
    for number, line in enumerate(lines, 1):
        if line.strip() and line.endswith(b"\n"):
            try:
                said = VERDICT_LINE.validate_json(line)
            except ValidationError:
                raise BundleError(f"{path}, line {number}: no verdict; repair or move the file") from None
            if (said.study, said.scale, said.variant) in wanted:
                kept.append(line)
    return b"".join(kept)


def _open(source: Source) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _entry(name: str, source: Source) -> FileEntry:
    if not is_name(name):
        raise BundleError(f"{name} is no name that a bundle may hold; rename or move the file, then run again")
    digest, size = hashlib.sha256(), 0
    try:
        with _open(source) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        raise _changed(name) from None
    if size >= MAX_FILE_BYTES:
        raise BundleError(
            f"{name} has {size / 2**30:.1f} GiB, which a bundle cannot hold; leave weights or artefacts out"
        )
    return FileEntry(path=name, bytes=size, sha256=digest.hexdigest())


def _changed(name: str) -> BundleError:
    return BundleError(f"{name} changed while it was bundled; run the same command again")


def _write(raw: IO[bytes], manifest: Manifest, sources: Mapping[str, Source]) -> None:
    """The archive: no times, owners or folders, in the order of the manifest."""
    text = manifest.model_dump_json(indent=1).encode()
    with GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed:
        _member(packed, MANIFEST, len(text), io.BytesIO(text))
        for entry in manifest.files:
            try:
                with _open(sources[entry.path]) as file:
                    # A log or metrics may have grown: what was there at first is taken.
                    if _member(packed, entry.path, entry.bytes, file) != entry.sha256:
                        raise _changed(entry.path)
            except FileNotFoundError:
                raise _changed(entry.path) from None
        packed.write(bytes(2 * BLOCK))


def _member(packed: GzipFile, name: str, size: int, file: IO[bytes]) -> str:
    """Write the first ``size`` bytes of a file as a member. Returns: their sha256."""
    info = tarfile.TarInfo(name)
    info.size = size
    packed.write(info.tobuf(format=tarfile.USTAR_FORMAT))
    digest, left = hashlib.sha256(), size
    while left and (chunk := file.read(min(left, CHUNK_BYTES))):
        digest.update(chunk)
        packed.write(chunk)
        left -= len(chunk)
    if left:
        raise _changed(name)
    packed.write(bytes(-size % BLOCK))
    return digest.hexdigest()
