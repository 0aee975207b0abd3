"""The test ``own``: a claim judged by a component of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from reports.errors import ReportError
from reports.verdicts import Judgement
from studies.claim import Claim


class Finding(BaseModel):
    """What a test of one's own has found: a verdict, why, and the numbers that it rests on where it has any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Judgement
    reason: str
    effect: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None


Test = Callable[[pd.DataFrame, Claim], Any]
"""Called with the claim's summaries (a row a complete seed, a column an arm) and the claim; returns what makes a
`Finding`, as one or as a dictionary."""


def judged(claim: Claim, values: pd.DataFrame) -> Finding:
    """What a claim's own test finds. One seed is never a verdict, whatever the test says.

    Raises: ReportError where the component fails, or returns what is no finding.
    """
    if len(values) < 2 or claim.judge is None:
        n = len(values)
        return Finding(
            verdict="undecided", reason="one seed is never a verdict" if n else "no seed has all its points yet"
        )
    try:
        test: Test = claim.judge.build()
        found = Finding.model_validate(test(values.copy(), claim))
        numbers = [found.effect, found.p, *(found.interval or ())]
        if not all(math.isfinite(number) for number in numbers if number is not None):
            raise ValueError("its numbers are not finite")
        return found
    except ValidationError as error:
        first = error.errors()[0]
        said = f"returns no finding: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    except Exception as error:  # whatever somebody's code may raise
        said = f"fails: {type(error).__name__}: {error}"
    raise ReportError(f"claim '{claim.id}': the test '{claim.judge.short}' {said}")
