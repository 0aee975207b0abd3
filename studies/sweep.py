"""Sweeps: a base arm, and a space of attributes in which its neighbours lie. Torch-free."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from meanflow_core.words import refusal
from studies.strict import Attribute, Strict

MOST_POINTS = 100_000
SEARCHES = ("asha", "optuna")  # strategies whose points depend on what others have measured


class Range(Strict):
    """Numbers from ``low`` to ``high``, drawn uniformly or, with ``log``, uniformly in their logarithm."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must begin above 0, not at {self.low}")
        return self


def _list_or_range(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Say what is wrong with the list or the range that it was meant to be."""
    wanted = "takes a list of values, or {low: ..., high: ...}"
    if not isinstance(value, list | tuple | dict | Range):
        raise ValueError(f"{wanted}, not {value}")
    try:
        return handler(value)
    except ValidationError as error:
        of_range = isinstance(value, dict)
        own = [one for one in error.errors() if str(one["loc"][0]).startswith("list") != of_range]
        said = ((".".join(map(str, one["loc"][1:])), refusal(one)) for one in own)
        words = (f"{'' if of_range else 'entry '}{at}: {what}" if at else what for at, what in said)
        raise ValueError(f"{wanted}: {'; '.join(words)}") from None


class Drawn(Strict):
    """A point that an adaptive search has drawn, and how far it was trained: to the end where ``until_epoch`` is null.
    An ``active`` one is still on its way."""

    point: dict[str, Attribute]
    state: Literal["done", "stopped", "failed", "active"] = "done"
    until_epoch: NonNegativeInt | None = None


class Sweep(Strict):
    """Arms that every panel has besides those that it lists: ``base`` attributes (over the panel's scalars), and over
    them every point of ``space``.

    ``grid`` takes all combinations of the values listed; ``random`` draws ``points`` of them by ``seed``; of an
    adaptive search (`SEARCHES`), which draws up to ``points``, those are recorded that it has ``drawn``. ``arm_name``
    is the format string that names such an arm.
    """

    base: dict[str, Attribute] = {}
    space: dict[str, Annotated[list[Attribute] | Range, WrapValidator(_list_or_range)]] = Field(min_length=1)
    strategy: Literal["grid", "random", "asha", "optuna"] = "grid"
    points: PositiveInt | None = None
    drawn: list[Drawn] = []
    seed: int = Field(default=0, ge=0)
    arm_name: str

    @model_validator(mode="after")
    def _complete(self) -> Self:
        ranges = [name for name, values in self.space.items() if isinstance(values, Range)]
        empty = [name for name, values in self.space.items() if isinstance(values, list) and not values]
        if empty:
            raise ValueError(f"the space of '{empty[0]}' is empty")
        if self.strategy == "grid" and ranges:
            raise ValueError(f"a grid needs the values of '{ranges[0]}' listed; a range takes 'strategy: random'")
        if self.strategy == "grid" and self.points is not None:
            raise ValueError("'points' goes with 'strategy: random'; a grid takes all combinations")
        if self.strategy != "grid" and self.points is None:
            raise ValueError(f"'strategy: {self.strategy}' needs 'points', how many to draw")
        if max(self.points or 0, self.size or 0) > MOST_POINTS:
            raise ValueError(f"a sweep has {MOST_POINTS:,} points at most, drawn or listed; a range has any number")
        if self.points is not None and self.size is not None and self.points > self.size:
            raise ValueError(f"{self.points} different points cannot be drawn from a space of {self.size}")
        if (self.strategy in SEARCHES) != bool(self.drawn):
            raise ValueError(
                "'drawn' goes with 'strategy: asha' or 'optuna', which `study sweep --search` sets, and no other"
            )
        if odd := next((one.point for one in self.drawn if set(one.point) != set(self.space)), None):
            raise ValueError(f"drawn: {odd} has not the attributes of the space: {', '.join(self.space)}")
        return self

    @property
    def size(self) -> int | None:
        """How many different points the space has; None where a range has any number."""
        listed = [len(values) for values in self.space.values() if isinstance(values, list)]
        return math.prod(listed) if len(listed) == len(self.space) else None


def sweep_points(sweep: Sweep) -> list[dict[str, Attribute]]:
    """The attributes of every point of a sweep, without ``base``, in a fixed order: all combinations of a grid, or as
    many as asked, drawn without repetition, or what a search has drawn."""
    if sweep.strategy in SEARCHES:
        return [one.point for one in sweep.drawn]
    if sweep.points is None:
        return list(_combinations(sweep))
    rng = random.Random(sweep.seed)
    if not any(isinstance(values, Range) for values in sweep.space.values()):
        return rng.sample(list(_combinations(sweep)), sweep.points)
    return [{name: _draw(values, rng) for name, values in sweep.space.items()} for _ in range(sweep.points)]


def _combinations(sweep: Sweep) -> Iterator[dict[str, Attribute]]:
    listed = [values for values in sweep.space.values() if isinstance(values, list)]
    return (dict(zip(sweep.space, point, strict=True)) for point in itertools.product(*listed))


def _draw(values: list[Attribute] | Range, rng: random.Random) -> Attribute:
    if isinstance(values, list):
        return rng.choice(values)
    if values.log:
        drawn = math.exp(rng.uniform(math.log(values.low), math.log(values.high)))
    else:
        drawn = rng.uniform(values.low, values.high)
    return rounded(drawn)


def rounded(value: float) -> float:
    """To as many digits as names show."""
    return float(f"{value:.6g}")
