from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from meanflow_core.config import Protocol
from reports.errors import ReportError
from reports.orders import value_verdict
from reports.tablefill import arm_facts, fill
from reports.tables import Cell, FilledTable, Mark, Part, Row, marked, marks

from .synthetic import study as builtin
from .tabled import ARMS, PAPER, case, some_values, study, told, value_of, without, worded

NUMBERS = some.floats(0.1, 1e3)


def filled(values: dict[str, list[float]], seeds: int = 4, **changed: Any) -> FilledTable:
    return fill(*case(values, seeds, **changed), PAPER)


def cell(table: FilledTable, arm: str, column: str) -> Cell:
    at = [c.id for c in table.columns].index(column)
    (found,) = [row.cells[at] for _, row in table.rows if row.arm == arm]
    return found


def test_means_and_intervals_are_students() -> None:
    values = some_values()
    table = filled(values)
    for column, nfe, epoch in (("quarter", 1, 2.0), ("one", 1, 8.0), ("two", 2, 8.0)):
        for arm in (*ARMS, "back"):
            given = [value_of(values, arm, seed, nfe, epoch) for seed in range(4)]
            found = cell(table, arm, column)
            assert found.values == dict(enumerate(given)) and found.n == 4 and found.missing == ""
            assert found.mean == pytest.approx(np.mean(given))
            assert found.half_width == pytest.approx(stats.t.ppf(0.975, 3) * stats.sem(given))
            assert found.interval == pytest.approx(stats.t.interval(0.95, 3, np.mean(given), stats.sem(given)))


def test_rows_in_the_order_declared_then_controls_under_their_label() -> None:
    (part,) = filled(some_values()).parts
    assert [row.arm for row in part.rows] == ["base", "a", "b", "back"]
    assert [row.label for row in part.rows] == ["method base", "method a", "method b", "backwards"]
    assert [row.control for row in part.rows] == [False, False, False, True]
    assert {row.reference for row in part.rows} == {"base"} and part.title == "on_the left & 50 %"


def test_the_papers_values_stand_beside_the_arms_and_columns_that_it_has() -> None:
    table = filled(some_values())
    assert [cell(table, arm, "one").paper for arm in ARMS] == [10.0, 9.0, 9.5]
    assert [cell(table, arm, "quarter").paper for arm in ARMS] == [None] * 3
    assert cell(table, "back", "one").paper is None
    named_alike = fill(*case(some_values()), {**PAPER, ("back", "one"): 1.0})
    assert cell(named_alike, "back", "one").paper is None, "a control is never the paper's"


def test_best_and_second_of_ours_and_of_the_paper_without_controls() -> None:
    table = filled(some_values())
    assert [cell(table, arm, "one").mark for arm in ARMS] == [None, "best", "second"]
    assert [cell(table, arm, "one").paper_mark for arm in ARMS] == [None, "best", "second"]
    assert [cell(table, arm, "two").paper_mark for arm in ARMS] == ["second", None, "best"]
    back = cell(table, "back", "one")
    assert back.mean is not None and back.mean < 9.5 and back.mark is None


def test_equal_values_share_a_mark_and_one_alone_has_none() -> None:
    assert marks([2.0, 1.0, 1.0, 3.0, None, 2.0]) == ["second", "best", "best", None, None, "second"]
    assert marks([None, 4.0, None]) == [None, None, None]
    assert marks([]) == []


@given(some.lists(some.one_of(some.none(), NUMBERS), max_size=8), some.randoms())
def test_marks_do_not_depend_on_the_order_of_rows(values: list[float | None], rng: random.Random) -> None:
    places = list(range(len(values)))
    rng.shuffle(places)
    found = marks(values)
    assert marks([values[i] for i in places]) == [found[i] for i in places]


