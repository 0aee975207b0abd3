"""When training saves a rolling checkpoint to resume from, besides the steps that a study names. Torch-free."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

from studies.errors import StudyError

VARIABLE = "STUDY_ROLLING_S"
APART_S = 60.0
SHARE = 0.02  # of the time of training


def apart_s() -> float:
    """How many seconds rolling checkpoints are apart at least: `VARIABLE`, else a minute; 0 for none.

    Raises: StudyError for what is no such number.
    """
    given = os.environ.get(VARIABLE, "").strip()
    try:
        seconds = float(given) if given else APART_S
    except ValueError:
        seconds = -1.0
    if not (math.isfinite(seconds) and seconds >= 0):
        raise StudyError(f"{VARIABLE}={given}: give seconds between rolling checkpoints, e.g. 60, or 0 for none")
    return seconds


class Pace:
    """Spaces checkpoints: ``apart_s`` seconds apart at least, and so that saving takes `SHARE` of the time at most. How
    long it takes is known from the last one; the first is saved on trust."""

    def __init__(self, apart_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.apart_s, self.clock = apart_s, clock
        self._began = self._last = clock()
        self._spent_s = self._expected_s = 0.0

    def due(self) -> bool:
        """Whether to save one now."""
        now = self.clock()
        affordable = self._spent_s + self._expected_s <= SHARE * (now - self._began)
        return self.apart_s > 0 and now - self._last >= self.apart_s and affordable

    def saved(self, seconds: float, rolling: bool) -> None:
        """A full checkpoint was saved, which took so long; only a ``rolling`` one counts as spent."""
        self._last, self._expected_s = self.clock(), seconds
        self._spent_s += seconds if rolling else 0.0
