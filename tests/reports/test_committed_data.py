"""What is committed in docs/results/data agrees with itself, with the studies, and with docs/claims."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from results.committed import Committed, read

from .committeddata import problems

DOCS = Path(__file__).parents[2] / "docs"
DATA = DOCS / "results" / "data"
RECORDS = sorted(DATA.glob("*.json"))


def test_nothing_lies_beside_it() -> None:
    wanted = {name for path in RECORDS for name in (path.name, f"{path.stem}.csv")}
    assert {path.name for path in DATA.glob("*")} - {"README.md"} == wanted


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_committed(path: Path) -> None:
    """Of an earlier configuration it may be, which is listed among the warnings."""
    (one,) = read(path.with_suffix(".csv"))
    assert isinstance(one, Committed)
    found = problems(one, DOCS / "claims", one.record.study)
    if found and "earlier configuration" in found[0]:
        warnings.warn(found.pop(0), stacklevel=1)
    assert not found
