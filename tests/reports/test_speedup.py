"""Speed-ups: against roots of the piecewise linear curve, their symmetry, their null, and the claims on them."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import interpolate, stats

from reports.claims import claim_hash, judge
from reports.claimwords import implied
from reports.errors import Unsuited
from reports.speedup import log2_speedup, log2_speedups, reached
from reports.text import findings, markdown, plain, row
from reports.verdicts import Verdict, substance
from studies.claim import Claim

from .synthetic import Case, FakeRun, corruption, v_then_u

EPOCHS = np.arange(0.0, 81.0, 10.0)
CLAIM = Claim(
    id="sooner", text="The clean arm arrives sooner.", where="w", panel="adaptive", test="speedup",
    arms=("sigma0", "sigma6.4"),
    implies={"supported": "clean targets\n pay", "contradicted": "they cost", "undecided": "nobody knows"},
)  # fmt: skip


def crossings(values: np.ndarray, level: float) -> np.ndarray:
    """Where the curve, as a linear spline, has this level: scipy's roots."""
    spline = interpolate.make_interp_spline(EPOCHS, values, k=1)
    return np.asarray(interpolate.PPoly.from_spline(spline).solve(level, extrapolate=False))


def arm(values: np.ndarray, epochs: np.ndarray = EPOCHS) -> pd.DataFrame:
    """Points of one arm, rows of ``values`` seeds."""
    return pd.DataFrame(
        [{"seed": s, "epoch": e, "value": v} for s, one in enumerate(values) for e, v in zip(epochs, one, strict=True)]
    )


