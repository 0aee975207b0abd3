"""Claims of the later observations: the truth beside the verdict, last stages, averages, some arms only."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reports.claims import claim_hash
from reports.claimwords import truth_words
from reports.frames import last_stages, points, readings
from reports.text import findings, markdown, plain
from reports.verdicts import Judgement, Outcome, Verdict, flags
from studies.claim import Claim

from .synthetic import Case, corruption, gap_restriction, measured, study, task_affinity, v_then_u
from .test_claims import judged


@pytest.fixture(scope="module")
def gaps() -> Case:
    return gap_restriction(range(8))


def roles(verdict: Verdict) -> list[tuple[str, str]]:
    return [(o.role, o.metric) for o in verdict.outcomes]


def test_gap_restriction_as_planted(gaps: Case) -> None:
    verdicts = judged(*gaps)
    assert {k: v.primary.verdict for k, v in verdicts.items()} == {
        "small_gaps_form_v": "supported",
        "small_gaps_improve_v": "supported",
        "large_gaps_do_not_form_v": "supported",
        "larger_is_worse_from_scratch": "supported",
        "larger_is_worse_pretrained": "supported",
        "gap_03_05_degrades": "supported",
        "gap_05_07_degrades": "supported",
        "gap_07_09_degrades": "supported",
        "small_gaps_beat_more_v": "supported",
    }
    assert all(v.primary.n == 8 and v.primary.nfe == 32 and not v.provisional for v in verdicts.values())


def test_arms_end_in_different_stages(gaps: Case) -> None:
    resolved, frame, protocols = gaps
    lasts = last_stages(frame)
    assert lasts["main", "v_pretrained"] == "v_pretrain" and lasts["main", "pretrained_01_03"] == "u_finetune"
    got = judged(*gaps)["small_gaps_improve_v"].primary
    ends = frame[frame["protocol"] == got.protocol]
    a = ends[(ends["arm"] == "pretrained_01_03") & (ends["stage"] == "u_finetune")].set_index("seed")["value"]
    b = ends[ends["arm"] == "v_pretrained"].set_index("seed")["value"]
    assert got.effect == pytest.approx((a - b).mean()) and got.compared == ("pretrained_01_03", "v_pretrained")
    # where a stage begins at the very point at which the last one measured ends, it is the last
    bottom = v_then_u(range(2))[1]
    cut = bottom[(bottom["epoch"] <= bottom["arm"].map({"v20": 20, "v5": 5}).fillna(0)) & (bottom["panel"] == "top")]
    assert last_stages(cut).to_dict()["top", "v20"] == "u_finetune"
    reading = readings(resolved, frame, protocols)[0]
    assert points(frame, reading).groupby("arm")["last"].sum().nunique() == 1


def test_a_trend_among_some_arms(gaps: Case) -> None:
    trend = judged(*gaps)["larger_is_worse_from_scratch"].primary.trend
    assert trend is not None
    assert [level.arm for level in trend.levels] == [f"random_{r}" for r in ("01_03", "03_05", "05_07", "07_09")]
    said = judged(*gaps)["larger_is_worse_pretrained"].declared
    assert "increasing in lo, among arms with start v-pretrained" in said
    nothing = gaps[0].claims[3].model_copy(update={"among": {"start": "elsewhere"}})
    got = judged(gaps[0].model_copy(update={"claims": (nothing,)}), *gaps[1:])["larger_is_worse_from_scratch"]
    assert "no arm of panel 'main' with start elsewhere has a point" in got.primary.reason


def test_truth_stands_right_after_the_primary(gaps: Case) -> None:
    verdict = judged(*gaps)["gap_05_07_degrades"]
    assert roles(verdict) == [
        ("primary", "frechet_pixel"), ("truth", "v_error"), ("secondary", "frechet_digits_cnn"),
        ("secondary", "kid_digits_cnn"),
    ]  # fmt: skip
    assert verdict.disagreement == "The truth agrees." and verdict.truth == verdict.outcomes[1]
    said = plain([verdict], [])
    assert "v_error             truth      supported" in said and "The truth agrees." in said
    assert "| v_error | truth |" in markdown([verdict], [])
    assert json.loads(json.dumps(verdict.to_json()))["details"]["outcomes"][1]["role"] == "truth"


def test_disagreement_with_the_truth_comes_first(gaps: Case) -> None:
    resolved, frame, protocols = gaps
    cnn = (frame["metric"] == "frechet_digits_cnn") & (frame["arm"] == "pretrained_03_05")
    verdict = judged(resolved, frame.assign(value=frame["value"].where(~cnn, 0.1)), protocols)["gap_03_05_degrades"]
    assert verdict.disagreement == (
        "Judged by the true error of v (v_error) the claim is contradicted, by frechet_pixel supported: the distance "
        "and the truth disagree. The metrics disagree: supported by frechet_pixel (primary), but contradicted by "
        "frechet_digits_cnn (secondary)."
    )
    assert verdict.disagreement in findings(verdict)


@pytest.mark.parametrize(
    "primary, truth, said",
    [
        ("supported", "supported", "The truth agrees."),
        ("undecided", "undecided", "By the truth it is undecided as well."),
        ("supported", "undecided", "the truth does not decide what the distance does."),
        ("undecided", "contradicted", "the truth decides what the distance does not."),
        ("contradicted", "supported", "the distance and the truth disagree."),
    ],
)
def test_how_the_truth_stands(primary: Judgement, truth: Judgement, said: str) -> None:
    def outcome(metric: str, verdict: Judgement, n: int = 5) -> Outcome:
        facts = {"protocol": "k", "nfe": 1, "samples": 1, "weights": "ema", "role": "truth", "reason": "r"}
        return Outcome(metric=metric, verdict=verdict, n=n, **facts)  # type: ignore[arg-type]

    got = truth_words(outcome("frechet_pixel", primary), outcome("v_error", truth))
    assert got.endswith(said) and len(got.split(": ")) <= 2
    assert "no verdict yet: r" in truth_words(outcome("frechet_pixel", primary), outcome("v_error", truth, n=1))
    other = truth_words(outcome("task_affinity[0.1,0.3]", "supported"), outcome("v_error", "contradicted"))
    assert other.endswith("task_affinity[0.1,0.3] and the truth disagree.")


def test_affinities_are_secondary_to_nothing() -> None:
    resolved, frame, protocols = task_affinity()
    verdicts = judged(resolved, frame, protocols)
    assert {v.primary.verdict for v in verdicts.values()} == {"supported"}
    for verdict in verdicts.values():
        span = verdict.primary.metric.removeprefix("task_affinity")
        assert roles(verdict) == [("primary", f"task_affinity{span}"), ("truth", f"task_affinity_exact{span}")]
    one = verdicts["small_over_v_07_09"].primary
    rows = frame[frame["protocol"] == one.protocol].groupby(["arm", "seed"])["value"].mean()
    assert one.effect == pytest.approx((rows["small_gap"] - rows["v_pretrained"]).mean())
    distance = Claim(
        id="d", text="d", where="w", panel="main", test="difference", arms=("v_pretrained", "random"),
        direction="decreasing", metric="frechet_pixel",
    )  # fmt: skip
    seen = judged(resolved.model_copy(update={"claims": (distance,)}), frame, protocols)["d"]
    assert "v_error" in str(roles(seen)) and "affinity" not in str(roles(seen))


def test_an_average_needs_all_its_points() -> None:
    resolved, frame, protocols = task_affinity()
    lost = frame["metric"].eq("task_affinity[0.1,0.3]") & frame["arm"].eq("random") & frame["seed"].eq(1)
    frame.loc[lost & frame["epoch"].eq(20), "value"] = np.nan
    verdict = judged(resolved, frame, protocols)["v_over_random_01_03"]
    assert verdict.primary.missing_seeds == (1,) and verdict.provisional
    assert verdict.truth is not None and verdict.truth.n == 4


def test_scales_without_truth_say_nothing_of_it() -> None:
    for verdict in judged(*corruption(range(3))).values():
        assert verdict.truth is None and "truth" not in verdict.disagreement
    assert judged(*gap_restriction(range(3), "smoke"))["small_gaps_form_v"].disagreement == ""


def test_an_equivalence_in_the_ledger(gaps: Case) -> None:
    verdict = judged(*gaps)["small_gaps_form_v"]
    line = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert line["direction"] is None and flags([line], [verdict]) == []
    assert line["rule"] == 2
    margin = "Margin of the equivalence: [−9.09, 10] %; the 1 − 2α interval is ["
    assert any(one.startswith(margin) for one in findings(verdict))


def test_hashes_of_claims_do_not_move() -> None:
    """A verdict on this one was recorded before claims had as many fields as now."""
    claim = Claim(
        id="fixed_u_budget",
        text="With the budget for u fixed at 60 epochs, more v-pretraining gives a lower 1-NFE distance.",
        where="Fig. 2 top, Sec. 4.1: 'investing more into v-pretraining yields more stable and accurate u-learning'",
        panel="top", stage="u_finetune", summary="end", test="trend", over="v_epochs", direction="decreasing",
    )  # fmt: skip
    assert claim_hash(claim) == "971e05729bfd8f83df5f"
    for update in ({"among": {"v_epochs": 5}}, {"solver": "euler"}, {"truth": "v_error"}, {"stage": None}):
        assert claim_hash(claim.model_copy(update=update)) != claim_hash(claim)


def test_the_truth_is_that_of_the_guidance_of_the_panel() -> None:
    """Four panels with three guidances measure true errors under three protocols of one label."""
    resolved = study("truth", range(4), "cfg_configs")
    noise = np.random.default_rng(3)
    frame, protocols = measured(
        resolved, lambda arm, p: 1 + (arm.attributes["method"] == "meanflow") + 0.01 * float(noise.normal())
    )
    assert frame.loc[frame["metric"] == "u_error[1,1]", "protocol"].nunique() == 3
    for verdict in judged(resolved, frame, protocols).values():
        truth = next(o for o in verdict.outcomes if o.role == "truth")
        assert (truth.metric, truth.n, truth.verdict) == ("u_error[1,1]", 4, "supported")
        assert len({o.metric for o in verdict.outcomes}) == len(verdict.outcomes), "each metric once"
