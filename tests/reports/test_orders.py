from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reports.claims import claimed_pairs, judge
from reports.orders import Order, compare, rankings, relative
from reports.statistics import p_two_sided, power
from reports.tablefill import fill
from reports.tables import FilledTable

from .synthetic import FakeRun
from .tabled import PAPER, Values, case, some_values, without


def filled(values: Values, seeds: int = 4, meaningless: bool = False) -> FilledTable:
    return fill(*case(values, seeds, meaningless=meaningless), PAPER)


def order(orders: list[Order], arm: str, column: str = "one") -> Order:
    (found,) = [o for o in orders if (o.arm, o.column.id) == (arm, column)]
    return found


def test_effects_are_log_ratios_paired_and_said_in_percent() -> None:
    values = some_values(6)
    orders = compare(filled(values, 6))
    for arm in ("a", "b", "back"):
        found, ours, base = order(orders, arm), np.array(values[arm]), np.array(values["base"])
        d = np.log(ours / base)
        interval = stats.t.interval(0.95, 5, d.mean(), stats.sem(d))
        assert (found.n, found.reference, found.ratios) == (6, "base", True)
        assert found.effect == pytest.approx(100 * np.expm1(d.mean()))
        assert found.interval == pytest.approx(tuple(100 * np.expm1(interval)))
        assert found.sd == pytest.approx(100 * np.expm1(d.std(ddof=1)))
        assert found.p is not None and found.p == pytest.approx(float(p_two_sided(d)))
        assert found.p >= stats.ttest_rel(np.log(ours), np.log(base)).pvalue * (1 - 1e-9)
        assert found.resolvable is not None
        assert power(np.log1p(found.resolvable / 100), d.std(ddof=1), 6) == pytest.approx(0.8, abs=1e-3)


def test_what_can_be_negative_has_differences_and_no_ratios() -> None:
    values = {"base": [0.2, 0.1, -0.1, 0.3], "a": [0.5, 0.3, 0.3, 0.7], "b": [0.2, 0.1, 0.3, 0.3], "back": [1.0] * 4}
    found = order(compare(filled(values)), "a")
    d = np.array(values["a"]) - np.array(values["base"])
    assert not found.ratios and found.effect == pytest.approx(100 * d.mean() / np.mean(values["base"]))
    assert found.p == pytest.approx(stats.ttest_1samp(d, 0).pvalue)


def test_a_row_that_a_claim_is_about_is_decided_by_the_claim() -> None:
    """The same two arms are decided in both or in neither, whichever of them the claim names first."""
    about = {"text": "", "where": "", "panel": "left", "test": "difference", "direction": "decreasing"}
    claims = [
        {**about, "id": "a_helps", "arms": ["a", "base"]},
        {**about, "id": "backwards", "arms": ["base", "back"], "alpha": 0.01},
        {**about, "id": "curve", "arms": ["b", "base"], "summary": "average"},  # of no column
        {**about, "id": "alike", "arms": ["b", "base"], "test": "equivalence", "margin": 0.5, "direction": None},
    ]
    decided = set()
    for spread in (0.2, 0.4, 0.8, 1.6):
        resolved, frame, protocols = case(some_values(4, spread), claims=claims)
        verdicts = judge(resolved, frame, protocols, run=FakeRun(), time="t")
        orders = compare(fill(resolved, frame, protocols, PAPER), claimed_pairs(resolved, verdicts))
        by_claim = {verdict.claim: verdict.primary for verdict in verdicts}
        for arm, claim in (("a", "a_helps"), ("back", "backwards")):
            found, said = order(orders, arm), by_claim[claim]
            assert (found.claim, found.p, found.p_holm, found.tests) == (claim, pytest.approx(said.p), said.p_holm, 4)
            assert (found.verdict == "undecided") == (said.verdict == "undecided")
            decided.add(said.verdict == "undecided")
        other = order(orders, "b")
        assert other.claim is None and other.p_holm == other.p and other.tests == 1, "the column's only other row"
        assert order(orders, "a", "two").claim is None is order(orders, "a", "quarter").claim
    assert decided == {True, False}


