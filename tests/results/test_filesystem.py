"""WAL only where it is safe: the decision, real mounts, and a store on what looks like a network file system."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from results import sqlitefile as module
from results.dump import canonical_dump
from results.filesystem import filesystem_of, is_network
from results.ingest import ingest
from results.rebuild import rebuild
from results.store import open_store


@pytest.mark.parametrize(
    "fstype",
    ["nfs", "nfs4", "NFS", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "9p", "fuse.sshfs",
     "fuse.glusterfs", "fuse.juicefs", "afs", "virtiofs"],
)  # fmt: skip
def test_shared_between_machines(fstype: str) -> None:
    assert is_network(fstype)


@pytest.mark.parametrize(
    "fstype", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", "fuseblk", "fuse.fuse-overlayfs", "", "new"]
)
def test_on_one_machine(fstype: str) -> None:
    assert not is_network(fstype)


def test_a_real_mount_is_told_from_what_lies_around_it(tmp_path: Path, tmpfs: Callable[[str], Path]) -> None:
    around, mount = filesystem_of(tmp_path), tmpfs("size=4m")
    assert filesystem_of(mount / "not" / "there.sqlite") == "tmpfs"
    assert filesystem_of(tmp_path / "mount0x" / "store.sqlite") == around != ""
    (tmp_path / "link").symlink_to(mount)
    assert filesystem_of(tmp_path / "link" / "store.sqlite") == "tmpfs"
    assert journal(mount) == ("wal", 1)


def journal(folder: Path) -> tuple[str, int]:
    """(journal mode, synchronous) of a store in a folder."""
    engine = open_store(f"sqlite:///{folder / 'store.sqlite'}")
    try:
        with engine.connect() as connection:
            mode, synchronous = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
            )
    finally:
        engine.dispose()
    return mode, synchronous


@pytest.fixture
def nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Makes a folder of the test look as if an NFS were mounted on it."""
    folder = tmp_path / "shared"
    folder.mkdir()
    module._tell_of_network.cache_clear()

    def mount() -> Path:
        there = [SimpleNamespace(mountpoint=str(point), fstype=t) for point, t in (("/", "ext4"), (folder, "nfs4"))]
        monkeypatch.setattr("psutil.disk_partitions", lambda all: there)
        return folder

    return mount


def test_no_wal_on_a_network_file_system(
    builder, nfs: Callable[[], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, home = nfs(), builder.standard()
    url, local = f"sqlite:///{folder / 'store.sqlite'}", f"sqlite:///{tmp_path / 'local.sqlite'}"
    dumps = []
    with caplog.at_level(logging.WARNING):
        for address in (url, local):
            engine = open_store(address)
            ingest(engine, home)
            dumps.append(list(canonical_dump(engine)))
            if address == url:
                assert sorted(p.name for p in folder.iterdir()) == ["store.sqlite"]
            engine.dispose()
        assert journal(folder) == ("delete", 2)
        rebuild(url, home)
        assert journal(folder) == ("delete", 2)
    assert dumps[0] == dumps[1]
    (said,) = [record.getMessage() for record in caplog.records]  # not at every opening
    assert "shared/store.sqlite lies on a network file system (nfs4)" in said and "STUDY_STORE" in said


def test_a_store_that_moves_to_a_network_file_system_leaves_wal(
    builder, nfs: Callable[[], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "shared"
    url = f"sqlite:///{folder / 'store.sqlite'}"
    engine = open_store(url)
    ingest(engine, builder.standard())
    before = list(canonical_dump(engine))
    engine.dispose()
    assert journal(folder) == ("wal", 1)
    assert not caplog.records
    nfs()
    assert journal(folder) == ("delete", 2)
    assert len(caplog.records) == 1
    engine = open_store(url)
    assert list(canonical_dump(engine)) == before
    engine.dispose()
