"""How many seeds a study needs: from the spread of paired differences in the store. Pure functions.

Everything is for the test by which verdicts are made (`reports.statistics`): of log ratios paired by seed, said in %;
of differences in % of the mean of the second arm, where values can be 0 or negative; or, for a speed-up, of its log₂.
The spread is that observed, itself uncertain with few seeds; the effect looked for is never the
one observed, but the paper's where it is known, else a difference of 10 % or a speed-up of 1.5.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from reports.errors import Unsuited
from reports.frames import Protocols, Reading, points, readings
from reports.orders import ALPHA
from reports.paper import PaperValues, claimed_effect, paper_effect, primary_columns
from reports.statistics import Array, as_log_ratio, as_percent, degenerate, power, resolvable, tested
from reports.summaries import signed_summary, speedup_table
from reports.summaries import table as summaries
from reports.tablefill import reference_of, values_at
from reports.words import signed
from studies.arms import expand_seed
from studies.claim import Claim
from studies.schema import ResolvedStudy

WANTED_POWER = 0.8
ASSUMED_EFFECT = {"percent": 10.0, "log2": math.log2(1.5)}  # where the paper's is not known
MOST_SEEDS = 1000
NO_SPREAD = "no spread in the store yet"


@dataclass(frozen=True)
class Comparison:
    """Two arms of a panel that a study compares: by a claim, or as a row of its table with its reference. ``paper`` is
    the paper's difference in ``unit``, % of the second arm or log₂ of the speed-up, where it is known."""

    study: str
    panel: str
    arms: tuple[str, str]
    what: str
    metric: str
    nfe: int
    solver: str
    claim: Claim | None = None
    alpha: float = ALPHA
    paper: float | None = None
    unit: Literal["percent", "log2"] = "percent"

    @property
    def place(self) -> tuple[str, tuple[str, str], str, int, str]:
        return (self.panel, self.arms, self.metric, self.nfe, self.solver)


@dataclass(frozen=True)
class Need:
    """What seeds can show of one comparison. ``sd``, ``now`` and ``then`` (the smallest effects resolvable with the
    ``n`` seeds of the store and with those ``planned``) and ``effect`` are in its unit; log ratios are said in %.
    ``seeds`` is how many show ``effect`` with 80 % power, None where that is unknown (see ``unknown``) or more than
    1000."""

    comparison: Comparison
    planned: int
    effect: float
    n: int = 0
    sd: float | None = None
    now: float | None = None
    then: float | None = None
    seeds: int | None = None
    unknown: str = ""

    @property
    def seeds_said(self) -> str:
        if self.sd is None:
            return f"unknown: {self.unknown}"
        return f"> {MOST_SEEDS}" if self.seeds is None else str(self.seeds)


def needs(study: ResolvedStudy, frame: pd.DataFrame | None, protocols: Protocols, paper: PaperValues) -> list[Need]:
    """What seeds can show of every comparison of a study; ``frame`` holds its evaluations, where there are any."""
    return [_need(study, one, frame, protocols) for one in comparisons(study, paper)]


def _need(study: ResolvedStudy, one: Comparison, frame: pd.DataFrame | None, protocols: Protocols) -> Need:
    need = Need(one, len(study.seeds), abs(one.paper) if one.paper else ASSUMED_EFFECT[one.unit])
    try:
        d, ratios = _differences(study, one, frame, protocols)
    except Unsuited as error:
        return replace(need, unknown=str(error))
    if len(d) < 2:
        return replace(need, n=len(d), unknown=NO_SPREAD)
    if degenerate(d):
        return replace(need, n=len(d), unknown=f"the {'ratio' if ratios else 'difference'} is the same in every seed")
    sd = float(d.std(ddof=1))
    now, then = (resolvable(sd, n, one.alpha, WANTED_POWER) for n in (len(d), need.planned))
    effect = abs(as_log_ratio(one.paper or need.effect)) if ratios else need.effect
    need = replace(need, n=len(d), sd=sd, now=now, then=then, seeds=seeds_needed(effect, sd, one.alpha))
    return _in_percent(need) if ratios else need


