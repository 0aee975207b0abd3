"""Does a resolved study speak only of things that it defines? Found before training, not after."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from meanflow_core.config import unmeasurable
from meanflow_core.registry import components
from meanflow_core.words import listed, there_is
from studies.claim import Claim
from studies.dynamics import trainers
from studies.figure import Bars, Curves, Figure, Images, Levels, Own
from studies.schema import Measure, ResolvedStudy, names_in
from studies.strict import Attribute
from studies.table import Table
from studies.yamlfile import Loc

Problem = tuple[Loc, str]
Problems = Iterator[Problem]
Attributes = dict[str, Attribute]
NO_FORMAT = (LookupError, ValueError, AttributeError, TypeError)  # what str.format raises


def problems(study: ResolvedStudy) -> Problems:
    """(where, what) of every name that the study uses and nobody defines."""
    stages = _stages(study)
    metrics = _metrics(study)
    for i, measure in enumerate(study.measure):
        for name in measure.stages or ():
            yield from _known(("measure", i, "stages"), "stage", name, stages)
        alike = [one for one in study.measure[:i] if _called_alike(one, measure)]
        if measure.metric.params.declared and any(
            one.metric.canonical() != measure.metric.canonical() for one in alike
        ):
            yield ("measure", i, "metric"), f"two metrics are called '{measure.metric_label}': give one a label()"
        for why in {unmeasurable(measure, trainer) for trainer in trainers(study, measure.stages)} - {None}:
            yield ("measure", i, "metric"), str(why)
    if study.observers and any(trainers(study)):
        yield ("observers",), "observers watch the built-in trainer; leave them out beside a trainer of your own"
    yield from _known(("primary",), "measured metric", study.primary, metrics)
    if study.truth is not None:
        yield from _known(("truth",), "measured metric", study.truth, metrics)
    yield from _of_settings(study)
    if study.figure is not None:
        yield from _of_figure(study, study.figure)
    if study.table is not None:
        yield from _of_table(study, study.table)
    for name, control in study.controls.items():
        yield from _known(("controls", name, "panel"), "panel", control.panel, list(study.panels))
    ids = [claim.id for claim in study.claims]
    for i, claim in enumerate(study.claims):
        if claim.id in ids[:i]:
            yield ("claims", i, "id"), f"two claims are called '{claim.id}'"
        yield from list(_of_claimed_arms(study, claim, ("claims", i))) or _of_claim(study, claim, ("claims", i))


def _called_alike(a: Measure, b: Measure) -> bool:
    return (a.metric_label, a.nfe, a.solver, a.weights) == (b.metric_label, b.nfe, b.solver, b.weights)


def _of_settings(study: ResolvedStudy) -> Problems:
    """Settings of attributes that no arm has, and constants that nothing refers to.

    A value in the settings that no arm has is none: studies share them. That an arm's value stands there is seen to
    where its dynamics are made (`studies.dynamics.stage_dynamics`).
    """
    of_arms = [attributes for panel in study.panels for attributes in _attributes(study, panel)]
    given = _names_of([*of_arms, *(control.attributes for control in study.controls.values())])
    for name in study.settings:
        yield from _known(("settings", name), "attribute", name, given)
    chains = [study.stages, *(study.stages_of(name) for name in study.controls)]
    shared = [study.settings, study.dynamics, study.trainer and study.trainer.model_dump()]
    used = names_in([*shared, *(stage.model_dump() for chain in chains for stage in chain)])
    for name in study.constants:
        if name not in used:
            yield ("constants", name), f"nothing refers to it: no stage and no setting has '${name}'"
    for name in study.sweep.space if study.sweep else ():
        if name not in used and name not in study.settings:
            yield (
                ("sweep", "space", name),
                f"nothing depends on it: no stage and no setting has '${name}', and there is no 'settings.{name}' "
                f"(they have: {listed(sorted(used))})",
            )


def _of_figure(study: ResolvedStudy, figure: Figure) -> Problems:
    if isinstance(figure, Own):
        return
    if figure.metric is not None:
        yield from _known(("figure", "metric"), "measured metric", figure.metric, _metrics(study))
    solver = figure.solver if isinstance(figure, Bars | Levels) else None
    if not (isinstance(figure, Bars) and figure.metrics):
        yield from _at_nfe(study, ("figure", "nfe"), figure.metric or study.primary, figure.nfe, solver)
    if isinstance(figure, Curves):
        yield from _of_curves(study, figure)
    elif isinstance(figure, Bars):
        yield from _of_bars(study, figure)
    elif isinstance(figure, Levels):
        yield from _of_levels(study, figure)
    else:
        yield from _of_images(study, figure)


def _of_curves(study: ResolvedStudy, figure: Curves) -> Problems:
    yield from _had_by_all(study, ("figure", "colour_by"), figure.colour_by)
    yield from _known(("figure", "stage"), "stage", figure.stage, _stages(study))
    if figure.label is not None:
        yield from _formats(study, ("figure", "label"), figure.label)
    if figure.reference is not None:
        yield from _in_every_panel(study, ("figure", "reference"), figure.reference)
    for number, panels in figure.panels_of.items():
        loc = ("figure", "panels_of", str(number))
        if number not in study.paper.figures:
            yield loc, f"the study does not make figure {number} of the paper (paper.figures: {study.paper.figures})"
        for panel in panels:
            yield from _known(loc, "panel", panel, list(study.panels))


def _of_bars(study: ResolvedStudy, figure: Bars) -> Problems:
    yield from _had_by_all(study, ("figure", "colour_by"), figure.colour_by)
    for name in ("metrics", "ceilings"):
        for metric in getattr(figure, name):
            yield from _known(("figure", name), "measured metric", metric, _metrics(study))
    if figure.x is not None:
        yield from _had_by_all(study, ("figure", "x"), figure.x)
    if figure.reference is not None:
        arms = [arm for panel in study.panels for arm in _arms(study, panel)]
        yield from _known(("figure", "reference"), "arm", figure.reference, arms)


def _of_levels(study: ResolvedStudy, figure: Levels) -> Problems:
    loc = ("figure", "x")
    for panel in study.panels:
        arms = _attributes(study, panel)
        yield from _known(loc, f"attribute in panel '{panel}'", figure.x, _names_of(arms))
        for value in (arm[figure.x] for arm in arms if figure.x in arm):
            if isinstance(value, str) or (figure.log_x and value <= 0):
                wanted = "number above 0, as 'log_x' demands" if figure.log_x else "number"
                yield loc, f"an arm of panel '{panel}' has {figure.x} = {value}, which is no {wanted}"
    if figure.reference is not None:
        yield from _in_every_panel(study, ("figure", "reference"), figure.reference)
    if figure.paper_column is not None:
        columns = [column.id for column in study.table.columns] if study.table else []
        if figure.paper_column not in columns:
            there = there_is(figure.paper_column, columns)
            yield ("figure", "paper_column"), f"the table has no column '{figure.paper_column}'{there}"


def _of_images(study: ResolvedStudy, figure: Images) -> Problems:
    yield from _formats(study, ("figure", "label"), figure.label)
    for measure in study.measure:
        if (measure.metric_label, measure.nfe) != (figure.metric, figure.nfe):
            continue
        if not measure.metric.params.pictures:
            yield ("figure", "metric"), f"'{figure.metric}' is a number and keeps no pictures; the metric 'images' does"
        elif figure.rows * figure.columns > measure.samples:
            yield (
                ("figure", "rows"),
                f"{figure.rows} × {figure.columns} pictures are wanted, and only {measure.samples} samples are kept",
            )


def _of_table(study: ResolvedStudy, table: Table) -> Problems:
    ids = [column.id for column in table.columns]
    for i, column in enumerate(table.columns):
        loc: Loc = ("table", "columns", i)
        if column.id in ids[:i]:
            yield (*loc, "id"), f"two columns are called '{column.id}'"
        if column.metric is not None:
            yield from _known((*loc, "metric"), "measured metric", column.metric, _metrics(study))
        yield from _at_nfe(study, (*loc, "nfe"), column.metric or study.primary, column.nfe, column.solver)
    for part in ("row", "reference"):
        yield from _formats(study, ("table", part), getattr(table, part), also=("arm",))
    for panel in study.panels:
        arms = _arms(study, panel)
        for name, attributes in zip(arms, _attributes(study, panel), strict=False):  # controls come last, without a row
            with contextlib.suppress(*NO_FORMAT):  # said above
                reference = table.reference.format(**{"arm": name, **attributes})
                yield from _known(("table", "reference"), f"arm of panel '{panel}'", reference, arms)
    for name, control in study.controls.items():
        if control.panel not in study.panels:
            continue  # said above
        try:
            reference = table.reference.format(**{"arm": name, **control.attributes})
        except NO_FORMAT as error:
            yield ("controls", name, "attributes"), f"the table's reference '{table.reference}' needs more: {error}"
        else:
            what = f"arm of panel '{control.panel}'"
            yield from _known(("controls", name, "attributes"), what, reference, _arms(study, control.panel))


def _of_claimed_arms(study: ResolvedStudy, claim: Claim, loc: Loc) -> Problems:
    """Whether a claim's panel is there, and its arms have the attributes that it speaks of."""
    yield from _known((*loc, "panel"), "panel", claim.panel, list(study.panels))
    if claim.panel in study.panels:
        known = {name for _, attributes in study.arms_of(claim.panel) for name in attributes}
        named = [("over", claim.over), *(("among", name) for name in claim.among)]
        for part, name in named:
            if name is not None and name not in known:
                yield (*loc, part), f"arms of '{claim.panel}' have no attribute '{name}'{there_is(name, sorted(known))}"


