"""Which numbers a figure shows: those it declares, the true errors in their place, or any metric asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from reports.errors import ReportError
from reports.frames import Protocols, Reading, find, readings
from reports.words import family_of
from studies.figure import Bars, Curves, Levels
from studies.schema import ResolvedStudy


@dataclass(frozen=True)
class Version:
    """``metric`` and ``nfe`` belong to the kind ``other``; what is None is as the figure declares."""

    kind: Literal["declared", "truth", "other"] = "declared"
    metric: str | None = None
    nfe: int | None = None

    @property
    def suffix(self) -> str:
        """What the names of the version's files end in: ``_truth``, ``_u_error_0.1-0.3``."""
        if self.kind == "other":
            metric = re.sub(r"[^A-Za-z0-9.\-]+", "_", (self.metric or "").replace(",", "-")).strip("_")
            return "".join(f"_{part}" for part in (metric, f"{self.nfe}nfe" if self.nfe else "") if part)
        return "_truth" if self.kind == "truth" else ""


DECLARED = Version()
TRUTH = Version("truth")


@dataclass(frozen=True)
class Shown:
    """One metric of a figure, how it is called where several stand side by side, and the most it could be."""

    reading: Reading
    label: str = ""
    ceiling: Reading | None = None


def has_truth(study: ResolvedStudy, figure: Curves | Bars | Levels, found: Sequence[Reading]) -> bool:
    """Whether the study measures at its scale what the figure's truth version shows, and shows nothing else already."""
    measured = {r.metric for r in found}
    if isinstance(figure, Bars) and figure.metrics:
        return bool(measured & set(figure.true_metrics))
    return study.truth in measured - {figure.metric or study.primary}


def shown(
    study: ResolvedStudy, figure: Curves | Bars | Levels, found: Sequence[Reading], version: Version
) -> list[Shown]:
    """The metrics that a version of a figure shows: one, unless several stand along x.

    Raises: ReportError that lists what was measured.
    """
    if isinstance(figure, Bars) and figure.metrics:
        return _side_by_side(figure, found, version)
    if version.kind == "truth":
        return [Shown(find(found, study.truth or study.primary))]
    metric = version.metric or figure.metric or study.primary
    nfe: int | None = version.nfe or figure.nfe
    if version.kind == "other" and version.nfe is None and all((r.metric, r.nfe) != (metric, nfe) for r in found):
        nfe = None  # at whatever NFE it is measured
    solver = None if isinstance(figure, Curves) or version.kind != "declared" else figure.solver
    return [Shown(find(found, metric, nfe, solver))]


def shown_by_panel(
    study: ResolvedStudy, figure: Curves | Bars | Levels, frame: pd.DataFrame, protocols: Protocols, version: Version
) -> list[tuple[pd.DataFrame, list[Shown]]]:
    """Each panel's evaluations, and what of them a version of a figure shows: a true error is of the field with the
    guidance trained, so where panels differ in it the same metric has a protocol in each.

    Raises: ReportError that lists what was measured.
    """
    panels = [own for _, own in frame.groupby("panel", sort=False)] or [frame]
    return [(own, shown(study, figure, readings(study, own, protocols), version)) for own in panels]


def _side_by_side(figure: Bars, found: Sequence[Reading], version: Version) -> list[Shown]:
    """Several metrics along x. Another metric may be named with its range or without, for all of its ranges."""
    labels = dict(zip(figure.metrics, figure.metric_labels, strict=False))
    ranges = {family_of(metric)[1]: label for metric, label in labels.items() if family_of(metric)[1]}
    if version.kind == "declared":
        ceilings = figure.ceilings or (None,) * len(figure.metrics)
        readings = [find(found, metric, figure.nfe, figure.solver) for metric in figure.metrics]
        tops = [next((r for r in found if r.metric == ceiling), None) for ceiling in ceilings]
    else:
        wanted = figure.true_metrics if version.kind == "truth" else [version.metric or family_of(figure.metrics[0])[0]]
        other = version.kind == "other"
        named = [r for m in wanted for r in found if r.metric == m or (other and family_of(r.metric)[0] == m)]
        first: dict[str, Reading] = {}  # of each metric
        for reading in named:
            if version.nfe in (None, reading.nfe):
                first.setdefault(reading.metric, reading)
        readings = list(first.values()) or [find(found, wanted[0], version.nfe)]
        tops = [None] * len(readings)
    said = [labels.get(r.metric, ranges.get(family_of(r.metric)[1], r.metric)) for r in readings]
    return [Shown(*one) for one in zip(readings, said, tops, strict=True)]


def label_of(template: str | None, value: object, attributes: dict[str, int | float | str]) -> str:
    """A legend's label: the template filled in with an arm's attributes, else the value coloured by.

    Raises: ReportError where the template asks for what the arm has not.
    """
    try:
        return str(value) if template is None else template.format(**attributes)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        known = ", ".join(f"{k} {v}" for k, v in attributes.items())
        raise ReportError(f"the figure's label '{template}' does not fit an arm with {known}: {error}") from None