def test_an_order_of_some_seeds_is_provisional() -> None:
    values = some_values(12)
    early = order(compare(filled({**values, "a": values["a"][:5]}, 12)), "a")
    assert (early.n, early.planned, early.said) == (5, 12, "agrees, provisional (5 of 12 seeds)")
    assert order(compare(filled(values, 12)), "a").said == "agrees"


def test_every_row_but_the_reference_in_every_column() -> None:
    orders = compare(filled(some_values()))
    assert [(o.column.id, o.arm) for o in orders] == [
        (column, arm) for column in ("quarter", "one", "two") for arm in ("a", "b", "back")
    ]
    assert [o.control for o in orders[:3]] == [False, False, True]


def test_holm_counts_the_rows_of_a_column() -> None:
    orders = compare(filled(some_values(4, spread=0.8)))
    for column in ("quarter", "one", "two"):
        own = sorted((o for o in orders if o.column.id == column), key=lambda o: o.p or 0)
        by_hand, largest = [], 0.0
        for i, o in enumerate(own):
            assert o.p is not None
            largest = max(largest, min(1.0, (3 - i) * o.p))
            by_hand.append(largest)
        assert [o.p_holm for o in own] == pytest.approx(by_hand)


def test_a_row_that_is_not_measured_yet_counts_in_holms() -> None:
    """Else what was decided could become undecided by what comes in."""
    values = {**some_values(), "b": [20.0]}  # one seed
    orders = [o for o in compare(filled(values)) if o.column.id == "one"]
    tested = sorted(o.p for o in orders if o.p is not None)
    assert len(tested) == 2 and {o.tests for o in orders} == {3}
    assert min(o.p_holm for o in orders if o.p_holm is not None) == pytest.approx(3 * tested[0])


def test_the_order_agrees_contradicts_or_is_undecided() -> None:
    """In the paper a and b are lower than base in column one; in column two a is higher."""
    base = [12.0, 12.4, 11.8, 12.2]
    clear = {"base": base, "a": [10.0, 10.5, 9.7, 10.3], "b": [12.1, 12.2, 11.9, 12.2], "back": [9.0, 9.5, 8.6, 9.3]}
    orders = compare(filled(clear))
    assert (order(orders, "a").verdict, order(orders, "a").reason) == ("agrees", "")
    assert order(orders, "a", "two").verdict == "contradicts"
    assert order(orders, "b").said == "undecided: p ≥ 0.05"
    assert order(orders, "back").verdict == "lower" and order(orders, "back").paper is None
    assert order(orders, "a", "quarter").verdict == "lower" and order(orders, "a", "quarter").paper is None
    higher = compare(filled({**clear, "back": [x + 2 for x in [11.9, 12.6, 11.8, 12.3]]}))
    assert order(higher, "back").verdict == "higher"


def test_the_papers_effect_and_whether_it_could_be_seen() -> None:
    orders = compare(filled(some_values()))
    a = order(orders, "a")
    assert a.paper == pytest.approx(-10.0) and order(orders, "a", "two").paper == pytest.approx(5.0)
    for o in orders:
        if o.paper is None or o.resolvable is None:
            assert o.resolution == ""
        else:
            assert o.resolution == ("not resolvable with 4 seeds" if abs(o.paper) < o.resolvable else "")
    assert {bool(o.resolution) for o in orders if o.paper is not None} == {True, False}, "both cases occur"


def test_only_seeds_that_both_rows_have_are_compared() -> None:
    values = some_values(5)
    resolved, frame, protocols = case(values, 5)
    frame = without(without(frame, arm="a", seed=0), arm="base", seed=4)
    found = order(compare(fill(resolved, frame, protocols, PAPER)), "a")
    ours, base = np.array(values["a"])[1:4], np.array(values["base"])[1:4]
    assert found.n == 3
    assert found.effect == pytest.approx(100 * np.expm1(np.log(ours / base).mean()))