@given(some.lists(some.lists(NUMBERS, min_size=3, max_size=3), min_size=2, max_size=5))
def test_marks_are_those_of_the_lowest_means(values: list[list[float]]) -> None:
    rows = [Row(str(i), "", i == 0, "1", (Cell(dict(enumerate(v)), (0,)),)) for i, v in enumerate(values)]
    (part,) = marked([Part("a", "", (), tuple(rows))], {})
    done = {row.arm: row.cells[0] for row in part.rows}
    assert done["0"].mark is None
    means = [float(np.mean(v)) for v in values[1:]]
    best = {arm for arm, c in done.items() if c.mark == "best"}
    lowest = {str(i) for i, mean in enumerate(means, 1) if mean == pytest.approx(min(means), rel=1e-12)}
    assert best <= lowest and (bool(best) == (len(means) > 1))


def test_the_papers_marks_are_among_its_groups() -> None:
    """As in its Table 2, where two models are ranked together."""

    def part(name: str, papers: Mapping[str, float]) -> Part:
        cells = {arm: Cell({0: paper}, (0,), paper) for arm, paper in papers.items()}
        return Part(name, "", (), tuple(Row(arm, "", False, arm, (cell,)) for arm, cell in cells.items()))

    parts = [part("l", {"a": 4.60, "b": 4.08}), part("xl", {"c": 4.72, "d": 4.31})]

    def found(groups: dict[str, str]) -> dict[str, tuple[Mark | None, Mark | None]]:
        rows = [row for one in marked(parts, groups) for row in one.rows]
        return {row.arm: (row.cells[0].mark, row.cells[0].paper_mark) for row in rows}

    second, best, none = "second", "best", None
    alone = {"a": (second, second), "b": (best, best), "c": (second, second), "d": (best, best)}
    assert found({}) == alone
    together = {"a": (second, none), "b": (best, best), "c": (second, none), "d": (best, second)}
    assert found(dict.fromkeys("abcd", "κ = 0.5")) == together


@given(some.lists(NUMBERS, min_size=2, max_size=8), some.floats(1e-3, 1e3))
def test_scaling_the_values_scales_mean_and_interval(values: list[float], factor: float) -> None:
    a, b = (Cell({i: c * v for i, v in enumerate(values)}, ()) for c in (1.0, factor))
    assert a.mean is not None and a.half_width is not None
    assert b.mean == pytest.approx(factor * a.mean)
    assert b.half_width == pytest.approx(factor * a.half_width, rel=1e-9, abs=1e-9 * factor)


def test_one_seed_has_no_interval() -> None:
    found = cell(filled({arm: [v[0]] for arm, v in some_values().items()}, seeds=1), "a", "one")
    assert found.n == 1 and found.mean is not None and found.half_width is None and found.interval is None


def test_what_is_missing_is_left_out_and_said() -> None:
    resolved, frame, protocols = case(some_values())
    lacking = without(frame, arm="a", seed=[1, 2], epoch=8.0)
    lacking = without(lacking, arm="b", nfe=2)
    table = fill(resolved, lacking, protocols, PAPER)
    assert cell(table, "a", "one").values.keys() == {0, 3} and cell(table, "a", "quarter").n == 4
    assert cell(table, "b", "two").mean is None and cell(table, "b", "two").mark is None
    assert table.missing == [
        "left a (1-NFE, 2-NFE): seeds 1–2 not measured",
        "left b (2-NFE): not measured",
    ]
    assert table.measured and not fill(resolved, frame.assign(value=np.nan), protocols, PAPER).measured


def test_arms_that_lack_the_same_are_named_together() -> None:
    resolved, frame, protocols = case(some_values())
    lacking = without(without(frame, seed=3), arm=["a", "b"], nfe=2, seed=2)
    assert fill(resolved, without(frame, seed=3), protocols, PAPER).missing == [
        "left all arms (all columns): seed 3 not measured"
    ]
    assert fill(resolved, lacking, protocols, PAPER).missing == [
        "left base, back (all columns): seed 3 not measured",
        "left a, b (1-NFE, 25 %, 1-NFE): seed 3 not measured",
        "left a, b (2-NFE): seeds 2–3 not measured",
    ]


