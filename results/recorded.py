"""The runs of a home as their files record them; the store is not asked."""

from __future__ import annotations

from collections.abc import Iterator

from results.files import folders, look, read_document, read_whole_lines
from results.formats import ARM_LINE, ArmLine, RunFile
from results.layout import Home

Whose = tuple[str, str, str | None]  # study, scale, variant


def run_names(home: Home) -> list[str]:
    """The names of all recorded runs, oldest first."""
    return [folder.name for folder in folders(home.runs) if look(folder / "run.json") is not None]


def read_run(home: Home, name: str) -> RunFile:
    """Raises: StoreError."""
    return read_document(home.run(name) / "run.json", RunFile)


def whose(run: RunFile) -> Whose:
    """Which study it is a run of, at which scale, as which variant."""
    return run.study, run.scale, run.variant


def read_arms(home: Home, name: str) -> list[ArmLine]:
    """The arms of a run as it declared them. Raises: StoreError."""
    return read_whole_lines(home.run(name) / "arms.jsonl", ARM_LINE)


def trajectories_of(arm: ArmLine) -> Iterator[str]:
    """The trajectories that an arm names, some of them more than once."""
    yield from (stage.trajectory for stage in arm.stages)
    yield from (point.trajectory for point in arm.points)
