"""The points of a sweep ranked by what they end with. Pure functions.

Seeds are paired, so ranks and differences rest on the seeds that all points of a panel have. Which point is best is
itself found from these seeds: a p that knew only of the comparisons with it would be too small. So every pair of points
is tested, and Holm's correction is for all pairs; then the chance that any point is wrongly told from any other stays
below α, whichever comes out best. As everywhere, log ratios are tested of what is positive (`reports.statistics`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from reports.errors import ReportError
from reports.frames import Protocols, Reading, ends, planned_seeds
from reports.paper import paper_column
from reports.statistics import Array, Interval, as_percent, holm, paired_p, paired_t, t_band, tested
from reports.versions import DECLARED, Version, shown_by_panel
from reports.words import signed
from studies.figure import Levels
from studies.schema import ResolvedStudy
from studies.strict import Attribute
from studies.sweep import Drawn

ALPHA = 0.05
PRIMARY = Levels(kind="levels", x="", x_label="")  # for a study without such a figure: its primary metric in one step


@dataclass(frozen=True)
class Ranked:
    """One arm over ``n`` seeds: its mean with the 95 % interval, its mean difference to the best point with its
    interval (in the metric's units and, where ratios are tested, in %), and the paper's value.

    A point of the sweep has a ``rank`` from 1, the p of its difference adjusted for all pairs of points, and the rank
    of the paper's value among the points that have one. Other arms stand beside, and have none of these.
    """

    arm: str
    label: str
    n: int
    mean: float
    interval: Interval | None
    difference: float | None = None
    difference_interval: Interval | None = None
    percent: float | None = None
    percent_interval: Interval | None = None
    rank: int | None = None
    p_holm: float | None = None
    paper: float | None = None
    paper_rank: int | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def remark(self) -> str:
        """Whether these seeds tell it from the best."""
        if self.rank is None or self.difference is None:
            return ""
        if self.rank == 1:
            return "best"
        if self.p_holm is not None and self.p_holm < ALPHA:
            return "worse than the best"
        return f"not distinguishable from the best with {self.n} seed{'s' if self.n > 1 else ''}"


@dataclass(frozen=True)
class PanelRanking:
    """The points of one panel under its reading, best first, its other arms after them, and what is left out: points
    without a value, the seeds that a point lacks, and points that an adaptive search has cut short."""

    panel: str
    title: str
    reading: Reading
    rows: tuple[Ranked, ...]
    unmeasured: tuple[str, ...]
    lacking: Mapping[str, tuple[int, ...]]
    short: Mapping[str, Drawn] = field(default_factory=dict)

    @property
    def incomplete(self) -> tuple[int, ...]:
        """The seeds that not all points have."""
        return tuple(sorted({seed for seeds in self.lacking.values() for seed in seeds}))


@dataclass(frozen=True)
class SweepRanking:
    """The ranking of a sweep by one metric. ``paper`` names the paper's column beside it, if there is one."""

    study: ResolvedStudy
    paper: str
    panels: tuple[PanelRanking, ...]

    @property
    def reading(self) -> Reading:
        """That of the first panel; in others a true error may have another protocol."""
        return self.panels[0].reading

    @property
    def measured(self) -> bool:
        return any(panel.rows for panel in self.panels)


def rank_sweep(
    study: ResolvedStudy, frame: pd.DataFrame, protocols: Protocols, version: Version = DECLARED
) -> SweepRanking:
    """Rank the points of a study's sweep, panel by panel, by the end of each arm under the metric of its figure of kind
    ``levels``, else by the study's primary; by its truth, in the truth ``version``.

    Raises: ReportError where the study has no sweep, or does not measure the metric.
    """
    if study.sweep is None:
        raise ReportError(f"study '{study.study}' has no sweep to rank")
    figure = study.figure if isinstance(study.figure, Levels) else PRIMARY
    shown = shown_by_panel(study, figure, frame, protocols, version)
    paper, of_paper = paper_column(study, figure.paper_column) if version == DECLARED else ("", {})
    seeds = planned_seeds(study, frame)
    first = shown[0][1][0].reading
    found = {str(own["panel"].iloc[0]): show[0].reading for own, show in shown}
    panels = tuple(_panel(study, name, frame, found.get(name, first), of_paper, seeds) for name in study.panels)
    return SweepRanking(study, paper if of_paper else "", panels)


def _panel(
    study: ResolvedStudy,
    panel: str,
    frame: pd.DataFrame,
    reading: Reading,
    paper: Mapping[str, float],
    seeds: Sequence[int],
) -> PanelRanking:
    """One panel: the points of the sweep by rank, then its other arms, then its controls."""
    rows = ends(frame, reading)
    rows = rows[rows["panel"] == panel]
    arms = {pattern.format(**attributes): attributes for pattern, attributes in study.arms_of(panel)}
    listed, short = len(study.panels[panel].attributes()), study.cut_short(panel)
    beside, points = list(arms)[:listed], [arm for arm in list(arms)[listed:] if arm not in short]
    labels = {name: f"{c.label or name} (control)" for name, c in study.controls.items() if c.panel == panel}
    values = rows.pivot(index="seed", columns="arm", values="value").dropna(axis=1, how="all")
    there = [arm for arm in points if arm in values]
    complete = values[there].dropna()
    can_be_negative = signed(reading.metric)
    ranked = rank(complete, signed=can_be_negative) if len(complete) and there else []
    ranked = [replace(one, attributes=arms[one.arm], paper=paper.get(one.arm)) for one in ranked]
    if ranked:
        best = complete[ranked[0].arm]
        ranked = _with_paper_ranks(ranked)
        others = [_beside(arm, values[arm], best, can_be_negative) for arm in (*beside, *labels) if arm in values]
        ranked += [replace(one, label=labels.get(one.arm, one.arm), paper=paper.get(one.arm)) for one in others if one]
    absent = tuple(arm for arm in points if arm not in there)
    without = {arm: tuple(seed for seed in seeds if seed not in values[arm].dropna()) for arm in there}
    lacking = {arm: missing for arm, missing in without.items() if missing}
    return PanelRanking(panel, study.panels[panel].title, reading, tuple(ranked), absent, lacking, short)


def _with_paper_ranks(points: Sequence[Ranked]) -> list[Ranked]:
    known = sorted(one.paper for one in points if one.paper is not None)
    return [one if one.paper is None else replace(one, paper_rank=known.index(one.paper) + 1) for one in points]


def rank(values: pd.DataFrame, *, signed: bool = False) -> list[Ranked]:
    """Points by rising mean. Rows are seeds, columns points; nothing is missing."""
    ordered = values[values.mean().sort_values(kind="stable").index]
    columns = [ordered[arm].to_numpy(float) for arm in ordered]
    p_holm = _adjusted(tested(ordered.to_numpy(float), signed=signed)[0].T)
    ranked = [_compared(str(arm), own, columns[0], signed) for arm, own in zip(ordered, columns, strict=True)]
    return [replace(one, rank=i + 1, p_holm=p_holm.get((0, i))) for i, one in enumerate(ranked)]


def _adjusted(columns: Sequence[Array] | Array) -> dict[tuple[int, int], float]:
    """Holm's p of every pair of points; a pair whose difference does not vary has none."""
    pairs = list(itertools.combinations(range(len(columns)), 2))
    tests = paired_p(np.array([columns[i] - columns[j] for i, j in pairs])) if pairs else []
    p = {pair: p for pair, p in zip(pairs, tests, strict=True) if p is not None}
    return dict(zip(p, holm(list(p.values())), strict=True))


def _compared(arm: str, own: Array, best: Array, signed: bool) -> Ranked:
    """An arm beside the best point, seed by seed."""
    mean, low, high = (float(bound[0]) for bound in t_band(own[:, None]))
    t = paired_t(own, best)
    interval = (low, high) if len(own) > 1 else None
    one = Ranked(arm, arm, len(own), mean, interval, float((own - best).mean()), t.interval if t else None)
    (a, b), ratios = tested(np.array([own, best]), signed=signed)
    if not ratios:
        return one
    t = paired_t(a, b)
    bounds = (as_percent(t.interval[0]), as_percent(t.interval[1])) if t else None
    return replace(one, percent=as_percent(float((a - b).mean())), percent_interval=bounds)


def _beside(arm: str, own: pd.Series, best: pd.Series, signed: bool) -> Ranked | None:
    """An arm that is no point, over the seeds that it shares with the best; None where there are none."""
    both = pd.DataFrame({"own": own, "best": best}).dropna()
    return _compared(arm, both["own"].to_numpy(float), both["best"].to_numpy(float), signed) if len(both) else None
