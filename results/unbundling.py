"""Reading a bundle: every file is checked against the manifest while it is unpacked into a folder of its own.

A bundle may come from anywhere. Only plain files are accepted, only under names that a home uses, in the order and of
the size and sha256 that the manifest says; headers are read one by one, so that none can make us hold or write more.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zlib
from gzip import BadGzipFile, GzipFile
from pathlib import Path

from pydantic import ValidationError

from results.bundle import BLOCK, CHUNK_BYTES, MANIFEST, MAX_MANIFEST_BYTES, BundleError, FileEntry, Manifest, refused

MAX_PADDING = 1 << 20
PLAIN = {tarfile.REGTYPE, tarfile.AREGTYPE}


def unpack(bundle: Path, into: Path) -> Manifest:
    """Unpack a bundle into a new folder. Raises: BundleError if anything in it is not as it should be; OSError if the
    disk is full."""
    try:
        raw = bundle.open("rb")
    except FileNotFoundError:
        raise BundleError(f"there is no file {bundle}") from None
    except OSError as error:
        raise BundleError(
            f"{bundle} cannot be read: {error.strerror}; give the file that `study bundle` wrote"
        ) from None
    with raw, GzipFile(fileobj=raw) as packed:
        try:
            manifest = _manifest(bundle, packed)
            _check(bundle, manifest, into)
            for entry in manifest.files:
                _unpack_file(bundle, packed, entry, into / entry.path)
            _end(bundle, packed)
        except (EOFError, BadGzipFile, zlib.error) as error:
            raise refused(bundle, f"it is no tar.gz file, or damaged ({error})") from None
    return manifest


def _read(bundle: Path, packed: GzipFile, size: int) -> bytes:
    data = packed.read(size)
    if len(data) < size:
        raise refused(bundle, "it is cut off")
    return data


def _header(bundle: Path, packed: GzipFile) -> tarfile.TarInfo | None:
    """The next member, which must be a plain file; None at the end."""
    block = _read(bundle, packed, BLOCK)
    if not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise refused(bundle, f"it is no tar.gz file, or damaged ({error})") from None
    if info.type not in PLAIN or block[156:157] not in PLAIN:
        raise refused(bundle, f"{info.name[:200]!r} is no plain file (a link, folder, device or extension of tar)")
    return info


def _manifest(bundle: Path, packed: GzipFile) -> Manifest:
    info = _header(bundle, packed)
    if info is None or info.name != MANIFEST:
        raise refused(bundle, f"it does not begin with {MANIFEST}; only what `study bundle` wrote can be taken")
    if not 0 <= info.size <= MAX_MANIFEST_BYTES:
        raise refused(bundle, f"its {MANIFEST} is too large")
    try:
        manifest = Manifest.model_validate_json(_read(bundle, packed, info.size))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise refused(bundle, f"{MANIFEST}: {place}: {first['msg']}") from None
    _read(bundle, packed, -info.size % BLOCK)
    return manifest


def _check(bundle: Path, manifest: Manifest, into: Path) -> None:
    """Whether the files are named once and in order, and fit on the disk."""
    names = [entry.path for entry in manifest.files]
    if names != sorted(set(names)):
        raise refused(bundle, f"{MANIFEST}: its files are not in order, or one stands twice")
    into.mkdir(parents=True)
    total = sum(entry.bytes for entry in manifest.files)
    if total > (free := shutil.disk_usage(into).free):
        raise refused(bundle, f"it needs {total / 2**30:.2f} GiB, and {free / 2**30:.2f} GiB are free")


def _unpack_file(bundle: Path, packed: GzipFile, entry: FileEntry, target: Path) -> None:
    info = _header(bundle, packed)
    if info is None or info.name != entry.path:
        found = "the end" if info is None else repr(info.name[:200])
        raise refused(bundle, f"{found} stands where {MANIFEST} names '{entry.path}'")
    if info.size != entry.bytes:
        raise refused(bundle, f"'{entry.path}' has {info.size} bytes, not the {entry.bytes} that {MANIFEST} says")
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), entry.bytes
    with target.open("xb") as file:
        while left:
            chunk = _read(bundle, packed, min(left, CHUNK_BYTES))
            digest.update(chunk)
            file.write(chunk)
            left -= len(chunk)
    if digest.hexdigest() != entry.sha256:
        raise refused(bundle, f"'{entry.path}' is damaged: its sha256 is not that of {MANIFEST}")
    _read(bundle, packed, -entry.bytes % BLOCK)


def _end(bundle: Path, packed: GzipFile) -> None:
    """Nothing but padding follows, and the checksum of the whole is right."""
    for _ in range(MAX_PADDING // BLOCK):
        block = packed.read(BLOCK)
        if not block:
            return
        if any(block):
            raise refused(bundle, f"something follows the files that {MANIFEST} names")
    raise refused(bundle, "its padding does not end")