@given(some.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_crossings_are_the_roots_of_the_linear_spline(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.linspace(5, 1, len(EPOCHS)) + rng.normal(size=len(EPOCHS))
    level = float(rng.uniform(min(values[-1], values[0]), values[0])) if values[-1] < values[0] else values[0] - 1e-3
    roots = crossings(values, level)
    first, lasting = reached(EPOCHS, values, level), reached(EPOCHS, values, level, lasting=True)
    if (values > level).all():
        assert first is None and lasting is None
        return
    assert first is not None and first == pytest.approx(roots.min())
    if values[-1] <= level:
        assert lasting is not None and lasting == pytest.approx(roots.max())
        assert first <= lasting
    else:
        assert lasting is None


@given(some.integers(0, 2**32 - 1), some.booleans(), some.floats(0.1, 10.0), some.floats(-5, 5))
@settings(max_examples=200)
def test_exchanging_the_arms_inverts_and_units_do_not_matter(
    seed: int, lasting: bool, scale: float, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    a, b = 100 * np.exp(-EPOCHS / 20) + rng.normal(size=(2, len(EPOCHS)))
    there = log2_speedup(EPOCHS, a, b, lasting=lasting)
    assert log2_speedup(EPOCHS, b, a, lasting=lasting) == -there
    assert log2_speedup(EPOCHS, scale * a + shift, scale * b + shift, lasting=lasting) == pytest.approx(there)
    assert log2_speedup(3 * EPOCHS, a, b, lasting=lasting) == pytest.approx(there)  # T is the unit
    assert (there > 0) == (a[-1] < b[-1])
    assert abs(log2_speedup(EPOCHS, a, b)) >= abs(log2_speedup(EPOCHS, a, b, lasting=True))


def test_by_hand() -> None:
    falling = 80.0 - EPOCHS
    twice = np.maximum(80.0 - 2 * EPOCHS, -80.0)
    assert log2_speedup(EPOCHS, twice, falling) == pytest.approx(1.0)  # 2×: at 40 where the other is at 80
    assert log2_speedup(EPOCHS, falling, falling + 20) == pytest.approx(math.log2(80 / 60))
    assert log2_speedup(EPOCHS, falling, falling) == 0.0
    dip = falling.copy()
    dip[2] = -10.0
    low = falling - 5
    assert log2_speedup(EPOCHS, dip, low) < 0, "a dip before the end does not make the arm better"
    assert 2 ** log2_speedup(EPOCHS, dip, falling + 1) == pytest.approx(80 / (10 + 10 * 69 / 80))
    assert 2 ** log2_speedup(EPOCHS, dip, falling + 1, lasting=True) == pytest.approx(80 / 79)
    holes = np.where(EPOCHS == 30, np.nan, falling)
    assert math.isnan(log2_speedup(EPOCHS, holes, low)) and math.isnan(log2_speedup(EPOCHS, low, holes))
    late = np.array([10.0, 80.0])  # first measured at epoch 10, and there already where the other ends
    assert log2_speedup(late, np.array([1.0, 0.5]), np.array([9.0, 2.0])) == 3.0


@pytest.mark.parametrize("slope", [0.0, 3.0])
def test_between_equal_noisy_curves_it_is_symmetric_and_decides_nothing_by_chance(slope: float) -> None:
    """Whether the curves still fall in the end or are flat there: noise makes speed-ups larger, but favours nobody."""
    rng, runs, seeds = np.random.default_rng(1), 400, 8
    fall = 60 * np.exp(-EPOCHS / 8) - slope * EPOCHS / 10
    logs = np.empty((runs, seeds))
    for place in np.ndindex(runs, seeds):
        a, b = fall + rng.normal() + rng.normal(size=(2, len(EPOCHS)))
        logs[place] = log2_speedup(EPOCHS, a, b)
    every = logs.ravel()
    assert stats.wilcoxon(every).pvalue > 1e-3 and stats.binomtest(int((every > 0).sum()), every.size).pvalue > 1e-3
    assert stats.ks_2samp(every[every > 0], -every[every < 0]).pvalue > 1e-3
    rejected = stats.ttest_1samp(logs, 0.0, axis=1)
    for side in (rejected.statistic > 0, rejected.statistic < 0):
        count = int(((rejected.pvalue < 0.05) & side).sum())
        assert stats.binomtest(count, runs, 0.025, alternative="greater").pvalue > 1e-3
    if not slope:
        assert np.abs(every).mean() > 0.5, "a reason to say it: noise alone makes large ratios"


def test_by_seed_and_what_is_unsuited() -> None:
    rng = np.random.default_rng(0)
    a, b = 100 * np.exp(-EPOCHS / 20) + rng.normal(size=(2, 4, len(EPOCHS)))
    a[2, 3] = np.nan
    logs = log2_speedups(arm(a), arm(b[:3]).sample(frac=1.0, random_state=0))
    assert list(logs.index) == [0, 1, 2, 3] and logs.isna().tolist() == [False, False, True, True]
    assert logs[1] == log2_speedup(EPOCHS, a[1], b[1])
    with pytest.raises(Unsuited, match=r"not equally long \(epochs 80 and 40\)"):
        log2_speedups(arm(a), arm(b[:, :5], EPOCHS[:5]))
    with pytest.raises(Unsuited, match="not measured at the same epochs"):
        log2_speedups(arm(a), arm(b[:, ::2], EPOCHS[::2]))
    with pytest.raises(Unsuited, match="only once"):
        log2_speedups(arm(a[:, -1:], EPOCHS[-1:]), arm(b[:, -1:], EPOCHS[-1:]))
    with pytest.raises(Unsuited, match="at epoch 0 an arm is already"):
        log2_speedups(arm(a), arm(b + 1000.0))


def judged(case: Case, *claims: Claim) -> dict[str, Verdict]:
    resolved, frame, protocols = case
    with_claims = resolved.model_copy(update={"claims": claims})
    return {v.claim: v for v in judge(with_claims, frame, protocols, run=FakeRun(), time="2026-11-20T12:00:00+00:00")}


def test_a_claim_is_the_t_test_of_its_log2_speedups() -> None:
    case = corruption(range(5))
    frame = case[1]
    verdict = judged(case, CLAIM)["sooner"]
    first = verdict.primary
    rows = frame[(frame["protocol"] == first.protocol) & (frame["panel"] == "adaptive")]
    curves = [
        rows[rows["arm"] == name].pivot(index="seed", columns="epoch", values="value") for name in CLAIM.arms or ()
    ]
    epochs = curves[0].columns.to_numpy(float)
    logs = []
    for ours, theirs in zip(*(c.to_numpy(float) for c in curves), strict=True):
        fine = np.linspace(0, 80, 800_001)
        below = np.interp(fine, epochs, ours) <= theirs[-1]
        logs.append(np.log2(80 / fine[below.argmax()]))
    t = stats.ttest_1samp(logs, 0.0)
    assert verdict.primary.verdict == "supported" and first.compared == ("sigma0", "sigma6.4") and first.n == 5
    assert first.effect == pytest.approx(np.mean(logs), abs=1e-4) and first.p == pytest.approx(t.pvalue, rel=1e-3)
    assert first.speedup is not None and first.speedup.ratio == pytest.approx(stats.gmean(np.exp2(logs)), rel=1e-4)
    assert first.speedup.interval == pytest.approx(tuple(np.exp2(t.confidence_interval())), rel=1e-3)
    assert first.agree == 5 and first.effect_percent is None
    swapped = judged(case, CLAIM.model_copy(update={"arms": CLAIM.arms[::-1]}))["sooner"].primary  # type: ignore[index]
    assert swapped.verdict == "contradicted" and swapped.effect == -first.effect
    assert swapped.speedup is not None and swapped.speedup.ratio == pytest.approx(1 / first.speedup.ratio)


def test_what_is_said_of_a_speedup() -> None:
    verdict = judged(corruption(range(5)), CLAIM)["sooner"]
    first = verdict.primary
    assert first.speedup is not None
    said = plain([verdict], [])
    ratio = f"{first.speedup.ratio:.3g}×"
    for words in (
        "This implies: clean targets pay",
        f"Speed-up (frechet_pixel): sigma0 over sigma6.4 {ratio} [",
        "Lasting speed-up",
        "sigma0 reaches the final value of sigma6.4 sooner than sigma6.4 does; Student's t of log₂",
        "Smallest resolvable speed-up (80 % power): 1.",
    ):
        assert words in said, words
    assert "sigma0 − sigma6.4" not in said
    assert row(first)[3] == ratio and row(first)[4] == "–"
    # the distance in KID is measured at the end alone
    kid = next(o for o in verdict.outcomes if o.metric == "kid_digits_cnn")
    assert kid.n == 0 and "cannot be tested: it is measured only once" in kid.reason


def test_seeds_and_arms_that_cannot_be_tested() -> None:
    resolved, frame, protocols = corruption(range(5))
    hole = (frame["arm"] == "sigma0") & (frame["panel"] == "adaptive") & (frame["seed"] == 3) & (frame["epoch"] == 20)
    frame.loc[hole, "value"] = np.nan
    verdict = judged((resolved, frame, protocols), CLAIM)["sooner"]
    assert verdict.primary.missing_seeds == (3,) and verdict.provisional and verdict.primary.n == 4
    one = judged(corruption([0]), CLAIM)["sooner"]
    assert one.primary.verdict == "undecided" and "one seed" in one.primary.reason and one.implies == ""
    absent = judged(corruption(range(3)), CLAIM.model_copy(update={"arms": ("sigma0", "sigma7")}))["sooner"]
    assert "arm 'sigma7' has no point" in absent.primary.reason and absent.implies == ""
    unequal = Claim(id="u", text="t", where="w", panel="bottom", test="speedup", arms=("v20", "v0"), stage="v_pretrain")
    said = judged(v_then_u(range(3)), unequal)["u"].primary.reason
    assert "arm 'v0' has no point in stage 'v_pretrain'" in said


@pytest.mark.parametrize(
    "arms, verdict, said",
    [(("sigma0", "sigma6.4"), "supported", "clean targets pay"), (("sigma6.4", "sigma0"), "contradicted", "they cost")],
)
def test_the_sentence_of_the_verdict_is_printed(arms: tuple[str, str], verdict: str, said: str) -> None:
    claims = [CLAIM.model_copy(update={"arms": arms}), CLAIM.model_copy(update={"id": "mute", "implies": {}})]
    found = judged(corruption(range(5)), *claims)
    assert found["sooner"].primary.verdict == verdict and found["sooner"].implies == said
    assert findings(found["sooner"])[0] == f"This implies: {said}"
    assert f"\n- This implies: {said}\n" in markdown([found["sooner"]], [])
    assert "This implies" not in plain([found["mute"]], [])
    smoke = judged(corruption(range(5), "smoke"), *claims)["sooner"]
    assert smoke.primary.n == 5 and smoke.implies == "" and "This implies" not in plain([smoke], [])


def test_no_sentence_for_a_provisional_verdict() -> None:
    resolved, frame, protocols = corruption(range(5))
    frame.loc[(frame["arm"] == "sigma0") & (frame["seed"] == 3), "value"] = np.nan
    verdict = judged((resolved, frame, protocols), CLAIM)["sooner"]
    assert verdict.provisional and verdict.primary.verdict == "supported" and verdict.implies == ""


def test_the_sentence_says_which_metrics_disagree() -> None:
    resolved, frame, protocols = corruption(range(5))
    digits = frame["metric"].str.contains("digits_cnn")
    frame.loc[digits & (frame["arm"] == "sigma0"), "value"] *= 50
    claim = CLAIM.model_copy(update={"test": "difference", "direction": "decreasing"})
    verdict = judged((resolved, frame, protocols), claim)["sooner"]
    by = {o.metric: o.verdict for o in verdict.outcomes}
    assert by["frechet_pixel"] == "supported" and by["frechet_digits_cnn"] == "contradicted"
    others = ", ".join(metric for metric, said in by.items() if said != "supported")
    assert verdict.implies == f"by the primary metric alone (not by {others}): clean targets pay"
    truth = verdict.outcomes[1].model_copy(update={"role": "truth", "metric": "v_error"})
    assert implied(claim, (verdict.primary, truth)).startswith("by the primary metric alone (not by v_error): ")
    assert implied(claim, (verdict.primary, truth.model_copy(update={"n": 1}))) == "clean targets pay"


def test_the_ledger_keeps_the_sentence_and_what_was_recorded_before_is_still_the_same() -> None:
    claims = [
        CLAIM,
        CLAIM.model_copy(update={"id": "plain", "test": "difference", "direction": "decreasing", "implies": {}}),
    ]
    found = judged(corruption(range(5)), *claims)
    line = json.loads(json.dumps(found["sooner"].to_json(), allow_nan=False))
    assert line["details"]["implies"] == "clean targets pay"
    assert line["effect"] == found["sooner"].primary.effect and line["details"]["outcomes"][0]["speedup"]["ratio"] > 1
    before = found["plain"].to_json()
    assert "implies" not in before["details"] and all("speedup" not in o for o in before["details"]["outcomes"])
    assert substance(before) == substance(json.loads(json.dumps(before)))
    assert claim_hash(claims[0]) != claim_hash(claims[0].model_copy(update={"implies": {}}))
