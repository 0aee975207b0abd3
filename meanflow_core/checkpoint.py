"""Checkpoints: safetensors and JSON, published whole or not at all, verified by sha256. No pickle.

A checkpoint is a folder with one ``<part>.safetensors`` a part and a ``manifest.json`` that names the trajectory, the
step and the hash of every file, and ends with its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from meanflow_core.manifest import (
    FORMAT,
    MANIFEST,
    OPAQUE,
    CheckpointError,
    damaged,
    publish,
    read_manifest,
    sealed,
    sync_folder,
)

__all__ = [
    "MANIFEST",
    "CheckpointError",
    "Loaded",
    "Parts",
    "load_checkpoint",
    "publish",
    "read_manifest",
    "write_checkpoint",
]

Parts = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Loaded:
    parts: Parts
    meta: dict[str, Any]


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def write_checkpoint(folder: Path, parts: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint into a new folder. ``meta`` must be JSON-ready; it comes back as ``Loaded.meta``.

    Raises: FileExistsError if the folder exists; OSError if the disk is full.
    """
    folder.mkdir(parents=True)
    files = {}
    for part, tensors in parts.items():
        data = save_safetensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
        _write(folder / f"{part}.safetensors", data)
        files[f"{part}.safetensors"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest = {"format": FORMAT, "meta": dict(meta), "files": files}
    _write(folder / MANIFEST, sealed(manifest))
    sync_folder(folder)


def load_checkpoint(
    folder: Path,
    parts: Iterable[str] | None = None,
    device: torch.device | str = "cpu",
    expect: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read a checkpoint (or some of its parts) and verify it.

    Args:
        expect: entries that the checkpoint's meta must hold, e.g. ``{"trajectory": ..., "step": ...}``.
    Raises: CheckpointError naming the file, for anything missing, damaged or foreign.
    """
    manifest = read_manifest(folder)
    for key, value in (expect or {}).items():
        if manifest["meta"].get(key) != value:
            raise damaged(
                folder / MANIFEST, f"a foreign checkpoint: its {key} is {manifest['meta'].get(key)!r}, not {value!r}"
            )
    if program := manifest["meta"].get(OPAQUE):
        raise CheckpointError(f"{folder} was saved by {program}, and the built-in trainer cannot read it")
    loaded: Parts = {}
    for name in parts if parts is not None else [f.removesuffix(".safetensors") for f in manifest["files"]]:
        path = folder / f"{name}.safetensors"
        try:
            data = path.read_bytes()
            declared = manifest["files"][path.name]["sha256"]
        except (FileNotFoundError, KeyError):
            raise damaged(path, "this part is missing") from None
        if hashlib.sha256(data).hexdigest() != declared:
            raise damaged(path, "damaged: its sha256 is not the manifest's")
        try:
            loaded[name] = {k: v.to(device) for k, v in load_safetensors(data).items()}
        except SafetensorError as error:
            raise damaged(path, f"not a safetensors file ({error})") from None
    return Loaded(loaded, manifest["meta"])
