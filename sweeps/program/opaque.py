"""Checkpoints whose content is nobody's business but the program's: hashed, published and compared, never opened.

A published one is a folder with our ``manifest.json`` and, in ``state/``, the program's folder as it was.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meanflow_core.manifest import (
    FORMAT,
    MANIFEST,
    OPAQUE,
    CheckpointError,
    damaged,
    read_manifest,
    sealed,
    sync_folder,
)
from meanflow_core.sha import file_sha256

STATE = "state"


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file of a folder, by its path in it.

    Raises: CheckpointError for what is neither a file nor a folder: a link may point to what changes.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            found[path.relative_to(folder).as_posix()] = file_sha256(path)
        elif not stat.S_ISDIR(mode):
            raise CheckpointError(f"{path} is neither a file nor a folder; a checkpoint holds nothing else")
    return found


def wrap(saved: Path, staged: Path, program: str, meta: Mapping[str, Any]) -> None:
    """Move a folder that a program has finished into a new folder ``staged``, with a manifest, all of it durable.

    Raises: CheckpointError for what a checkpoint cannot hold, and for one that is empty.
    """
    if not (found := hashes(saved)):
        raise CheckpointError(f"{saved} is empty: save the state in it, then rename it")
    staged.mkdir(parents=True)
    saved.rename(staged / STATE)
    files = {}
    for name, digest in found.items():
        path = staged / STATE / name
        with path.open("rb") as f:
            os.fsync(f.fileno())
        files[f"{STATE}/{name}"] = {"sha256": digest, "bytes": path.stat().st_size}
    manifest = {"format": FORMAT, "meta": {**meta, OPAQUE: program}, "files": files}
    with (staged / MANIFEST).open("xb") as f:
        f.write(sealed(manifest))
        f.flush()
        os.fsync(f.fileno())
    for folder in (*(path for path in (staged / STATE).rglob("*") if path.is_dir()), staged / STATE, staged):
        sync_folder(folder)


def state_of(folder: Path, expect: Mapping[str, Any]) -> Path:
    """The program's folder in a published checkpoint, every file compared with the manifest.

    Args:
        expect: entries that the manifest's meta must hold: trajectory and step.
    Raises: CheckpointError if it is missing, damaged, another's, or one of the built-in trainer.
    """
    manifest = read_manifest(folder)
    where = folder / MANIFEST
    if OPAQUE not in manifest["meta"]:
        raise damaged(where, "a checkpoint of the built-in trainer, where one of a trainer of your own is needed")
    for key, value in expect.items():
        if manifest["meta"].get(key) != value:
            raise damaged(where, f"a foreign checkpoint: its {key} is {manifest['meta'].get(key)!r}, not {value!r}")
    declared = {name: file["sha256"] for name, file in manifest["files"].items()}
    found = {f"{STATE}/{name}": digest for name, digest in hashes(folder / STATE).items()}
    if wrong := sorted(name for name in declared.keys() | found.keys() if declared.get(name) != found.get(name)):
        raise damaged(where, f"{wrong[0]} is damaged, missing or too many: its sha256 is not the manifest's")
    return folder / STATE
