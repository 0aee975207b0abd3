from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from reports import powerreport
from reports.power import Need, comparisons, needs, seeds_needed
from reports.powerreport import COLUMNS, build_power, cells, records
from reports.statistics import power, student_power
from results import queries
from results.layout import Home
from studies.arms import Arm, Point

from .synthetic import FakeRun, Protocols, measured
from .synthetic import study as builtin
from .tabled import PAPER, Values, case, some_values, study, without

HELPS = {"id": "a_helps", "text": "", "where": "", "panel": "left", "test": "difference", "arms": ["a", "b"],
         "direction": "decreasing"}  # fmt: skip


def found(values: Values, seeds: int = 4, planned: int | None = None, **changed: Any) -> list[Need]:
    resolved, frame, protocols = case(values, seeds, **changed)
    resolved = resolved.model_copy(update={"seeds": tuple(range(planned or seeds))})
    return needs(resolved, frame, protocols, PAPER)


def need(all_of: list[Need], arm: str, nfe: int = 1) -> Need:
    (one,) = [n for n in all_of if n.comparison.arms[0] == arm and n.comparison.nfe == nfe]
    return one


@pytest.mark.parametrize(
    "effect, cohen, seeds", [(1.5, 6, 7), (1.0, 10, 12), (0.8, 15, 16), (0.5, 34, 35), (0.2, 199, 199)]
)
def test_seeds_for_a_standardised_effect(effect: float, cohen: int, seeds: int) -> None:
    """Those of Cohen's tables for the two-sided paired t test at 0.05 and 80 % power, and one or two more for the
    correction for skewness."""
    assert student_power(effect, 1.0, cohen) >= 0.8 > student_power(effect, 1.0, cohen - 1)
    assert seeds_needed(effect, 1.0) == seeds
    assert seeds_needed(-7 * effect, 7.0) == seeds


@given(some.floats(0.15, 20.0), some.sampled_from([0.01, 0.05, 0.1]))
@settings(max_examples=20)
def test_seeds_needed_are_the_fewest(effect: float, alpha: float) -> None:
    def enough(n: int) -> bool:
        return power(effect, 1.0, n, alpha) >= 0.8

    n = seeds_needed(effect, 1.0, alpha)
    assert n is not None and enough(n) and (n == 2 or not enough(n - 1))


def test_beyond_a_thousand_seeds() -> None:
    assert seeds_needed(0.05, 1.0) is None and seeds_needed(0.0, 1.0) is None


def test_the_spread_is_that_of_the_paired_differences() -> None:
    values = some_values(6)
    one = need(found(values, 6, planned=12), "a")
    ours, base = np.array(values["a"]), np.array(values["base"])
    sd = float(np.log(ours / base).std(ddof=1))
    assert (one.n, one.planned) == (6, 12) and one.sd == pytest.approx(100 * np.expm1(sd))
    assert one.effect == pytest.approx(10.0) and one.comparison.paper == pytest.approx(-10.0)
    assert one.now is not None and one.then is not None and one.then < one.now
    for effect, n in ((one.now, 6), (one.then, 12)):
        assert power(np.log1p(effect / 100), sd, n) == pytest.approx(0.8, abs=1e-3)
    assert one.seeds == seeds_needed(np.log(0.9), sd), "the paper's −10 %"


def test_rows_of_the_primary_columns_at_the_end_and_controls() -> None:
    resolved = study()
    said = [(c.arms, c.nfe, c.paper) for c in comparisons(resolved, PAPER)]
    assert said == [
        (("a", "base"), 1, pytest.approx(-10.0)), (("b", "base"), 1, pytest.approx(-5.0)), (("back", "base"), 1, None),
        (("a", "base"), 2, pytest.approx(5.0)), (("b", "base"), 2, pytest.approx(-12.5)), (("back", "base"), 2, None),
    ]  # fmt: skip


