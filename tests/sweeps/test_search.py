"""What a search draws and stops: against naive rules, and as a pure function of what it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from studies.arms import Arm, expand_seed
from studies.loader import load_source, resolve
from studies.sweep import Drawn, Range, Sweep, sweep_points
from sweeps.search import AT_ONCE, REDUCTION, Search, Trial, rungs_of

RUNGS = [2, 6, 8]
RANGE = {"k": {"low": 0.25, "high": 4.0, "log": True}}


def sweep(strategy: str, points: int, space: Any = RANGE, seed: int = 0) -> Sweep:
    drawn = Sweep.model_validate(
        {"space": space, "strategy": "random", "points": points, "seed": seed, "arm_name": "x"}
    )
    return drawn.model_copy(update={"strategy": strategy})


def value_of(trial: Trial, epoch: int) -> float:
    return abs(float(trial.point["k"]) - 1.0) + 1.0 / epoch


def run(
    search: Search, value: Callable[[Trial, int], float | None] = value_of, rounds: int = 1000
) -> list[tuple[int, int, float | None]]:
    """Everything that is told, in order: (trial, epoch, value)."""
    told = []
    while rounds and (active := search.active()):
        rounds -= 1
        assert len(active) <= AT_ONCE
        for trial in active:
            told.append((trial.number, search.rung(trial), value(trial, search.rung(trial))))
            search.tell(trial, told[-1][2])
    return told


@given(some.sets(some.integers(1, 300), min_size=1, max_size=40))
def test_rungs_are_measured_epochs_each_at_least_so_many_times_the_first(epochs: set[int]) -> None:
    measured = sorted(epochs)
    rungs = rungs_of(measured)
    assert rungs[0] == measured[0] and rungs[-1] == measured[-1]
    assert rungs == sorted(set(rungs)) and set(rungs) <= epochs
    compared = [measured[0] * REDUCTION**k for k in range(7) if measured[0] * REDUCTION**k <= measured[-1]]
    assert set(rungs) == {min(epoch for epoch in epochs if epoch >= wanted) for wanted in [*compared, measured[-1]]}


@given(some.integers(0, 2**32 - 1), some.integers(1, 20))
@settings(max_examples=25)
def test_asha_stops_what_a_naive_rule_stops(seed: int, points: int) -> None:
    """At a rung goes on what belongs to the best third of what was told of the rung before."""
    rng = np.random.default_rng(seed)
    values: dict[tuple[int, int], float] = {}
    search = Search(sweep("asha", points, seed=seed % 100), RUNGS)
    told = run(search, lambda trial, epoch: values.setdefault((trial.number, epoch), float(rng.normal())))
    before: dict[int, list[float]] = {epoch: [] for epoch in RUNGS}
    stopped = {}
    for number, epoch, value in told:
        assert value is not None and number not in stopped, "nothing goes on when it has been stopped"
        if epoch != RUNGS[-1] and before[epoch] and value > np.percentile(before[epoch], 100 / REDUCTION):
            stopped[number] = epoch
        before[epoch].append(value)
    assert len(search.trials) == points
    assert {d.until_epoch for d in search.drawn() if d.state == "done"} <= {None}
    assert {
        t.number: d.until_epoch for t, d in zip(search.trials, search.drawn(), strict=True) if t.state != "done"
    } == stopped
    assert [t.point for t in search.trials] == sweep_points(sweep("random", points, seed=seed % 100))


@pytest.mark.parametrize("strategy", ["asha", "optuna"])
@pytest.mark.parametrize("rounds", [1, 3, 6])
def test_a_search_that_is_told_again_goes_on_as_it_would_have(strategy: str, rounds: int) -> None:
    whole = Search(sweep(strategy, 14), RUNGS)
    told = run(whole)
    broken = Search(sweep(strategy, 14), RUNGS)
    first = run(broken, rounds=rounds)
    known = {(number, epoch): value for number, epoch, value in first}
    again = Search(sweep(strategy, 14), RUNGS)
    asked: list[tuple[int, int]] = []

    def stored_or_computed(trial: Trial, epoch: int) -> float | None:
        if (trial.number, epoch) not in known:
            asked.append((trial.number, epoch))
        return value_of(trial, epoch)

    assert run(again, stored_or_computed) == told and told[: len(first)] == first
    assert len(asked) == len(told) - len(first)
    assert again.drawn() == whole.drawn()


def test_optuna_draws_new_points_within_the_space_and_learns() -> None:
    space = {**RANGE, "method": ["a", 2, 0.5]}
    search = Search(sweep("optuna", 24, space), RUNGS)
    run(search, lambda trial, epoch: value_of(trial, epoch) + (trial.point["method"] != 2))
    points = [trial.point for trial in search.trials]
    assert len(points) == 24 and all(points.count(point) == 1 for point in points)
    assert all(0.25 <= float(p["k"]) <= 4.0 and p["k"] == float(f"{p['k']:.6g}") for p in points)
    assert {type(p["method"]) for p in points} <= {str, int, float}
    late = points[12:]
    assert sum(p["method"] == 2 for p in late) > len(late) / 2, "most of what it draws later is of the best kind"
    assert Search(sweep("optuna", 24, space, seed=1), RUNGS).active()[0].point != points[0]


def test_optuna_on_a_list_never_draws_a_point_twice() -> None:
    search = Search(sweep("optuna", 3, {"k": [0.5, 1, 2]}), RUNGS)
    run(search)
    drawn = [trial.point["k"] for trial in search.trials]
    assert len(drawn) == len(set(drawn)) and set(drawn) <= {0.5, 1, 2}


def test_a_trial_that_fails_is_over_and_the_others_go_on() -> None:
    for strategy in ("asha", "optuna"):
        search = Search(sweep(strategy, 6), RUNGS)
        run(search, lambda trial, epoch: None if (trial.number, epoch) in {(0, 2), (1, 6)} else 1.0)
        ends = [(one.state, one.until_epoch) for one in search.drawn()]
        assert ends == [("failed", 0), ("failed", 2)] + [("done", None)] * 4


def test_under_way_is_said_of_what_is_under_way() -> None:
    search = Search(sweep("asha", 6), RUNGS)
    run(search, lambda trial, epoch: 1.0, rounds=1)
    search.active()
    assert [(one.state, one.until_epoch) for one in search.drawn()] == [("active", 6)] * 4


def cut(arms: list[Arm], drawn: list[Drawn], panel: str = "ratio75") -> list[Arm]:
    names = [f"k{one.point['schedule_power']:g}" for one in drawn]
    return [arm for arm in arms if arm.panel == panel and arm.name in names]


def test_a_trial_cut_short_is_the_beginning_of_the_whole_arm() -> None:
    """Schedule and keys are those of the full length: what is stopped early could have gone on."""
    source = load_source("k_schedule")
    whole = resolve(source, "smoke")
    (measure, *_) = whole.measure
    assert measure.every_epochs
    until = measure.every_epochs
    drawn = [Drawn(point={"schedule_power": 2}), Drawn(point={"schedule_power": 3}, state="stopped", until_epoch=until)]
    assert whole.sweep is not None
    searched = whole.sweep.model_copy(update={"strategy": "asha", "points": 4, "drawn": drawn})
    study = whole.model_copy(update={"sweep": searched})
    full, short = cut(expand_seed(whole, 0), drawn), cut(expand_seed(study, 0), drawn)
    assert short[0] == full[0]
    assert short[1].epochs == until < full[1].epochs
    assert [s.trajectory for s in short[1].stages] == [s.trajectory for s in full[1].stages[: len(short[1].stages)]]
    assert short[1].stages[-1].trajectory.horizon_steps == full[1].epochs * whole.steps_per_epoch
    assert short[1].points == tuple(point for point in full[1].points if point.epoch <= until) != full[1].points
    none = searched.model_copy(update={"drawn": [Drawn(point={"schedule_power": 3}, state="failed", until_epoch=0)]})
    (nothing,) = cut(expand_seed(whole.model_copy(update={"sweep": none}), 0), none.drawn)
    assert nothing.stages == nothing.points == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"strategy": "asha", "points": 3}, "'drawn' goes with"),
        ({"strategy": "random", "points": 2, "drawn": [{"point": {"k": 1}}]}, "'drawn' goes with"),
        ({"strategy": "optuna", "points": 2, "drawn": [{"point": {"q": 1}}]}, "has not the attributes of the space: k"),
        ({"strategy": "asha", "drawn": [{"point": {"k": 1}}]}, "needs 'points'"),
    ],
)
def test_a_record_that_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Sweep.model_validate({"space": {"k": [1, 2, 3]}, "arm_name": "x", **change})
    assert isinstance(sweep("asha", 3).space["k"], Range)
