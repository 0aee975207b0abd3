"""Which exceptions are the user's to solve, and what to tell them."""

from __future__ import annotations

import errno
import sys

from meanflow_core.registry import ComponentError
from studies.errors import StudyError

# Looked up only in modules that are loaded already: an exception cannot come from one that is not.
_EXPECTED = (
    ("results.store", "StoreError"),
    ("reports.errors", "ReportError"),
    ("meanflow_core.manifest", "CheckpointError"),
    ("meanflow_core.evaluation.errors", "EvaluationError"),
    ("meanflow_core.data.base", "DataError"),
    ("meanflow_core.data.layout", "LayoutError"),
    ("meanflow_core.data.latentfiles", "LatentsError"),
    ("meanflow_core.arrays", "ArrayFileError"),
)

_DISK = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again: nothing finished is lost",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again: nothing finished is lost",
    errno.EROFS: "the file system is read-only; give a writable folder",
    errno.EACCES: "permission denied; give a folder that you can write",
    errno.ENOTDIR: "a part of this path is a file, not a folder; give another",
    errno.EEXIST: "this is a file, not a folder; give another",
}


def in_words(error: Exception) -> str | None:
    """The message for an expected error; None for a bug, which deserves its traceback."""
    if isinstance(error, StudyError | ComponentError):
        return str(error)
    for module, name in _EXPECTED:
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(error, getattr(loaded, name, ())):
            return str(error)
    if isinstance(error, OSError) and (error.errno in _DISK or error.filename):
        return f"{error.filename or 'writing'}: {_DISK.get(error.errno or 0, error.strerror)}"
    return None
