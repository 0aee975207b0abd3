"""Event files for TensorBoard: a folder a run, written whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from studies.errors import StudyError
from sweeps.exports.marks import MARK, mark, marked
from sweeps.exports.series import Series


def write(runs: Iterable[Series], to: Path) -> tuple[int, int]:
    """Write ``to/<study>/<panel>/<arm>/<seed>/``. A run that has changed since the last export is written anew.

    Returns: (runs written, runs left alone). Raises: StudyError where something else lies in a run's folder.
    """
    from tensorboardX import SummaryWriter

    written = same = 0
    for run in runs:
        folder = to / run.group.replace(" ", "_") / run.name
        if marked(folder, run):
            same += 1
            continue
        if folder.exists() and not (folder / MARK).is_file():
            raise StudyError(f"{folder} is there, and not of `study export`: give another folder with --to")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / MARK).touch()  # ours, and not whole yet
        writer = SummaryWriter(str(folder))
        writer.add_text("parameters", "\n".join(f"    {name}: {value}" for name, value in run.parameters.items()), 0)
        for step, name, value in run.values:
            writer.add_scalar(name, value, step)
        writer.close()
        mark(folder, run)
        written += 1
    return written, same