@pytest.mark.parametrize(
    "values, n, effect, reason",
    [({"base": [10.0], "a": [9.0]}, 1, -10.0, "one seed is never a verdict"),
     ({"base": [10.0] * 3, "a": [9.0] * 3}, 3, -10.0, "the ratio is the same in every seed"),
     ({"base": [0.0] * 3, "a": [9.0, 8.0, 7.0]}, 3, None, "the reference is 0"),
     ({"base": [10.0] * 3, "a": []}, 0, None, "no seed has both values yet")],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_decided_says_why(
    values: dict[str, list[float]], n: int, effect: float | None, reason: str
) -> None:
    found = order(compare(filled({**some_values(), **values})), "a")
    assert found.n == n and found.verdict == "undecided" and found.reason.startswith(reason)
    assert found.effect == (None if effect is None else pytest.approx(effect))
    assert (found.interval, found.p, found.p_holm, found.resolvable) == (None, None, None, None)
    assert found.resolution == ("unknown with one seed" if n == 1 else "")


def test_a_meaningless_scale_decides_nothing() -> None:
    orders = compare(filled(some_values(), meaningless=True))
    assert {o.verdict for o in orders} == {"undecided"} and {"mean nothing" in o.reason for o in orders} == {True}
    assert order(orders, "a").p is not None


def test_equal_rows_have_no_order_in_the_paper() -> None:
    resolved, frame, protocols = case(some_values())
    equal = {**PAPER, ("a", "one"): 10.0}
    found = order(compare(fill(resolved, frame, protocols, equal)), "a")
    assert found.paper == 0.0 and found.verdict == "lower" and found.resolution == ""


@pytest.mark.parametrize("factor", [0.003, 250.0])
def test_nothing_depends_on_the_unit(factor: float) -> None:
    resolved, frame, protocols = case(some_values())
    a = compare(fill(resolved, frame, protocols, PAPER))
    b = compare(fill(resolved, frame.assign(value=frame["value"] * factor), protocols, PAPER))
    for x, y in zip(a, b, strict=True):
        assert y.verdict == x.verdict and y.effect == pytest.approx(x.effect) and y.p_holm == pytest.approx(x.p_holm)
        assert y.resolvable == pytest.approx(x.resolvable, rel=1e-4)


def test_kendalls_tau_of_the_papers_rows() -> None:
    """Ours: a < b < base. The paper's: a < b < base in column one, b < base < a in column two."""
    found = {one.column.id: one for one in rankings(filled(some_values()))}
    assert found.keys() == {"one", "two"}, "the paper lacks the first column"
    assert found["one"].tau == pytest.approx(1.0) and found["one"].rows == 3
    assert found["two"].tau == pytest.approx(-1 / 3)  # 1 of 3 pairs agrees


def test_kendalls_tau_is_over_the_seeds_that_all_rows_have() -> None:
    """Seed 0, which a alone lacks, would turn the order of base and b."""
    values = {"base": [90.0, 12.0, 12.1], "a": [0.0, 10.0, 10.1], "b": [1.0, 13.0, 13.1], "back": [9.0, 9.0, 9.1]}
    resolved, frame, protocols = case(values, 3)
    (one, _) = rankings(fill(resolved, without(frame, arm="a", seed=0), protocols, PAPER))
    assert (one.seeds, one.rows) == (2, 3)
    assert one.tau == pytest.approx(1 / 3)  # a < base < b, the paper's a < b < base
    for arm, seeds in (("a", [0]), ("b", [1, 2])):
        frame = without(frame, arm=arm, seed=seeds)
    assert rankings(fill(resolved, frame, protocols, PAPER)) == [], "no seed that all have"


def test_no_ranking_of_one_row_or_of_equal_values() -> None:
    assert [one.column.id for one in rankings(filled({**some_values(), "a": [], "b": []}))] == []
    resolved, frame, protocols = case(some_values())
    assert rankings(fill(resolved, frame, protocols, {(arm, "one"): 5.0 for arm in ("base", "a", "b")})) == []


def test_relative() -> None:
    assert relative(9.0, 10.0) == pytest.approx(-10.0)
    assert relative(-9.0, -10.0) == pytest.approx(10.0)
    assert relative(None, 10.0) is None and relative(9.0, None) is None and relative(9.0, 0.0) is None
