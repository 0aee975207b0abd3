"""What an audit draws, and how it judges: pure functions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.audit import Pair, Value, compare, draw, excesses, machine_differences, pairs_of, where_one_more_falls

PAIR = Pair("s", "cpu", "left", "a", 0)


def frame(values: list[float]) -> pd.DataFrame:
    """One arm measured once at its end, a seed a value."""
    rows = [
        {"study": "s", "scale": "cpu", "panel": "left", "arm": "a", "seed": seed, "stage": "u", "stage_epoch": 2.0,
         "epoch": 2.0, "metric": "fid", "nfe": 1, "protocol": "p", "evaluation": f"e{seed}", "value": value}
        for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def judged(values: list[float], now: float, *, exactly: bool = False) -> str:
    measured = {f"e{seed}": value for seed, value in enumerate(values)}
    (value,) = compare(frame(values), PAIR, {"e0": measured["e0"]}, {"e0": now}, exactly=exactly)
    return value.judged


@pytest.mark.parametrize(
    ("now", "exactly", "said"),
    [
        (1.0, True, "equal"),
        (1.0 + 1e-9, True, "equal"),
        (1.0 + 1e-5, True, "differs"),
        (1.1, False, "inside"),
        (30.0, False, "outside"),
        (math.nan, False, "outside"),
        (math.nan, True, "differs"),
    ],
)
def test_judged(now: float, exactly: bool, said: str) -> None:
    assert judged([1.0, 0.8, 1.2, 1.1, 0.9], now, exactly=exactly) == said


def test_judged_where_numbers_are_missing() -> None:
    assert judged([math.nan, 1.0, 1.1], math.nan) == "equal"
    assert judged([1.0, 2.0], 1.5) == "not judged", "one other seed has no interval"
    assert judged([1.0, 2.0, math.nan], 1.5) == "not judged"


@pytest.mark.parametrize("positive", [True, False])
def test_one_more_seed_falls_outside_in_one_of_twenty(positive: bool) -> None:
    drawn = np.random.default_rng(0).normal(size=(1000, 7))
    drawn = np.exp(drawn) if positive else drawn
    intervals = [where_one_more_falls(row, 0.95) for row in drawn[:, 1:]]
    outside = sum(not low <= now <= high for (low, high), now in zip(intervals, drawn[:, 0], strict=True))
    low, high = stats.binom.interval(0.999, 1000, 0.05)
    assert low <= outside <= high


def test_draw() -> None:
    pairs = pairs_of(frame([1.0, math.nan, 2.0]))
    assert [pair.seed for pair in pairs] == [0, 2], "what has no value cannot be compared"
    pairs = [PAIR._replace(seed=seed) for seed in range(20)]
    assert draw(pairs, 5, 0) == draw(pairs, 5, 0) != draw(pairs, 5, 1)
    assert sorted(draw(pairs, 99, 3)) == pairs


def value(judged: str, metric: str = "fid", end: bool = True) -> Value:
    return Value(metric, 1, end, 1.0, 1.0, judged)  # type: ignore[arg-type]


def test_excesses() -> None:
    """Counted are ends, a metric at a time, and never more than once a pair."""
    good, bad = [value("equal"), value("outside", end=False)], [value("outside"), value("outside")]
    (one,) = excesses([good] * 9 + [bad] * 3)
    assert one[:3] == ("fid at 1 NFE", 12, 3)
    assert one.p == one.p_holm == pytest.approx(stats.binom.sf(2, 12, 0.05))
    both = excesses([[value("outside"), value("inside", "kid")]] * 2)
    assert [found.p_holm for found in both] == pytest.approx([2 * 0.05**2, 1.0])
    assert excesses([[value("differs"), value("not judged")]]) == []


def test_machine_differences() -> None:
    here = {"architecture": "x86_64", "cpu": "A"}, {"torch": "2.9", "numpy": "2.3", "scipy": "1.16", "pandas": "2"}
    same = {"machine": {**here[0], "cores": 8}, "packages": {**here[1], "pandas": "3"}}
    assert machine_differences([same, same], *here) == []
    other = {"machine": {**here[0], "cpu": "B"}, "packages": {**here[1], "torch": "2.8"}}
    assert machine_differences([same, other], *here) == ["cpu B there, A here", "torch 2.8 there, 2.9 here"]
    assert "cpu not known there, A here" in machine_differences([{"machine": {"architecture": "x86_64"}}], *here)
