"""Verdicts on planted effects, on nothing, and on odd data."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from reports.claims import judge
from reports.errors import ReportError
from reports.predicates import Sample, decide, effect, page_trend
from reports.statistics import holm
from reports.verdicts import RULE, Verdict, flags
from studies.claim import Claim
from studies.schema import ResolvedStudy

from .synthetic import FakeRun, Protocols
from .synthetic import v_then_u as case

TREND = Claim(
    id="t", text="t", where="w", panel="top", stage="u_finetune", test="trend", over="v_epochs",
    direction="decreasing",
)  # fmt: skip
DIFFERENCE = Claim(
    id="d", text="d", where="w", panel="top", stage="u_finetune", test="difference", arms=("a", "b"),
    direction="decreasing",
)  # fmt: skip
LEVELS = [0.0, 5.0, 10.0, 15.0, 20.0]


def verdict_of(claim: Claim, values: np.ndarray) -> str:
    levels = LEVELS[: values.shape[1]] if claim.test == "trend" else [None, None]
    names = [f"v{x:g}" for x in LEVELS][: values.shape[1]] if claim.test == "trend" else ["a", "b"]
    sample = Sample(claim, values, names, list(levels))
    trend = page_trend(sample) if claim.test == "trend" else None
    return decide(sample, effect(sample), trend)[0]


def judged(
    resolved: ResolvedStudy, frame: pd.DataFrame, protocols: Protocols, **more: str | None
) -> dict[str, Verdict]:
    verdicts = judge(resolved, frame, protocols, run=FakeRun(), time="2026-11-20T12:00:00+00:00", **more)
    return {v.claim: v for v in verdicts}


def rate_within(count: int, runs: int, p: float) -> bool:
    return bool(stats.binomtest(count, runs, p).pvalue > 1e-3)


@pytest.fixture
def only_what_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the p by sign flips, on which no verdict rests and which takes longer than all else."""
    monkeypatch.setattr("reports.statistics.sign_flip_p", lambda differences: None)