def test_claims_of_differences_come_first_and_stand_for_their_row() -> None:
    trend = {**HELPS, "id": "falls", "test": "trend", "over": "lr", "arms": None}
    row = {**HELPS, "id": "row", "arms": ["a", "base"], "alpha": 0.01}
    mean = {**HELPS, "id": "mean", "arms": ["b", "base"], "summary": "average"}
    resolved = study(claims=[HELPS, trend, row, mean])
    said = comparisons(resolved, PAPER)
    assert [c.what for c in said] == [
        "claim a_helps", "claim row", "claim mean",
        "row, 1-NFE", "row, 1-NFE", "row, 2-NFE", "row, 2-NFE", "row, 2-NFE",
    ]  # fmt: skip
    assert said[0].paper == pytest.approx(100 * (9.0 - 9.5) / 9.5) and said[1].alpha == 0.01
    assert said[2].paper is None, "the paper has no mean over a curve"


def test_a_claims_summary_is_what_is_compared() -> None:
    values = some_values(5)
    mean = {**HELPS, "summary": "average"}
    one = found(values, 5, claims=[mean])[0]
    curve = np.array([np.nan, 2.5, 2.0, 1.5, 1.0])  # at epochs 2 to 8, times the value at the end; at 0 it is 3
    curve[0] = 3.0
    a, b = (np.array(values[arm]) * curve.mean() for arm in ("a", "b"))
    assert one.sd == pytest.approx(100 * float(np.expm1(np.log(a / b).std(ddof=1))))
    assert one.effect == 10.0 and one.comparison.paper is None


def test_a_speedup_is_told_as_a_factor() -> None:
    """Curves that fall alike but for their pace, a factor a seed: log₂ of the speed-up is known, and so is its sd."""
    resolved = builtin("cpu", range(6), "convergence")
    pace = np.array([1.5, 1.7, 1.9, 2.1, 2.3, 2.5])

    def value(arm: Arm, p: Point) -> float:
        own = pace[arm.seed] if arm.name == "dtd_u_weight" else 1.0
        return 100.0 - own * float(p.epoch)  # straight, so that interpolation is exact

    by_claim = {n.comparison.what: n for n in needs(resolved, *measured(resolved, value), {})}
    one = by_claim["claim faster_xl"]
    sd = float(np.log2(pace).std(ddof=1))
    assert one.comparison.unit == "log2" and one.sd == pytest.approx(sd) and one.n == 6
    assert one.effect == pytest.approx(math.log2(2.5)) and one.seeds == seeds_needed(math.log2(2.5), sd)
    line = dict(zip(COLUMNS, cells(one), strict=True))
    assert line["sd"] == f"{2**sd:.3g}×" and line["effect"] == "2.5× (paper)"
    record = {r["claim"]: r for r in records(list(by_claim.values()))}["faster_xl"]
    assert record["paper_log2"] == pytest.approx(math.log2(2.5)) and "sd_percent" not in record
    unknown = by_claim["claim faster_b"]
    assert unknown.comparison.paper is None and cells(unknown)[COLUMNS.index("effect")] == "1.5×"


def test_a_claim_across_panels_is_compared_across_them() -> None:
    resolved = builtin("cpu", range(4), "model_sizes")
    rng = np.random.default_rng(0)
    ends = {(arm, seed): rng.normal(10, 1) for arm in ("dtd_u_weight_l", "meanflow_xl") for seed in range(4)}
    claim = next(c for c in resolved.claims if c.id == "l_matches_xl")
    difference = claim.model_copy(update={"test": "difference", "direction": "decreasing", "margin": None})
    resolved = resolved.model_copy(update={"claims": (difference,)})
    made = measured(resolved, lambda arm, p: ends.get((arm.name, arm.seed), 1.0))
    one = needs(resolved, *made, {})[0]
    a, b = (np.array([ends[arm, seed] for seed in range(4)]) for arm in ("dtd_u_weight_l", "meanflow_xl"))
    assert one.sd == pytest.approx(100 * float(np.expm1(np.log(a / b).std(ddof=1))))


def test_without_the_papers_effect_ten_percent() -> None:
    one = need(found(some_values()), "back")
    assert one.effect == 10.0 and one.comparison.paper is None and one.sd is not None
    assert one.seeds == seeds_needed(np.log(1.1), np.log1p(one.sd / 100))


@pytest.mark.parametrize("seeds", [0, 1])
def test_no_spread_without_two_seeds(seeds: int) -> None:
    for one in found({arm: v[:seeds] for arm, v in some_values().items()}):
        assert one.n == seeds and one.sd is one.now is one.then is one.seeds is None
        assert one.seeds_said == "unknown: no spread in the store yet"