def test_means_over_different_seeds_are_not_ranked() -> None:
    """Of a alone seed 0 at 1 NFE is missing, and of the control seed 1 at 2 NFE."""
    resolved, frame, protocols = case(some_values())
    lacking = without(without(frame, arm="a", seed=0, nfe=1, epoch=8.0), arm="back", seed=1, nfe=2)
    table = fill(resolved, lacking, protocols, PAPER)
    assert table.uneven == ["1-NFE"]
    assert [cell(table, arm, "one").mark for arm in ARMS] == [None] * 3
    assert [cell(table, arm, "one").paper_mark for arm in ARMS] == [None, "best", "second"]
    for column in ("quarter", "two"):
        assert [cell(table, arm, column).mark for arm in ARMS] == [None, "best", "second"], "a control changes nothing"
    later = fill(resolved, without(frame, seed=0), protocols, PAPER)
    assert later.uneven == [] and cell(later, "a", "one").mark == "best", "all lack the same seed"


def test_a_column_where_no_point_is_says_so() -> None:
    resolved = study()
    declared = resolved.table
    assert declared is not None
    columns = [column.model_copy(update={"percent": 30.0}) for column in declared.columns[:1]]
    table = filled(some_values(), table=declared.model_copy(update={"columns": tuple(columns)}).model_dump())
    assert cell(table, "a", "quarter").n == 0
    assert "no point at 30 % of the arm's length" in table.missing[0]


def test_the_length_is_each_arms_own() -> None:
    """Half of an arm of 8 epochs is epoch 4, of one of 16 epochs epoch 8."""
    panels = {"left": {"title": "", "arms": {"method": ["base", "long"], "lr": 0.001, "length": [8, 16]}}}
    stages = [{"name": "train", "epochs": "$length"}]
    columns = [{"id": "half", "label": "half", "percent": 50}]
    table = {"row": "{arm}", "reference": "base", "columns": columns, "about": ["epochs"]}
    resolved, frame, protocols = case(
        {"base": [1.0], "long": [1.0]}, 1, panels=panels, stages=stages, table=table, controls={}
    )
    frame = frame.assign(value=frame["epoch"])
    made = fill(resolved, frame, protocols, {})
    assert cell(made, "base", "half").mean == 4.0 and cell(made, "long", "half").mean == 8.0
    assert [row.about for _, row in made.rows] == [{"epochs": 8}, {"epochs": 16}]
    assert [row.label for _, row in made.rows] == ["base", "long"]


def test_values_of_another_protocol_are_not_put_beside() -> None:
    resolved, frame, protocols = case(some_values())
    key = str(frame["protocol"].iloc[0])
    other = Protocol.model_validate({k: v for k, v in protocols[key].items() if k != "label"} | {"samples": 77})
    protocols[other.key] = {**other.dump(), "label": "frechet_pixel"}
    moved = (frame["arm"] == "b") & (frame["protocol"] == key)
    table = fill(resolved, frame.assign(protocol=frame["protocol"].mask(moved, other.key)), protocols, PAPER)
    assert cell(table, "b", "one").n == 0 and cell(table, "a", "one").n == 4 and cell(table, "b", "two").n == 4
    assert any(phrase.startswith("left b (") and "protocol" in phrase for phrase in table.missing)


def test_the_floor_is_a_row_below_the_rule() -> None:
    resolved, frame, protocols = case(some_values())
    floors = {key: {**p, "floor": 0.25 if p["nfe"] == 1 else None} for key, p in protocols.items()}
    table = fill(resolved, frame, floors, PAPER)
    block = worded(table).values[0]
    said = dict(zip(block.head, (words.text for words in block.rows[-1]), strict=True))
    assert said == {"Method": "floor", "1-NFE, 25 %": "0.25", "1-NFE": "0.25", "2-NFE": "–", "paper": "–"}
    assert len(block.rows) == 5 and block.controls == 3
    assert "Floor: what as many samples of the data's own law score." in worded(table).caption
    assert "floor" not in str(told().values)