def _in_percent(need: Need) -> Need:
    """What was log ratios, said in %."""
    sd, now, then = (None if value is None else as_percent(value) for value in (need.sd, need.now, need.then))
    return replace(need, sd=sd, now=now, then=then)


def seeds_needed(effect: float, sd: float, alpha: float = ALPHA) -> int | None:
    """The fewest seeds, at least 2, that show an effect with 80 % power at this sd; None: over 1000."""
    tried = range(2, MOST_SEEDS + 1)
    found = bisect_left(tried, True, key=lambda n: power(effect, sd, n, alpha) >= WANTED_POWER)
    return tried[found] if found < len(tried) else None


def comparisons(study: ResolvedStudy, paper: PaperValues) -> list[Comparison]:
    """The differences that a study claims, then the rows of its table against their reference row in the columns that
    show the primary metric at the end, unless a claim says the same."""
    claims = list(_of_claims(study, paper))
    said = {one.place for one in claims if one.claim and one.claim.summary == "end" and one.claim.stage is None}
    return [*claims, *(one for one in _of_rows(study, paper) if one.place not in said)]


def _of_claims(study: ResolvedStudy, paper: PaperValues) -> Iterator[Comparison]:
    for claim in study.claims:
        if claim.test not in ("difference", "speedup") or claim.arms is None:
            continue
        place = (claim.metric or study.primary, claim.nfe, claim.solver)
        effect = claimed_effect(study, claim, paper)
        one = Comparison(study.study, claim.panel, claim.arms, f"claim {claim.id}", *place, claim, claim.alpha, effect)
        yield one if claim.test == "difference" else replace(one, unit="log2", paper=effect and math.log2(effect))


def _of_rows(study: ResolvedStudy, paper: PaperValues) -> Iterator[Comparison]:
    if study.table is None:
        return
    arms = expand_seed(study, study.seeds[0])
    for column in primary_columns(study):
        for arm in arms:
            pair = (arm.name, reference_of(study.table, arm.name, arm.attributes))
            if pair[0] != pair[1]:
                effect = None if arm.control else paper_effect(paper, pair, column)
                place = (study.primary, column.nfe, column.solver)
                yield Comparison(study.study, arm.panel, pair, f"row, {column.label}", *place, paper=effect)


def _differences(
    study: ResolvedStudy, one: Comparison, frame: pd.DataFrame | None, protocols: Protocols
) -> tuple[Array, bool]:
    """The paired differences that the store holds, one a seed, in the comparison's unit, or log ratios, and True.

    Raises: Unsuited.
    """
    panels = {one.claim.place(arm)[0] for arm in one.arms} if one.claim else {one.panel}
    own = None if frame is None else frame[frame["panel"].isin(panels)]
    if own is None or own.empty:
        raise Unsuited(NO_SPREAD)
    found = readings(study, own, protocols)
    reading = next((r for r in found if r.metric == one.metric and r.drawn(one.nfe, one.solver)), None)
    if reading is None:
        raise Unsuited(f"the store holds no {one.metric} at {one.nfe} NFE ({one.solver})")
    if one.claim is not None and one.unit == "log2":
        return speedup_table(one.claim, points(own, reading))["first"].dropna().to_numpy(float), False
    pair = _pair(one, own, reading).dropna().to_numpy(float)
    can_be_negative = signed(one.metric) if one.claim is None else signed_summary(one.claim, one.metric)
    values, ratios = tested(pair, signed=can_be_negative)
    if not ratios:
        base = abs(pair[:, 1].mean()) if len(pair) else 0.0
        values = 100 * pair / base if base else np.empty((0, 2))
    return values[:, 0] - values[:, 1], ratios


def _pair(one: Comparison, own: pd.DataFrame, reading: Reading) -> pd.DataFrame:
    """What is compared: a row a seed, a column an arm. Raises: Unsuited."""
    if one.claim is not None:
        return summaries(one.claim, points(own, reading), list(one.arms))
    found = values_at(own, reading, 100.0)
    return pd.DataFrame({arm: pd.Series(found.get(arm, {}), dtype=float) for arm in one.arms})
