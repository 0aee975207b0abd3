"""What has been exported into a folder, so that it is not exported twice: a small file a run."""

from __future__ import annotations

from pathlib import Path

from sweeps.exports.series import Series

MARK = "meanflow-study.txt"


def marked(folder: Path, run: Series) -> bool:
    """Whether a folder holds a run as it is now."""
    return (folder / MARK).is_file() and (folder / MARK).read_text() == run.digest


def mark(folder: Path, run: Series) -> None:
    (folder / MARK).write_text(run.digest)
