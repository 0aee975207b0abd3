"""What is committed in docs/results/data agrees with itself, with the studies, and with docs/claims."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from results.committed import SEEN, read

from .committeddata import EARLIER, page_problems, problems, verdict_problems

DOCS = Path(__file__).parents[2] / "docs"
CLAIMS, DATA = DOCS / "claims", DOCS / "results" / "data"
RECORDS = sorted(DATA.glob("*.json"))
# a page takes seconds, so that those of the larger scales are compared before a release; their verdicts always are
PAGES = [pytest.param(path, marks=() if path.stem.endswith("_cpu") else pytest.mark.stress) for path in RECORDS]


def test_nothing_lies_beside_it() -> None:
    wanted = {name for path in RECORDS for name in (path.name, f"{path.stem}.csv")}
    assert {path.name for path in DATA.glob("*")} - {SEEN} == wanted


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_committed(path: Path) -> None:
    """Of an earlier configuration it may be, which is listed among the warnings."""
    (one,) = read(path.with_suffix(".csv"))
    found = problems(one, one.record.study)
    if found and EARLIER in found[0]:
        warnings.warn(found.pop(0), stacklevel=1)
    assert [*found, *verdict_problems(path, CLAIMS)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page(path: Path) -> None:
    assert page_problems(*read(path.with_suffix(".csv")), DATA, CLAIMS) == []