@pytest.mark.parametrize("seeds", [3, 12])
def test_difference_decides_nothing_by_chance_more_often_than_alpha(seeds: int, only_what_decides: None) -> None:
    rng, runs = np.random.default_rng(seeds), 400
    seen = [verdict_of(DIFFERENCE, rng.normal(size=(seeds, 2)) + rng.normal(size=(seeds, 1))) for _ in range(runs)]
    assert rate_within(seen.count("supported"), runs, 0.025)
    assert rate_within(seen.count("contradicted"), runs, 0.025)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_trend_decides_nothing_by_chance_more_often_than_alpha(correlation: float, only_what_decides: None) -> None:
    """Also where neighbouring arms are correlated, as arms that share a prefix are."""
    rng, runs = np.random.default_rng(5), 150
    distance = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    root = np.linalg.cholesky(correlation**distance)
    seen = [verdict_of(TREND, rng.normal(size=(12, 5)) @ root.T + rng.normal(size=(12, 1))) for _ in range(runs)]
    for side in ("supported", "contradicted"):
        assert stats.binomtest(seen.count(side), runs, 0.025, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize("direction, expected", [(-1, "supported"), (1, "contradicted")])
def test_planted_effects_are_found(direction: int, expected: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        common = rng.normal(size=(12, 1)) * 5  # pairing takes it out
        trend = common + direction * np.array(LEVELS) * 0.2 + rng.normal(size=(12, 5))
        assert verdict_of(TREND, trend) == expected
        assert verdict_of(DIFFERENCE, common + np.array([4.0 * direction, 0]) + rng.normal(size=(12, 2))) == expected


@given(some.integers(0, 2**32 - 1), some.integers(2, 9), some.floats(1e-3, 1e3), some.booleans())
@settings(max_examples=60)
def test_verdict_is_invariant(seed: int, n: int, scale: float, trend: bool) -> None:
    rng = np.random.default_rng(seed)
    claim = TREND if trend else DIFFERENCE
    values = rng.normal(size=(n, 5 if trend else 2)) + rng.uniform(-1, 1) * np.arange(5 if trend else 2)
    assert verdict_of(claim, values * scale) == verdict_of(claim, values)
    assert verdict_of(claim, rng.permutation(values, axis=0)) == verdict_of(claim, values)


@pytest.mark.parametrize(
    "values, reason",
    [
        (np.empty((0, 5)), "no seed has all its points yet"),
        (np.ones((1, 5)), "one seed is never a verdict"),
        (np.ones((4, 5)), "no variation"),
        (np.tile(np.arange(5.0), (4, 1)), "no variation"),
        (np.array([[1.0, 2], [2, 1]]), "at least 3 levels"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_odd_data_have_a_reason(values: np.ndarray, reason: str) -> None:
    sample = Sample(TREND, values, [f"v{x:g}" for x in LEVELS][: values.shape[1]], [*LEVELS][: values.shape[1]])
    verdict, said = decide(sample, effect(sample), page_trend(sample))
    assert verdict == "undecided" and reason in said


@pytest.mark.filterwarnings("error")
def test_study_with_an_effect() -> None:
    verdicts = judged(*case())
    assert {k: v.primary.verdict for k, v in verdicts.items()} == {
        "fixed_u_budget": "supported",
        "fixed_total_budget": "supported",
        "faster_convergence": "contradicted",  # so the synthetic curves were made
        "more_stable": "undecided",
    }
    first = verdicts["fixed_u_budget"].primary
    assert first.metric == "frechet_pixel" and first.n == 12 and first.compared == ("v20", "v0")
    assert first.effect_percent == pytest.approx(100 * (np.exp(-0.24) - 1), abs=3)
    assert first.trend is not None and [level.arm for level in first.trend.levels][-1] == "v20"
    kid = verdicts["faster_convergence"].outcomes[2]
    assert kid.metric == "kid_digits_cnn" and not kid.primary and "do not span" in kid.reason
    assert all(o.nfe == 1 for v in verdicts.values() for o in v.outcomes)
    assert "not run" in verdicts["more_stable"].paper_scale
    assert "RUN" in judged(*case([0]), paper_run="RUN")["more_stable"].paper_scale


def test_effects_are_those_of_the_frame() -> None:
    resolved, frame, protocols = case()
    first = judged(resolved, frame, protocols)["fixed_u_budget"].primary
    rows = frame[(frame["protocol"] == first.protocol) & (frame["panel"] == "top") & (frame["stage_epoch"] == 60)]
    a, b = (rows[rows["arm"] == arm].sort_values("seed")["value"].to_numpy() for arm in ("v20", "v0"))
    t, logs = stats.ttest_rel(a, b), stats.ttest_rel(np.log(a), np.log(b))
    assert first.ratios and first.interval == pytest.approx(tuple(t.confidence_interval()))
    assert first.interval_percent == pytest.approx(tuple(100 * np.expm1(logs.confidence_interval())))
    assert first.effect == pytest.approx((a - b).mean())
    assert first.effect_percent == pytest.approx(100 * np.expm1(np.log(a / b).mean()))
    assert first.p is not None and first.p >= logs.pvalue * (1 - 1e-9), "Student's p, or a larger one by Hall's t"


def test_truth_metrics_stand_beside() -> None:
    verdicts = judged(*case(range(3), scale="truth"))
    metrics = [o.metric for o in verdicts["fixed_u_budget"].outcomes]
    assert metrics[0] == "frechet_pixel" and {"v_error", "u_error[0.1,0.3]"} <= set(metrics)


def test_disagreement_is_said() -> None:
    resolved, frame, protocols = case()
    cnn = frame["metric"] == "frechet_digits_cnn"
    frame.loc[cnn, "value"] = 1e4 / frame.loc[cnn, "value"]
    said = judged(resolved, frame, protocols)["fixed_u_budget"].disagreement
    assert said.startswith("The metrics disagree: supported by frechet_pixel (primary), but contradicted by frech")


def test_missing_seeds_make_it_provisional() -> None:
    resolved, frame, protocols = case()
    end = (frame["panel"] == "top") & (frame["arm"] == "v10") & (frame["stage_epoch"] == 60)
    frame.loc[end & frame["seed"].isin([2, 7]), "value"] = [np.nan, np.inf] * (len(frame[end]) // 12)
    verdict = judged(resolved, frame, protocols)["fixed_u_budget"]
    assert verdict.provisional and verdict.primary.missing_seeds == (2, 7) and verdict.primary.n == 10
    assert verdict.label == "supported at scale cpu, provisional (10 of 12 seeds)"
    assert not judged(resolved, frame, protocols)["fixed_total_budget"].provisional


def test_smoke_is_never_a_verdict() -> None:
    for verdict in judged(*case(range(12), scale="smoke")).values():
        assert {o.verdict for o in verdict.outcomes} == {"undecided"}
        assert "mean nothing" in verdict.primary.reason


def test_controls_count_only_where_named() -> None:
    resolved, frame, protocols = case()
    assert "joint" not in str(judged(resolved, frame, protocols)["fixed_total_budget"].primary.trend)
    named = resolved.claims[2].model_copy(update={"arms": ("v20", "joint"), "summary": "end"})
    got = judged(resolved.model_copy(update={"claims": (named,)}), frame, protocols)["faster_convergence"]
    assert got.primary.compared == ("v20", "joint") and got.primary.n == 12


def test_undeclared_metric_and_arm() -> None:
    resolved, frame, protocols = case([0, 1])
    wrong = resolved.claims[2].model_copy(update={"metric": "nope"})
    with pytest.raises(ReportError, match=r"'nope' at 1 NFE.*frechet_pixel at 1 NFE"):
        judged(resolved.model_copy(update={"claims": (wrong,)}), frame, protocols)
    absent = resolved.claims[2].model_copy(update={"arms": ("v20", "v99")})
    got = judged(resolved.model_copy(update={"claims": (absent,)}), frame, protocols)["faster_convergence"]
    assert got.primary.verdict == "undecided" and "arm 'v99' has no point" in got.primary.reason


def changed(claim: Claim, resolved: ResolvedStudy, **update: object) -> ResolvedStudy:
    claims = tuple(c.model_copy(update=update) if c.id == claim.id else c for c in resolved.claims)
    return resolved.model_copy(update={"claims": claims})


def test_changes_after_a_verdict_are_flagged() -> None:
    resolved, frame, protocols = case(range(4))
    before = judge(resolved, frame, protocols, run=FakeRun(), time="2026-11-20T12:00:00+00:00")
    lines = [json.loads(json.dumps(v.to_json())) for v in before]
    assert flags(lines, before) == []

    edited = changed(resolved.claims[0], resolved, alpha=0.1)
    (said,) = flags(lines, judged(edited, frame, protocols).values())
    assert said.startswith("fixed_u_budget: the predicate was edited after a verdict was seen") and "n = 4" in said

    more = judged(*case(range(6))).values()
    assert all("seeds were added (2, now 6) after a verdict was seen" in f for f in flags(lines, more))
    assert len(flags(lines, more)) == 4
    assert "seeds were dropped (2, now 2)" in flags(lines, judged(*case(range(2))).values())[0]

    other = resolved.model_copy(update={"primary": "frechet_digits_cnn"})
    said = flags(lines, judged(other, frame, protocols).values())[0]
    assert "primary metric was changed from frechet_pixel to frechet_digits_cnn" in said
    run = FakeRun(config_hash="f" * 20)
    assert "configuration" in flags(lines, judge(resolved, frame, protocols, run=run, time="t"))[0]
    assert flags(lines, judged(*case(range(4), scale="truth")).values()) == []  # another scale


def test_a_claim_added_after_verdicts_is_flagged() -> None:
    resolved, frame, protocols = case(range(4))
    fewer = resolved.model_copy(update={"claims": resolved.claims[1:]})
    first, later = "2026-11-20T12:00:00+00:00", "2026-11-21T12:00:00+00:00"
    lines = [v.to_json() for v in judge(fewer, frame, protocols, run=FakeRun(), time=first)]
    all_of = judge(resolved, frame, protocols, run=FakeRun(), time=later)
    said = "fixed_u_budget: the claim was added after verdicts of its study were seen (2026-11-20)"
    assert flags(lines, all_of) == [said]
    assert flags([*lines, all_of[0].to_json()], all_of) == [said], "and stays so"
    assert flags([], all_of) == []


def test_holm_is_for_the_claims_of_a_study() -> None:
    """Adjusted by hand, for the primary metric and for every other apart."""
    verdicts = list(judged(*case(range(4), effect=0.004)).values())
    for i, family in enumerate(["frechet_pixel", "frechet_digits_cnn"]):
        outcomes = [v.outcomes[i] for v in verdicts]
        assert {o.metric for o in outcomes} == {family}
        p = [1.0 if o.tested_p is None else o.tested_p for o in outcomes]
        assert [o.p_holm for o in outcomes if o.p_holm is not None] == pytest.approx(
            [adjusted for adjusted, o in zip(holm(p), outcomes, strict=True) if o.tested_p is not None]
        )
        assert {o.tests for o in outcomes} == {4}
        for one in outcomes:
            assert (one.verdict != "undecided") == (one.p_holm is not None and one.p_holm < 0.05)


def test_what_holms_correction_leaves_undecided_says_so() -> None:
    rng = np.random.default_rng(0)
    sample = Sample(DIFFERENCE, np.exp(rng.normal(size=(12, 2)) * 0.1 + [-0.1, 0.0]), ["a", "b"], [None, None])
    found = effect(sample)
    assert decide(sample, found, None)[0] == "supported" and found["p"] < 0.05
    verdict, reason = decide(sample, found, None, 0.2, 9)
    assert verdict == "undecided" and "0.2 after Holm's correction for the 9 tests of the study is not" in reason
    assert found["interval_percent"][1] < 0, "the interval is that of one claim alone"


def test_values_that_are_not_positive_are_compared_as_they_are() -> None:
    resolved, frame, protocols = case(range(4))
    shifted = frame.assign(value=frame["value"] - 40.0)
    assert (shifted["value"] < 0).any()
    first = judged(resolved, shifted, protocols)["fixed_u_budget"].primary
    assert not first.ratios and first.interval_percent is None and first.resolvable is not None
    assert "not all values are positive, so differences were tested and not ratios" in first.notes
    rises = judged(resolved, frame, protocols)["more_stable"]
    assert not rises.primary.ratios and rises.primary.notes == (), "a sum of rises is 0 or more, and no ratio"
    assert (
        "logs" not in rises.declared
        and "log ratios" in judged(resolved, frame, protocols)["faster_convergence"].declared
    )


def test_a_verdict_by_another_rule_is_no_change_of_the_claim() -> None:
    resolved, frame, protocols = case(range(4))
    now = judge(resolved, frame, protocols, run=FakeRun(), time="2026-11-20T12:00:00+00:00")
    assert {v.rule for v in now} == {RULE} and now[0].to_json()["rule"] == RULE
    lines = [json.loads(json.dumps(v.to_json())) for v in now]
    for line in lines:  # as they were recorded when there was one rule
        del line["rule"]
    assert flags(lines, now) == [], "the same verdict by another rule"
    lines[0]["verdict"] = "undecided" if now[0].primary.verdict != "undecided" else "supported"
    (said,) = flags(lines, now)
    assert said.startswith(
        f"{now[0].claim}: judged by another rule before ({lines[0]['verdict']} by rule 1, n = 4, 2026"
    )
    assert said.endswith("nothing else was changed")
    edited = changed(resolved.claims[0], resolved, alpha=0.1)
    (said,) = flags(lines, judged(edited, frame, protocols).values())
    assert "the predicate was edited" in said and "rule" not in said


def test_json_has_the_documented_fields() -> None:
    line = judged(*case(range(3)))["fixed_u_budget"].to_json()
    assert list(line)[:14] == [
        "study", "scale", "variant", "claim", "claim_hash", "protocol", "metric", "verdict", "direction",
        "effect", "interval", "n", "planned_n", "rule",
    ]  # fmt: skip
    assert "time" in line and line["planned_n"] == 3
    json.dumps(line, allow_nan=False)
