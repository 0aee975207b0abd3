"""No key of a built-in study moves unnoticed."""

from __future__ import annotations

import pytest

from studies.loader import builtin_names, load_source
from tests.golden import keys as golden

SHOWN = 40  # lines of a failure
MEANING = """
What homes hold under a key that moved would be trained or measured again. A key may only move with a raised version of
a component (or DYNAMICS_VERSION, PROTOCOL_VERSION), or where the study is meant to be another. If this is meant, run
`python -m tests.golden.keys --write` and say so in the changelog; if it is not, something moved that must stay."""


def explained(lines: list[str]) -> str:
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join([f"{len(lines)} differences from {golden.PATH.name}:", *lines[:SHOWN], *more]) + MEANING


@pytest.mark.parametrize("study", builtin_names())
def test_no_key_of_a_builtin_study_moved(study: str) -> None:
    lines = golden.changes(study, golden.load().get(study, {}), golden.of_study(study))
    assert not lines, explained(lines)


def test_golden_file_knows_every_study_and_scale() -> None:
    known = {study: sorted(scales) for study, scales in golden.load().items()}
    there = {study: sorted(load_source(study).scales) for study in builtin_names()}
    assert known == there, "run: python -m tests.golden.keys --write"


def test_a_change_is_named() -> None:
    then = {
        "cpu": {"trajectory of top/v5/v": "a", "trajectory of top/v6/v": "b", "evaluations of top/v5": "2, digest c"}
    }
    now = {
        "cpu": {"trajectory of top/v5/v": "x", "trajectory of top/v7/v": "b", "evaluations of top/v5": "3, digest d"}
    }
    assert golden.changes("mine", then, then) == []
    assert golden.changes("mine", then, now) == [
        "mine at cpu: trajectory of top/v5/v moved from a to x",
        "mine at cpu: trajectory of top/v6/v is gone",
        "mine at cpu: trajectory of top/v7/v is new",
        "mine at cpu: evaluations of top/v5 moved from 2, digest c to 3, digest d",
    ]
    assert golden.changes("mine", {}, {"cpu": {"protocol of p": "k"}}) == ["mine at cpu: protocol of p is new"]
