"""The manifest of a checkpoint: what the folder holds, with the sha256 of every file, sealed by its own; and how such a
folder is published. Torch-free."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"
EMA = "ema.safetensors"
OPAQUE = "program"  # in the meta of what a trainer of your own has saved: its name


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or not the one asked for. Says which file and what to do."""


def sealed(body: Mapping[str, Any]) -> bytes:
    """A manifest's bytes: the body and, last, the sha256 of the body's text."""
    seal = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return json.dumps({**body, "sha256": seal}, indent=1).encode()


def damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {why}. Move the folder {path.parent} away and run again: the steps will be trained anew "
        "from the nearest earlier checkpoint"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises: CheckpointError if missing, damaged or of a foreign format."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        if manifest["format"] != FORMAT:
            raise damaged(path, f"written in format {manifest['format']}, this version reads {FORMAT}")
        del manifest["sha256"]
        if sealed(manifest) != data:
            raise damaged(path, "damaged: it does not match its own sha256")
        if not isinstance(manifest["files"], dict) or not isinstance(manifest["meta"], dict):
            raise damaged(path, "not a checkpoint's manifest")
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError):
        raise damaged(path, "damaged, or not a checkpoint's manifest") from None
    result: dict[str, Any] = manifest
    return result


def snapshot_files(snapshot: Path, full: Path) -> dict[str, Path | bytes]:
    """The files, by name, of the snapshot of a step: those that are there, else made of the step's full checkpoint,
    which holds the EMA weights too; none where there is neither, or only what a trainer of your own has saved.

    Raises: CheckpointError.
    """
    place = snapshot if snapshot.is_dir() else full
    if not place.is_dir():
        return {}
    manifest = read_manifest(place)
    if OPAQUE in manifest["meta"]:
        return {}
    if place == snapshot:
        return {name: snapshot / name for name in sorted([MANIFEST, *manifest["files"]])}
    if EMA not in manifest["files"]:
        raise damaged(full / MANIFEST, f"it names no {EMA}")
    return {EMA: full / EMA, MANIFEST: sealed({**manifest, "files": {EMA: manifest["files"][EMA]}})}


def publish(staged: Path, target: Path) -> bool:
    """Move a finished folder to its place by a rename that cannot replace.

    Returns: False, and the staged folder is removed, if the target is there already: whoever published first is right.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(staged)
        return False
    sync_folder(target.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
