"""What attempts have recorded, for who asks often: each line is read once."""

from __future__ import annotations

from pathlib import Path

from results.layout import TrajectoryDir
from sweeps.advance import new_lines
from sweeps.attempt import attempt_numbers, evaluations_in


class Records:
    """The evaluations recorded so far on trajectories, as `sweeps.attempt.recorded_evaluations` finds them.

    An attempt that has ended is not looked at again, and new ones are found by their numbers, which go up by one.
    """

    def __init__(self) -> None:
        self._of: dict[Path, _Recorded] = {}

    def __call__(self, folder: TrajectoryDir) -> set[str]:
        recorded = self._of.setdefault(folder.root, _Recorded(folder))
        recorded.look()
        return recorded.keys


class _Recorded:
    def __init__(self, folder: TrajectoryDir) -> None:
        self.folder = folder
        self.keys: set[str] = set()
        self._last = 0
        self._open: dict[int, int] = {}  # attempts that had not ended → how far their metrics were read

    def look(self) -> None:
        if not self._last:
            self._open = dict.fromkeys(attempt_numbers(self.folder), 0)
            self._last = max(self._open, default=0)
        while self._last and self.folder.attempt(self._last + 1).is_dir():
            self._last += 1
            self._open[self._last] = 0
        for number, offset in list(self._open.items()):
            attempt = self.folder.attempt(number)
            ended = (attempt / "DONE.json").exists()  # asked first: what is read then is all there will be
            lines, self._open[number] = new_lines(attempt / "metrics.jsonl", offset)
            self.keys |= evaluations_in(lines)
            if ended:
                del self._open[number]