def _of_claim(study: ResolvedStudy, claim: Claim, loc: Loc) -> Problems:
    metric = claim.metric or study.primary
    if claim.stage is not None:
        yield from _known((*loc, "stage"), "stage", claim.stage, _stages(study))
    if claim.metric is not None:
        yield from _known((*loc, "metric"), "measured metric", claim.metric, _metrics(study))
    yield from _at_nfe(study, (*loc, "nfe"), metric, claim.nfe, claim.solver)
    if claim.truth is not None and not claim.truth.startswith(names := tuple(c.short for c in components("metric"))):
        yield (*loc, "truth"), f"there is no metric '{claim.truth}'{there_is(claim.truth, names)}"
    for panel, arm in map(claim.place, claim.arms or ()):
        unknown = list(_known((*loc, "arms"), "panel", panel, list(study.panels)))
        yield from unknown or _known((*loc, "arms"), f"arm of panel '{panel}'", arm, _arms(study, panel))
    for name, value in claim.among.items():
        values = [arm[name] for arm in _attributes(study, claim.panel) if name in arm]
        if value not in values:
            yield (
                (*loc, "among"),
                f"no arm of '{claim.panel}' has {name} = {value} (available: {listed(dict.fromkeys(values))})",
            )
    for name in claim.readings:
        yield from _of_claim(study, claim.under(name), (*loc, "readings", name))
    found = _measures(study, metric, claim.nfe, claim.solver)
    if claim.test == "speedup" and found and all(measure.every_epochs is None for measure in found):
        yield (*loc, "test"), f"a speed-up needs a curve: give the measure of '{metric}' an 'every_epochs'"