def test_parameters_and_epochs_are_the_papers_own() -> None:
    facts = arm_facts(builtin("paper", name="model_sizes"))
    sizes = {panel: known["parameters"] for (panel, _), known in facts.items()}
    assert [round(n / 1e6) for n in sizes.values() if n] == [131, 308, 459, 676]
    assert {known["epochs"] for known in facts.values()} == {240}


@pytest.mark.parametrize(
    "changed, said",
    [({"table": None}, "declares no table"), ({"row": "{nobody}"}, r"table.row .*nobody.* it has: arm, method, lr"),
     ({"reference": "nobody"}, "has no arm 'nobody' to compare 'base' with"),
     ({"columns": [{"id": "x", "label": "x", "nfe": 7}]}, "'frechet_pixel' at 7 NFE")],
)  # fmt: skip
def test_tables_that_cannot_be_filled(changed: dict[str, Any], said: str) -> None:
    declared = study().table
    assert declared is not None
    table = None if "table" in changed else {**declared.model_dump(), **changed}
    with pytest.raises(ReportError, match=said.replace(" it has", r".*\(it has")):
        filled(some_values(), table=table)


@pytest.mark.parametrize(
    "values, paper, said",
    [([9.0, 11.0], 10.5, "within"), ([9.0, 9.1, 9.2], 8.0, "outside: ours higher"),
     ([5.0], 5.0, "one seed: no verdict"),
     ([9.0, 9.1, 9.2], 9.4, "within"),  # beside the interval of the mean, yet one more seed may fall there
     ([9.0, 9.1, 9.2], 10.0, "outside: ours lower"), ([9.0, 9.1], None, ""), ([], 9.0, "")],
)  # fmt: skip
def test_verdict_on_a_value(values: Sequence[float], paper: float | None, said: str) -> None:
    assert value_verdict(Cell(dict(enumerate(values)), (), paper)) == said


def test_parts_keep_their_own_marks() -> None:
    panels = {
        name: {"title": name, "arms": {"method": ["base", "a", "b"], "lr": [0.001, 0.002, 0.003], "panel": name}}
        for name in ("left", "right")
    }
    resolved, frame, protocols = case(some_values(), panels=panels)
    worse = frame["value"].where(~((frame["panel"] == "right") & (frame["arm"] == "a")), frame["value"] * 3)
    table = fill(resolved, frame.assign(value=worse), protocols, PAPER)
    left, right = table.parts
    assert [row.cells[1].mark for row in left.rows] == [None, "best", "second", None]
    assert [row.cells[1].mark for row in right.rows] == ["second", None, "best"]
    assert isinstance(left, Part) and [row.control for row in left.rows] == [False] * 3 + [True]


def test_a_frame_is_read_whatever_the_order_of_its_rows() -> None:
    resolved, frame, protocols = case(some_values())
    first = frame.groupby(["panel", "arm"], sort=False).head(1)
    shuffled = pd.concat([first, frame.drop(first.index).sample(frac=1.0, random_state=1)])
    made, again = (fill(resolved, f, protocols, PAPER) for f in (frame, shuffled))
    for (_, a), (_, b) in zip(made.rows, again.rows, strict=True):
        assert [c.values for c in a.cells] == [c.values for c in b.cells]


def test_nothing_is_nan() -> None:
    empty = Cell({}, (0, 1))
    assert (empty.mean, empty.half_width, empty.missing) == (None, None, "not measured")
    assert replace(empty, absent="nowhere").missing == "nowhere"
    one = Cell({1: 2.5}, (0, 1))
    assert one.mean == 2.5 and one.missing == "seed 0 not measured" and math.isfinite(one.mean)
