"""Which file system a path lies on, and whether it is shared between machines."""

from __future__ import annotations

from pathlib import Path

# Linux's and macOS's names. What is not named here counts as local.
NETWORK = frozenset(
    {
        "9p", "acfs", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre",
        "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf",
        "virtiofs", "vmhgfs", "webdav", "wekafs",
    }
)  # fmt: skip
# Of those that run as a program of their own (fuse.sshfs, fuse.glusterfs, fuse.juicefs ...) the few that are local.
LOCAL_FUSE = frozenset({"fuse.ext4", "fuse.exfat", "fuse.fuse-overlayfs", "fuse.ntfs", "fuse.ntfs-3g"})


def is_network(fstype: str) -> bool:
    """Whether several machines may see a file system of this type at once, so that shared memory cannot tie together
    those who use a file on it."""
    name = fstype.lower()
    return name in NETWORK or (name.startswith("fuse.") and name not in LOCAL_FUSE)


def filesystem_of(path: Path) -> str:
    """The type of the file system that a path (there or not) lies on; empty where that is unknown."""
    import psutil

    place = path.resolve()
    mounts = {
        Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)
    }  # of one point, the last is on top
    return next((mounts[folder] for folder in (place, *place.parents) if folder in mounts), "")
