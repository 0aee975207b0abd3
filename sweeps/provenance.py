"""What a run was made of: commit, uncommitted changes, untracked source, packages, machine."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SOURCE = Path(__file__).resolve().parent.parent
PACKAGES = (
    "meanflow-study",
    "numpy",
    "scipy",
    "torch",
    "torchvision",
    "torch-fidelity",
    "safetensors",
    "scikit-learn",
    "pandas",
    "sqlalchemy",
    "alembic",
    "pydantic",
    "ruamel.yaml",
    "matplotlib",
    "seaborn",
    "ray",
    "submitit",
)
PREFIXES = ("--src-prefix=a/", "--dst-prefix=b/")  # diff.noprefix would leave them out
MAX_UNTRACKED_BYTES = 8 * 2**20
SOURCE_SUFFIXES = {".py", ".yaml", ".yml", ".toml", ".md", ".json", ".cfg", ".sh"}


@dataclass(frozen=True)
class Provenance:
    """A JSON-ready record and the files that go beside it."""

    record: dict[str, Any]
    files: dict[str, bytes]


def _git(*args: str) -> bytes | None:
    """What git says of our source, whatever the user's settings, and whoever owns the checkout."""
    command = ["git", "-C", str(SOURCE), "-c", "safe.directory=*", "-c", "core.quotePath=false", *args]
    environment = {k: v for k, v in os.environ.items() if k not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}}
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _is_checkout() -> bool:
    """Whether our source is the top of a git checkout (and not, say, site-packages inside somebody's)."""
    top = _git("rev-parse", "--show-toplevel")
    return top is not None and Path(os.fsdecode(top).strip()).resolve() == SOURCE


def _untracked() -> tuple[bytes, list[str]]:
    """(tar.gz of untracked source, names left out because of their size or kind)."""
    names = [n for n in os.fsdecode(_git("ls-files", "-z", "--others", "--exclude-standard") or b"").split("\0") if n]
    buffer, left_out, total = io.BytesIO(), [], 0
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in sorted(names):
            path = SOURCE / name
            try:
                content = path.read_bytes() if path.suffix in SOURCE_SUFFIXES else None
            except OSError:  # gone a moment ago, or not a file
                content = None
            if content is None or total + len(content) > MAX_UNTRACKED_BYTES:
                left_out.append(name)
                continue
            total += len(content)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return (buffer.getvalue() if total else b""), left_out


def package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str | None:
    """What the processor calls itself; None where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, None) or platform.processor() or None


def machine() -> dict[str, Any]:
    """Where this runs, without the user's name."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": sys.version.split()[0],
    }


def collect() -> Provenance:
    """Take the snapshot. Outside a git checkout, the installed version stands for the commit."""
    record: dict[str, Any] = {
        "packages": package_versions(),
        "machine": machine(),
        "commit": None,
        "dirty": None,
    }
    files: dict[str, bytes] = {}
    if _is_checkout():
        record["commit"] = os.fsdecode(_git("rev-parse", "HEAD") or b"").strip() or None
        patch = _git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", *PREFIXES) or b""
        untracked, left_out = _untracked()
        record |= {"dirty": bool(patch or untracked), "untracked_left_out": left_out}
        if patch:
            files["source.patch"] = patch
        if untracked:
            files["untracked.tar.gz"] = untracked
    return Provenance(record, files)
