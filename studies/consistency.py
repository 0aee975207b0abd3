"""Does a resolved study speak only of things that it defines? Found before training, not after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meanflow_core.registry import components
from studies.claim import Claim
from studies.figure import Curves, Figure
from studies.schema import ResolvedStudy
from studies.yamlfile import Loc

Problem = tuple[Loc, str]


def problems(study: ResolvedStudy) -> Iterator[Problem]:
    """(where, what) of every name that the study uses and nobody defines."""
    stages = _stages(study)
    metrics = sorted({m.metric_label for m in study.measure})
    for i, measure in enumerate(study.measure):
        for name in measure.stages or ():
            yield from _known(("measure", i, "stages"), "stage", name, stages)
    yield from _known(("primary",), "measured metric", study.primary, metrics)
    if study.truth is not None:
        yield from _known(("truth",), "measured metric", study.truth, metrics)
    if study.figure is not None:
        yield from _of_figure(study, study.figure, stages, metrics)
    for i, claim in enumerate(study.claims):
        yield from _of_claim(study, claim, ("claims", i), stages, metrics)


def _of_figure(
    study: ResolvedStudy, figure: Figure, stages: Sequence[str], metrics: Sequence[str]
) -> Iterator[Problem]:
    for panel in study.panels.values():
        yield from _known(("figure", "colour_by"), "attribute", figure.colour_by, list(panel.arms))
    if figure.metric is not None:
        yield from _known(("figure", "metric"), "measured metric", figure.metric, metrics)
    if isinstance(figure, Curves) or not figure.metrics:
        solver = None if isinstance(figure, Curves) else figure.solver
        yield from _at_nfe(study, ("figure", "nfe"), figure.metric or study.primary, figure.nfe, solver)
    if isinstance(figure, Curves):
        yield from _known(("figure", "stage"), "stage", figure.stage, stages)
        yield from _of_label(study, figure)
        return
    for name in ("metrics", "ceilings"):
        for metric in getattr(figure, name):
            yield from _known(("figure", name), "measured metric", metric, metrics)
    if figure.x is not None:
        for panel in study.panels.values():
            yield from _known(("figure", "x"), "attribute", figure.x, list(panel.arms))
    if figure.reference is not None:
        arms = [arm for panel in study.panels for arm in _arms(study, panel)]
        yield from _known(("figure", "reference"), "arm", figure.reference, arms)


def _of_label(study: ResolvedStudy, figure: Curves) -> Iterator[Problem]:
    arms = [a for panel in study.panels.values() for a in panel.attributes()] if figure.label is not None else []
    for attributes in arms:
        try:
            str(figure.label).format(**attributes)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            yield ("figure", "label"), f"not a format of the arms' attributes ({', '.join(attributes)}): {error}"
            return


def _of_claim(
    study: ResolvedStudy, claim: Claim, loc: Loc, stages: Sequence[str], metrics: Sequence[str]
) -> Iterator[Problem]:
    if claim.stage is not None:
        yield from _known((*loc, "stage"), "stage", claim.stage, stages)
    if claim.metric is not None:
        yield from _known((*loc, "metric"), "measured metric", claim.metric, metrics)
    yield from _at_nfe(study, (*loc, "nfe"), claim.metric or study.primary, claim.nfe, claim.solver)
    if claim.truth is not None and not claim.truth.startswith(names := tuple(c.name for c in components("metric"))):
        yield (*loc, "truth"), f"there is no metric '{claim.truth}' (there is: {', '.join(names)})"
    for arm in claim.arms or ():
        yield from _known((*loc, "arms"), f"arm of panel '{claim.panel}'", arm, _arms(study, claim.panel))
    for name, value in claim.among.items():
        given = study.panels[claim.panel].arms[name]
        values = given if isinstance(given, list) else [given]
        if value not in values:
            yield (*loc, "among"), f"no arm of '{claim.panel}' has {name} = {value} (there is: {values})"


def _at_nfe(study: ResolvedStudy, loc: Loc, metric: str, nfe: int, solver: str | None) -> Iterator[Problem]:
    """Whether a metric, if it is measured at all, is measured at this NFE (and by this solver)."""
    found = [m for m in study.measure if m.metric_label == metric]
    if found and all(m.nfe != nfe or solver not in (None, m.solver) for m in found):
        there = ", ".join(f"{m.nfe} NFE ({m.solver})" for m in found)
        how = f" ({solver})" if solver else ""
        yield loc, f"'{metric}' is not measured at {nfe} NFE{how}, but at {there}"


def _stages(study: ResolvedStudy) -> list[str]:
    chains = [study.stages, *(study.stages_of(name) for name in study.controls)]
    return sorted({stage.name for chain in chains for stage in chain})


def _arms(study: ResolvedStudy, panel: str) -> list[str]:
    try:
        named = [pattern.format(**attributes) for pattern, attributes in study.arms_of(panel)]
    except (LookupError, ValueError, AttributeError, TypeError):
        return []  # the expansion says what is wrong with arm_name
    return [*named, *(name for name, control in study.controls.items() if control.panel == panel)]


def _known(loc: Loc, what: str, name: str, known: Sequence[str]) -> Iterator[Problem]:
    if known and name not in known:
        hint = "; leave the claims out with claims: []" if loc[0] == "claims" else ""
        yield loc, f"there is no {what} '{name}' (there is: {', '.join(known)}){hint}"