def test_nothing_stored_at_all() -> None:
    for one in needs(study(claims=[HELPS]), None, {}, PAPER):
        assert (one.n, one.sd, one.seeds_said) == (0, None, "unknown: no spread in the store yet")


def test_no_spread_where_the_difference_does_not_vary() -> None:
    values = {**some_values(), "base": [10.0] * 4, "a": [9.0] * 4}
    assert need(found(values), "a").seeds_said == "unknown: the ratio is the same in every seed"


def test_what_the_store_holds_of_other_studies_is_no_spread() -> None:
    """A study edited since it was run: another metric, another arm, another panel."""
    resolved, frame, protocols = case(some_values())
    other = {**HELPS, "id": "v", "metric": "v_error"}
    changed = study(claims=[other, {**HELPS, "id": "late", "stage": "later"}])
    v, late = needs(changed, frame, protocols, PAPER)[:2]
    assert v.unknown == "the store holds no v_error at 1 NFE (jump)"
    assert "no point in stage 'later'" in late.unknown and late.n == 0
    lacking = frame[frame["arm"] != "a"]
    assert need(needs(resolved, lacking, protocols, PAPER), "a").n == 0
    moved = frame.assign(panel="right")
    assert {n.unknown for n in needs(resolved, moved, protocols, PAPER)} == {"no spread in the store yet"}


def test_more_than_a_thousand_is_not_unknown() -> None:
    noisy = {**some_values(), "a": [2.0, 30.0, 7.0, 18.0]}
    one = need(found(noisy), "a", nfe=2)
    assert one.effect == pytest.approx(5.0) and one.sd is not None and one.sd > 80
    assert one.seeds is None and one.seeds_said == "> 1000"
    record = next(r for r in records([one]))
    assert (record["seeds_needed"], record["more_than"], record["unknown"]) == (None, 1000, None)


def test_only_seeds_that_both_arms_have() -> None:
    values = some_values(5)
    resolved, frame, protocols = case(values, 5)
    one = need(needs(resolved, without(without(frame, arm="a", seed=0), arm="base", seed=4), protocols, PAPER), "a")
    assert one.n == 3


def test_in_words_and_as_json() -> None:
    all_of = found(some_values(), planned=12, claims=[HELPS])
    line = dict(zip(COLUMNS, cells(all_of[0]), strict=True))
    assert line["comparison"] == "made left: a − b" and line["of"] == "claim a_helps" and line["seeds there"] == "4"
    assert line["effect"] == "−5.26 % (paper)" and line["resolvable as planned"].endswith("% (12)")
    back = dict(zip(COLUMNS, cells(need(all_of, "back")), strict=True))
    assert back["effect"] == "±10 %"
    loaded = json.loads(json.dumps(records(all_of), allow_nan=False))
    assert len(loaded) == len(all_of) and loaded[0]["claim"] == "a_helps" and loaded[-1]["claim"] is None
    assert {"n", "planned_n", "sd_percent", "resolvable_now_percent", "seeds_needed"} <= loaded[0].keys()


def test_from_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    resolved, frame, protocols = case(some_values())

    def latest(engine: Any, study: str, scale: str, variant: str | None) -> FakeRun | None:
        return FakeRun(config=resolved.model_dump(mode="json")) if (scale, variant) == ("cpu", None) else None

    def evaluations(engine: Any, study: str, scale: str, variant: str | None) -> pd.DataFrame:
        return frame

    def known(engine: Any) -> Protocols:
        return protocols

    for name, answer in (("latest_run", latest), ("evaluations", evaluations), ("protocols", known)):
        monkeypatch.setattr(queries, name, answer)
    monkeypatch.setattr(powerreport, "paper_values", lambda study: PAPER)
    monkeypatch.setattr("results.stored.stored_runs", lambda engine: [])
    engine: Any = object()
    home = Home(tmp_path)
    assert build_power(engine, home, [resolved], None) == needs(resolved, frame, protocols, PAPER)
    for without_store in (build_power(None, home, [resolved], None), build_power(engine, home, [resolved], "other")):
        assert without_store == needs(resolved, None, {}, PAPER)
