"""Does a resolved study speak only of things that it defines? Found before training, not after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from studies.schema import Claim, ResolvedStudy
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
    if study.figure is not None:
        yield from _known(("figure", "stage"), "stage", study.figure.stage, stages)
        for panel in study.panels.values():
            yield from _known(("figure", "colour_by"), "attribute", study.figure.colour_by, list(panel.arms))
        if study.figure.metric is not None:
            yield from _known(("figure", "metric"), "measured metric", study.figure.metric, metrics)
    for i, claim in enumerate(study.claims):
        yield from _of_claim(study, claim, ("claims", i), stages, metrics)


def _of_claim(
    study: ResolvedStudy, claim: Claim, loc: Loc, stages: Sequence[str], metrics: Sequence[str]
) -> Iterator[Problem]:
    yield from _known((*loc, "stage"), "stage", claim.stage, stages)
    if claim.metric is not None:
        yield from _known((*loc, "metric"), "measured metric", claim.metric, metrics)
    for arm in claim.arms or ():
        yield from _known((*loc, "arms"), f"arm of panel '{claim.panel}'", arm, _arms(study, claim.panel))


def _stages(study: ResolvedStudy) -> list[str]:
    chains = [study.stages, *(control.stages for control in study.controls.values())]
    return sorted({stage.name for chain in chains for stage in chain})


def _arms(study: ResolvedStudy, panel: str) -> list[str]:
    try:
        named = [study.arm_name.format(**attributes) for attributes in study.panels[panel].attributes()]
    except (KeyError, IndexError, ValueError):
        return []  # the expansion says what is wrong with arm_name
    return [*named, *(name for name, control in study.controls.items() if control.panel == panel)]


def _known(loc: Loc, what: str, name: str, known: Sequence[str]) -> Iterator[Problem]:
    if known and name not in known:
        hint = "; leave the claims out with claims: []" if loc[0] == "claims" else ""
        yield loc, f"there is no {what} '{name}' (there is: {', '.join(known)}){hint}"
