"""False verdicts and power of the verdict rules, simulated with fixed seeds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from benchmarks import verdict_rules as simulated
from reports import statistics as st
from reports.predicates import Sample, decide, effect, page_trend
from studies.claim import Claim

RUNS = 5000
SAID = {1: "supported", -1: "contradicted", 0: "undecided"}
PAIR = Claim(id="c", text="", where="", panel="p", test="difference", arms=("a", "b"), direction="increasing")
ALIKE = PAIR.model_copy(update={"test": "equivalence", "direction": None, "margin": simulated.MARGIN})
RISES = PAIR.model_copy(update={"test": "trend", "arms": None, "over": "x"})

# False verdicts on one side that are allowed, in %, at n = 3, 6, 12. Nominal are 2.5, for an equivalence 5; some is
# left for chance. Only skewed log ratios go beyond, since few seeds can hardly show skewness.
ALLOWED = {
    "arms of 5 %, correlated 0.3": (3.2, 2.7, 2.9),
    "arms of 20 %, correlated 0.9": (3.2, 2.7, 2.9),
    "arms of 20 and 60 %, independent": (3.2, 2.7, 2.9),
    "skewed log ratio (skewness 1)": (5.5, 4.5, 4.0),
    "skewed log ratio (skewness 1.75)": (7.5, 6.0, 5.5),
    "skewed log ratio (skewness 6)": (17.0, 11.0, 10.0),
    "cosines, correlated 0.6": (3.2, 2.7, 2.9),
    "equivalence, at the margin, arms of 3 %": (5.9, 5.2, 5.4),
    "equivalence, at the margin, second arm of 15 %": (5.9, 5.2, 5.4),
    "trend, prefixes shared (0.8)": (3.2, 2.7, 2.9),
    "trend, independent levels": (3.2, 2.7, 2.9),
}


@pytest.mark.parametrize("case", simulated.CASES, ids=lambda case: case.name)
def test_false_verdicts_are_as_rare_as_stated(case: simulated.Case) -> None:
    in_use = [*case.rules.values()][-1]
    found = [100 * simulated.false_share(case, in_use, n, RUNS) for n in simulated.SEEDS]
    assert all(share <= bound for share, bound in zip(found, ALLOWED[case.name], strict=True)), found


def test_the_rule_in_use_is_better_where_the_others_fail() -> None:
    """Against skewness sign flips help at 6 seeds, since they can hardly be below 0.05 there, and not at 12."""
    (worst,) = [case for case in simulated.CASES if "skewness 6" in case.name]
    first, t, flips, in_use = ([simulated.false_share(worst, rule, n, RUNS) for n in (6, 12)]
                               for rule in worst.rules.values())  # fmt: skip
    assert min(*first, *t, flips[1]) > 0.13 and max(flips[0], *in_use) < 0.115
    noisy = simulated.CASES[8]
    old, new = (simulated.false_share(noisy, rule, 12, RUNS) for rule in noisy.rules.values())
    assert old > 0.065 and new < 0.055


@pytest.mark.parametrize(
    "law, rule, effect, seen",
    [(simulated.lognormal(0.1, 0.3), simulated.difference, 0.2, (0.26, 0.64, 0.97)),
     (simulated.lognormal(0.03, 0.3), simulated.equivalence, 0.02, (0.72, 0.93, 0.99)),
     (simulated.levels(0.1, 0.8), simulated.trend, 0.2, (0.35, 0.70, 0.97))],
    ids=["difference", "equivalence", "trend"],
)  # fmt: skip
def test_what_is_there_is_seen(
    law: simulated.Law, rule: simulated.Rule, effect: float, seen: tuple[float, ...]
) -> None:
    found = [simulated.seen_share(law, rule, n, effect, RUNS) for n in simulated.SEEDS]
    assert all(share > least for share, least in zip(found, seen, strict=True)), found


@pytest.mark.parametrize("n", simulated.SEEDS)
def test_the_simulated_rules_are_those_of_verdicts(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at effects where verdicts differ, and for values that have no ratios."""
    monkeypatch.setattr("reports.statistics.sign_flip_p", lambda differences: None)  # slow, and decides nothing
    rng = np.random.default_rng(n)
    pairs = [simulated.lognormal(0.1, 0.3), simulated.skewed(0.5), simulated.signed(0.6)]
    for claim, rule, laws in (
        (PAIR, simulated.difference, pairs),
        (ALIKE, simulated.equivalence, pairs[:2]),
        (RISES, simulated.trend, [simulated.levels(0.1, 0.8)]),
    ):
        seen = set()
        for law, size in [(law, size) for law in laws for size in (-0.3, 0.0, 0.1)]:
            values = law(rng, 5, n, size)
            for own, verdict in zip(values, rule(values), strict=True):
                arms = [f"x{i}" for i in range(own.shape[1])]
                sample = Sample(claim, own, arms, list(map(float, range(len(arms)))))
                found = decide(sample, effect(sample), page_trend(sample) if claim.test == "trend" else None)[0]
                assert found == SAID[int(verdict)]
                seen.add(found)
        assert len(seen) > 1, "several verdicts occur"


def test_holm_keeps_any_claim_of_a_study_from_being_called_wrong() -> None:
    for n in simulated.SEEDS:
        alone, some = (simulated.family(n, 8, 0, 0.0, holm=holm, runs=600) for holm in (False, True))
        assert alone[0] > 0.15 and some[0] < 0.065
        mixed = simulated.family(n, 8, 4, 0.3, holm=True, runs=600)
        assert mixed[0] < 0.065 and mixed[1] > (0.0 if n == 3 else 0.5)


def test_a_rerun_lies_in_the_prediction_interval() -> None:
    for n, mean in zip(simulated.SEEDS, (0.164, 0.38, 0.554), strict=True):
        of_mean, predicted = simulated.rerun_outside(n, 8000)
        assert of_mean == pytest.approx(mean, abs=0.015) and predicted == pytest.approx(0.05, abs=0.008)
        fixed, ratios = simulated.not_covered(n, 4000)
        assert fixed > 0.063 and ratios < 0.058


@pytest.mark.parametrize("n", [3, 6, 12, 40])
def test_power_is_that_of_the_rule(n: int) -> None:
    least = st.resolvable(0.2, n)
    assert least is not None
    d = np.random.default_rng(n).normal(least, 0.2, size=(4000, n))
    assert (st.p_two_sided(d) < 0.05).mean() == pytest.approx(0.8, abs=0.02)


def test_a_larger_effect_is_never_decided_less() -> None:
    """p falls as all differences grow alike, however skewed they are."""
    rng = np.random.default_rng(0)
    for n in (2, 5, 6, 12):
        d = np.exp(rng.normal(size=(200, n)))
        p = [st.p_above(sign * d + shift) for sign in (1, -1) for shift in np.linspace(-3, 6, 30)]
        for half in (p[:30], p[30:]):
            assert all((later <= earlier + 1e-12).all() for earlier, later in pairwise(half))