def _measures(study: ResolvedStudy, metric: str, nfe: int, solver: str | None) -> list[Measure]:
    """Those of a metric at this NFE and by this solver; one that asks the network itself has neither."""
    found = [m for m in study.measure if m.metric_label == metric]
    return [m for m in found if m.metric.params.asks_network or (m.nfe == nfe and solver in (None, m.solver))]


def _at_nfe(study: ResolvedStudy, loc: Loc, metric: str, nfe: int, solver: str | None) -> Problems:
    """Whether a metric, if it is measured at all, is measured at this NFE (and by this solver)."""
    found = [m for m in study.measure if m.metric_label == metric]
    if found and not _measures(study, metric, nfe, solver):
        there = ", ".join(f"{m.nfe} NFE ({m.solver})" for m in found)
        how = f" ({solver})" if solver else ""
        yield loc, f"'{metric}' is not measured at {nfe} NFE{how}, but at {there}"


def _stages(study: ResolvedStudy) -> list[str]:
    chains = [study.stages, *(study.stages_of(name) for name in study.controls)]
    return sorted({stage.name for chain in chains for stage in chain})


def _metrics(study: ResolvedStudy) -> list[str]:
    return sorted({measure.metric_label for measure in study.measure})


def _attributes(study: ResolvedStudy, panel: str) -> list[Attributes]:
    """The attributes of each arm of a panel, those of a sweep too."""
    return [attributes for _, attributes in study.arms_of(panel)]


def _names_of(arms: Sequence[Attributes]) -> list[str]:
    return sorted({name for attributes in arms for name in attributes})


def _arms(study: ResolvedStudy, panel: str) -> list[str]:
    try:
        named = [pattern.format(**attributes) for pattern, attributes in study.arms_of(panel)]
    except NO_FORMAT:
        return []  # the expansion says what is wrong with arm_name
    return [*named, *(name for name, control in study.controls.items() if control.panel == panel)]


def _formats(study: ResolvedStudy, loc: Loc, pattern: str, also: Sequence[str] = ()) -> Problems:
    """Whether a format string has the attributes of every arm; ``also`` names texts that it has besides."""
    for attributes in (arm for panel in study.panels for arm in _attributes(study, panel)):
        names = {**dict.fromkeys(also, ""), **attributes}
        try:
            pattern.format(**names)
        except NO_FORMAT as error:
            yield loc, f"not a format of the arms' attributes ({', '.join(names)}): {error}"
            return


def _had_by_all(study: ResolvedStudy, loc: Loc, name: str) -> Problems:
    for panel in study.panels:
        for attributes in _attributes(study, panel):
            yield from _known(loc, "attribute", name, list(attributes))


def _in_every_panel(study: ResolvedStudy, loc: Loc, arm: str) -> Problems:
    for panel in study.panels:
        yield from _known(loc, f"arm of panel '{panel}'", arm, _arms(study, panel))


def _known(loc: Loc, what: str, name: str, known: Sequence[str]) -> Problems:
    if known and name not in known:
        hint = "; leave the claims out with claims: []" if loc[0] == "claims" else ""
        yield loc, f"there is no {what} '{name}'{there_is(name, known)}{hint}"
