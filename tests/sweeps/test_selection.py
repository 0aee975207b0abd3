"""Patterns over what is stored: what they mean, and what is said where they mean nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.stored import StoredRun
from studies.errors import StudyError
from studies.loader import load_source, resolve
from sweeps.selection import Filter, Selected, StoredStudy, select
from tests.homes import TINY

SOURCE = load_source(str(TINY))


def stored(study: str = "tiny", scale: str = "cpu", variant: str | None = None, **config: Any) -> StoredStudy:
    found = resolve(SOURCE, scale).model_dump(mode="json") | {"study": study} | config
    seeds = (0, 1)
    return StoredStudy(StoredRun("r", datetime.now(UTC), study, scale, variant, seeds, found, "h"))


HOME = [stored(), stored(variant="short"), stored(scale="long"), stored("wee")]


def names(found: list[Selected]) -> list[str]:
    return [f"{one.stored.name}: {arm.panel}/{arm.name}/{arm.seed}" for one in found for arm in one.arms]


EVERY = [f"{one.name}: {arm.panel}/{arm.name}/{arm.seed}" for one in HOME for arm in one.arms]


def test_without_a_filter_all_is_meant() -> None:
    assert names(select(HOME, Filter())) == EVERY
    assert len(EVERY) == 4 * 2 * 7


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Filter(what=("tiny",)), r"tiny .*"),
        (Filter(what=("wee/left",)), r"wee at cpu: left/.*"),
        (Filter(what=("w*/left/v[24]",)), r"wee at cpu: left/v[24]/."),
        (Filter(what=("v2",)), r".*/v2/."),
        (Filter(what=("joint", "wee/*/v0")), r".*/joint/.|wee at cpu: .*/v0/."),
        (Filter(what=("//joint",)), r".*/joint/."),
        (Filter(scale="l*"), r"tiny at long: .*"),
        (Filter(variant="short"), r"tiny at cpu as short: .*"),
        (Filter(variant="-"), r"[^:]* at (cpu|long): .*"),
        (Filter(variant="-", scale="cpu", what=("tiny/right/joint",), seeds=frozenset({1, 7})),
         r"tiny at cpu: right/joint/1"),
    ],
    ids=str,
)  # fmt: skip
def test_patterns(chosen: Filter, expected: str) -> None:
    wanted = [name for name in EVERY if re.fullmatch(expected, name)]
    assert wanted
    assert names(select(HOME, chosen)) == wanted


PART = st.sampled_from(["*", "t*", "tiny", "w?e", "left", "[lr]*", "v0", "v*", "joint", "", "*[0-4]"])


@given(st.lists(PART, min_size=2, max_size=3))
def test_a_pattern_of_parts_means_what_fnmatch_says_of_each(parts: list[str]) -> None:
    said = [part or "*" for part in parts]
    wanted = [
        f"{one.name}: {arm.panel}/{arm.name}/{arm.seed}"
        for one in HOME
        for arm in one.arms
        if all(fnmatchcase(text, p) for text, p in zip((arm.study, arm.panel, arm.name), said, strict=False))
    ]
    try:
        found = names(select(HOME, Filter(what=("/".join(parts),))))
    except StudyError:
        found = []
    assert found == wanted


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        (Filter(what=("teeny",)), ("neither a study nor an arm is called 'teeny'", "tiny at cpu", "tiny/left/v0")),
        (Filter(what=("tiny", "teeny")), ("'teeny'",)),
        (Filter(what=("teeny/left",)), ("no study that was run is called 'teeny'", "study/panel/arm", "wee at cpu")),
        (Filter(what=("tiny/left/joint",)), ("no arm is called 'tiny/left/joint'", "tiny/right/joint")),
        (Filter(scale="gpu"), ("at scale 'gpu'", "tiny at long")),
        (Filter(variant="nope"), ("as 'nope'", "tiny at cpu as short")),
        (Filter(seeds=frozenset({7})), ("none of these seeds", "0, 1")),
    ],
    ids=str,
)
def test_what_matches_nothing_is_refused_with_what_there_is(chosen: Filter, says: tuple[str, ...]) -> None:
    with pytest.raises(StudyError) as refused:
        select(HOME, chosen)
    for text in says:
        assert text in str(refused.value)


def test_a_home_without_runs() -> None:
    assert select([], Filter()) == []
    with pytest.raises(StudyError, match="available: nothing"):
        select([], Filter(what=("tiny",)))


def test_what_this_program_cannot_read_stops_only_what_asks_for_it() -> None:
    home = [stored(), stored("odd", dynamics={"network": "gone"})]
    assert {one.stored.run.study for one in select(home, Filter(what=("tiny",)))} == {"tiny"}
    with pytest.raises(StudyError, match=r"run r \(odd at cpu\) cannot be read"):
        select(home, Filter())
    unreadable: list[str] = []
    assert {one.stored.run.study for one in select(home, Filter(), unreadable)} == {"tiny"}
    assert len(unreadable) == 1
