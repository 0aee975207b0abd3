"""Rankings of sweeps: means, pairs and their correction by naive loops, the null, and what is said."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from reports.errors import ReportError
from reports.ranking import rank, rank_sweep
from reports.rankingtext import markdown, plain, records
from reports.statistics import p_two_sided
from reports.versions import TRUTH
from studies.loader import load_source, resolve

from .sweeps import LIKE_TABLE_4, SWEEP, tiny_sweep
from .synthetic import measured, noisy
from .test_levels import TRUTHS


def table(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[f"k{i}" for i in range(values.shape[1])])


def naive_holm(p: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    adjusted: dict[tuple[str, str], float] = {}
    for i, pair in enumerate(sorted(p, key=p.__getitem__)):
        before = max(adjusted.values(), default=0.0)
        adjusted[pair] = min(1.0, max(before, (len(p) - i) * p[pair]))
    return adjusted


@given(some.integers(0, 2**32 - 1), some.integers(2, 8), some.integers(2, 6), some.booleans())
@settings(max_examples=50)
def test_ranks_and_differences_against_a_naive_loop(seed: int, seeds: int, points: int, ratios: bool) -> None:
    rng = np.random.default_rng(seed)
    values = table(rng.normal(size=(seeds, points)) + rng.normal(size=(seeds, 1)) + np.linspace(0, 3, points))
    values = np.exp(values) if ratios else values
    tested = np.log(values) if ratios else values
    ranked = rank(values.sample(frac=1.0, axis=1, random_state=0), signed=not ratios)
    order = sorted(values, key=lambda arm: float(np.mean(values[arm])))
    assert [one.arm for one in ranked] == order and [one.rank for one in ranked] == list(range(1, points + 1))
    pairs = {
        (a, b): float(p_two_sided((tested[a] - tested[b]).to_numpy())) for a, b in itertools.combinations(order, 2)
    }
    p_holm = naive_holm(pairs)
    for one in ranked:
        own = values[one.arm].to_numpy()
        assert one.mean == pytest.approx(own.mean()) and one.n == seeds
        assert one.interval == pytest.approx(stats.t.interval(0.95, seeds - 1, own.mean(), stats.sem(own)))
        if one.rank != 1:
            t = stats.ttest_rel(own, values[order[0]])
            assert one.difference_interval == pytest.approx(tuple(t.confidence_interval()))
            t = stats.ttest_rel(tested[one.arm], tested[order[0]])
            in_percent = tuple(100 * np.expm1(t.confidence_interval()))
            assert one.percent_interval == (pytest.approx(in_percent, rel=1e-4) if ratios else None)
            assert one.p_holm == pytest.approx(p_holm[order[0], one.arm])
            assert one.remark.startswith("not disting") == (one.p_holm >= 0.05)
    assert ranked[0].remark == "best" and ranked[0].difference == 0.0


@pytest.mark.parametrize("points", [3, 6])
def test_among_equal_points_hardly_any_is_told_from_the_best(points: int) -> None:
    """Though the best is chosen by the same seeds, at most 5 % of sweeps call any point worse than it; with p that
    were adjusted for the comparisons with the best alone, it would be more."""
    rng, runs = np.random.default_rng(points), 400 if points == 6 else 200
    wrong = naive = 0
    for _ in range(runs):
        values = table(rng.normal(size=(6, points)) + rng.normal(size=(6, 1)))
        ranked = rank(values)
        wrong += any(one.remark == "worse than the best" for one in ranked)
        best, *others = (values[one.arm].to_numpy() for one in ranked)
        naive += (points - 1) * stats.ttest_rel(np.array(others), best, axis=1).pvalue.min() < 0.05
    assert stats.binomtest(wrong, runs, 0.05, alternative="greater").pvalue > 1e-3
    if points == 6:
        assert stats.binomtest(naive, runs, 0.05, alternative="greater").pvalue < 0.01


def test_planted_effects_are_found() -> None:
    resolved, frame, protocols = tiny_sweep()
    ranking = rank_sweep(resolved, frame, protocols)
    wide, narrow = ranking.panels
    assert wide.rows[0].arm == narrow.rows[0].arm == "tuned_lr0.002"
    assert {row.remark for row in wide.rows if row.rank not in (1, None)} == {"worse than the best"}
    assert [row.label for row in wide.rows if row.rank is None] == ["plain", "v alone (control)"]
    plain_row = wide.rows[3]
    ends = frame[(frame["epoch"] == 4) & (frame["panel"] == "wide")].pivot(index="seed", columns="arm", values="value")
    d = ends["plain"] - ends["tuned_lr0.002"]
    assert plain_row.difference == pytest.approx(d.mean()) and plain_row.p_holm is None and plain_row.remark == ""
    assert wide.rows[1].attributes["lr"] in (0.0005, 0.008) and wide.unmeasured == wide.incomplete == ()


def test_the_papers_values_and_ranks_stand_beside() -> None:
    resolved, frame, protocols = tiny_sweep(range(3), LIKE_TABLE_4, best=1.0)
    ranking = rank_sweep(resolved, frame, protocols)
    found = {row.arm: (row.paper, row.paper_rank) for row in ranking.panels[0].rows}
    assert found == {
        "k0.5": (11.16, 2), "k1": (10.2, 1), "k2": (11.44, 3), "k3": (11.99, 4), "meanflow": (11.58, None),
        "v_only_wide": (None, None),
    }  # fmt: skip
    said = plain([ranking])
    (first,) = [line for line in said.splitlines() if line.split()[:2] == ["1", "k1"]][:1]
    assert "Table 4: FID (1-NFE)" in said and first.split()[-2:] == ["10.20", "1"]
    assert "Table" not in plain([rank_sweep(*tiny_sweep(range(3)))])


def test_seeds_and_points_that_are_not_there() -> None:
    resolved, frame, protocols = tiny_sweep(range(4))
    own = frame["panel"] == "wide"
    frame.loc[own & (frame["arm"] == "tuned_lr0.008"), "value"] = np.nan
    frame.loc[own & (frame["arm"] == "tuned_lr0.002") & (frame["seed"] == 2), "value"] = np.nan
    wide, narrow = rank_sweep(resolved, frame, protocols).panels
    assert wide.unmeasured == ("tuned_lr0.008",) and wide.incomplete == (2,)
    assert [(row.arm, row.n) for row in wide.rows[:2]] == [("tuned_lr0.002", 3), ("tuned_lr0.0005", 3)]
    assert all(row.n == 3 for row in wide.rows), "all rows rest on the same seeds"
    assert {row.n for row in narrow.rows} == {4}
    said = plain([rank_sweep(resolved, frame, protocols)])
    assert (
        "Not measured: tuned_lr0.008." in said
        and "Seeds left out, since not all points have them: 2 (tuned_lr0.002 lacks 2)." in said
    )
    nothing = rank_sweep(resolved, frame.assign(value=np.nan), protocols)
    assert not nothing.measured and "Not measured: tuned_lr0.0005, tuned_lr0.002" in plain([nothing])


def test_no_seed_that_all_points_have() -> None:
    resolved, frame, protocols = tiny_sweep(range(2))
    frame.loc[(frame["arm"] == "tuned_lr0.002") & (frame["seed"] == 0), "value"] = np.nan
    frame.loc[(frame["arm"] == "tuned_lr0.008") & (frame["seed"] == 1), "value"] = np.nan
    ranking = rank_sweep(resolved, frame, protocols)
    assert not ranking.measured and plain([ranking]).count("No seed has all points: ") == 2
    assert "tuned_lr0.002 lacks 0; tuned_lr0.008 lacks 1" in plain([ranking])


def test_one_seed_and_equal_points_rank_without_a_test() -> None:
    one = rank_sweep(*tiny_sweep([0])).panels[0]
    assert [row.rank for row in one.rows[:3]] == [1, 2, 3] and one.rows[0].interval is None
    assert one.rows[1].p_holm is None and one.rows[1].remark == "not distinguishable from the best with 1 seed"
    equal = rank(table(np.ones((3, 2))))
    assert [row.rank for row in equal] == [1, 2] and equal[1].p_holm is None and "not disting" in equal[1].remark


def test_by_the_truth_and_without_a_sweep() -> None:
    resolved = resolve(load_source(str(SWEEP)), "cpu", TRUTHS, [0, 1])
    frame, protocols = measured(resolved, lambda arm, point: noisy(arm, point, 0.1))
    assert rank_sweep(resolved, frame, protocols, TRUTH).reading.metric == "v_error"
    assert rank_sweep(resolved, frame, protocols).reading.metric == "frechet_pixel"
    without = resolved.model_copy(update={"figure": None})
    assert rank_sweep(without, frame, protocols).reading.metric == "frechet_pixel"
    with pytest.raises(ReportError, match="'tiny_sweep' has no sweep"):
        rank_sweep(resolved.model_copy(update={"sweep": None}), frame, protocols)


def test_words_and_records() -> None:
    resolved, frame, protocols = tiny_sweep(range(3))
    ranking = rank_sweep(resolved, frame, protocols)
    lines = markdown([ranking]).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 * (2 + 5) and len({line.count("|") for line in rows}) == 1
    frame_of = pd.read_csv(io.StringIO(pd.DataFrame(records([ranking])).to_csv(index=False)))
    assert len(frame_of) == 10 and frame_of["lr"].dropna().nunique() == 3 and frame_of["rank"].max() == 3
    first = frame_of[frame_of["panel"] == "wide"].iloc[0]
    assert first["mean_low"] < first["mean"] < first["mean_high"] and first["arm"] == ranking.panels[0].rows[0].arm
    loud = replace(ranking, study=resolved.model_copy(update={"meaningless": True}))
    assert "numbers mean nothing" in plain([loud]) and "numbers mean nothing" in markdown([loud])
    assert "worse than the best" in plain([ranking]) and "worse than the best" not in plain([loud])
