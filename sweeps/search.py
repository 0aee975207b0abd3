"""Adaptive search: which points to draw next, how far to train each, and which to stop; decided by Ray Tune.

A search is told what was measured, rung by rung, in an order of its own: that of the trials, never that in which jobs
ended. So what it draws and stops is a pure function of the sweep (its seed among it) and of the values, whatever ran
them and however often it was interrupted: it is resumed by being told everything again. That is why Ray Tune's
searchers and schedulers are asked here, and its `Tuner`, which decides by arrival and resumes from pickles, is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from studies.strict import Attribute
from studies.sweep import Drawn, Range, Sweep, rounded, sweep_points

AT_ONCE = 4  # trials under way: part of what is drawn, so never taken from the number of workers
REDUCTION = 3  # ASHA goes on with the best third of what has come to a rung
REDRAWS = 100
TIME, VALUE = "training_iteration", "value"  # the epoch; Tune's own name for time, which optuna's searcher reads


@dataclass
class Trial:
    """A point, how many rungs it has behind it, and whether it goes on."""

    number: int
    point: dict[str, Attribute]
    rungs_done: int = 0
    state: Literal["active", "done", "stopped", "failed"] = "active"

    @property
    def name(self) -> str:
        return f"trial{self.number}"


def rungs_of(epochs: Sequence[int], reduction: int = REDUCTION) -> list[int]:
    """Where trials are compared: the first measured epoch, then whichever follows `reduction` times as much, and the
    end.

    Args:
        epochs: at which an arm is measured, rising; the last is its end.
    """
    rungs, wanted = {epochs[-1]}, float(epochs[0])
    while wanted <= epochs[-1]:
        rungs.add(next(epoch for epoch in epochs if epoch >= wanted))
        wanted *= reduction
    return sorted(rungs)


class Search:
    """Draws up to ``sweep.points`` trials and trains them by rungs. Less is better."""

    def __init__(self, sweep: Sweep, rungs: Sequence[int]) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        self.trials: list[Trial] = []
        self.rungs = list(rungs)
        self._samples = sweep.points or 0
        self._searcher = _searcher(sweep) if sweep.strategy == "optuna" else None
        self._points = _new_points(self._proposals(sweep), self._samples)
        self._asha: Any = AsyncHyperBandScheduler(
            time_attr=TIME,
            metric=VALUE,
            mode="min",
            grace_period=rungs[0],
            max_t=max(rungs[-1], rungs[0] + 1),
            reduction_factor=REDUCTION,
        )

    def active(self) -> list[Trial]:
        """The trials to be trained to their next rung now: those that go on, and new ones beside them."""
        free = AT_ONCE - sum(trial.state == "active" for trial in self.trials)
        for number, point in islice(self._points, free):
            trial = Trial(number, point)
            self.trials.append(trial)
            self._asha.on_trial_add(None, _OfTune(trial.name))
        return [trial for trial in self.trials if trial.state == "active"]

    def rung(self, trial: Trial) -> int:
        """The epoch to which an active trial is to be trained."""
        return self.rungs[trial.rungs_done]

    def tell(self, trial: Trial, value: float | None) -> None:
        """What an active trial has at its rung; None where it failed on the way."""
        result = {TIME: self.rung(trial), VALUE: value}
        if value is None:
            trial.state = "failed"
        else:
            trial.rungs_done += 1
            action = self._asha.on_trial_result(None, _OfTune(trial.name), result)
            if trial.rungs_done == len(self.rungs):
                trial.state = "done"
            elif action == self._asha.STOP:
                trial.state = "stopped"
        if self._searcher is None:
            return
        if trial.state == "active":
            self._searcher.on_trial_result(trial.name, result)
        else:
            self._searcher.on_trial_complete(trial.name, result, error=trial.state == "failed")

    def drawn(self) -> list[Drawn]:
        """All trials, for the record: an active one with the rung that it is on its way to."""
        return [Drawn(point=t.point, state=t.state, until_epoch=self._until(t)) for t in self.trials]

    def _until(self, trial: Trial) -> int | None:
        if trial.state == "done":
            return None
        if trial.state == "active":
            return self.rung(trial)
        return self.rungs[trial.rungs_done - 1] if trial.rungs_done else 0

    def _proposals(self, sweep: Sweep) -> Iterator[tuple[int, dict[str, Attribute]]]:
        if self._searcher is None:
            drawn = Sweep.model_validate({**sweep.model_dump(exclude={"drawn"}), "strategy": "random"})
            yield from enumerate(sweep_points(drawn))
            return
        number = 0
        while True:
            suggested = self._searcher.suggest(f"trial{number}")
            yield number, {name: _as_named(value) for name, value in suggested.items()}
            number += 1


def _new_points(
    proposals: Iterator[tuple[int, dict[str, Attribute]]], samples: int
) -> Iterator[tuple[int, dict[str, Attribute]]]:
    """Up to so many of the proposals, none twice; fewer where nothing new comes any more."""
    seen: list[dict[str, Attribute]] = []
    in_vain = 0
    for number, point in proposals:
        if point in seen:
            in_vain += 1
            if in_vain == REDRAWS:
                return
            continue
        in_vain = 0
        seen.append(point)
        yield number, point
        if len(seen) == samples:
            return


@dataclass(frozen=True)
class _OfTune:
    """All that Tune's scheduler asks of a trial."""

    trial_id: str


def _as_named(value: Attribute) -> Attribute:
    return rounded(value) if isinstance(value, float) else value


def _searcher(sweep: Sweep) -> Any:
    """Optuna's tree-structured Parzen estimator, through Tune; random until a first round has been measured."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
        if isinstance(values, Range)
        else optuna.distributions.CategoricalDistribution(values)
        for name, values in sweep.space.items()
    }
    sampler = optuna.samplers.TPESampler(seed=sweep.seed, n_startup_trials=AT_ONCE)
    return OptunaSearch(space=space, metric=VALUE, mode="min", sampler=sampler)
