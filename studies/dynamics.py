"""The dynamics of an arm's stage, made of what the study, the arm's attributes and the stage say; and which of these is
to blame where they are not valid. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from meanflow_core.components import Program
from meanflow_core.config import Dynamics
from meanflow_core.words import refusal, there_is
from studies.blame import keys_at
from studies.merging import merge
from studies.schema import ResolvedStudy, Stage, fill, names_in
from studies.strict import Attribute
from studies.yamlfile import Loc


class UnknownLevel(ValueError):
    """The settings of an attribute do not say what one of its values stands for."""

    def __init__(self, name: str, value: Attribute, levels: Mapping[str, Any]) -> None:
        super().__init__(f"settings.{name} does not say what '{value}' stands for (it has: {', '.join(levels)})")
        self.name = name


def stage_dynamics(study: ResolvedStudy, stage: Stage, attributes: Mapping[str, Attribute]) -> Dynamics:
    """The study's dynamics with its trainer, overlaid with the settings of the arm's attributes, overlaid with the
    stage's keys.

    Raises: ValueError (pydantic's ValidationError is one), never once `studies.loader.resolve` has passed.
    """
    dynamics: Any = study.dynamics
    if study.trainer is not None:
        dynamics = merge(dynamics, {"trainer": study.trainer.model_dump(mode="json")})
    for name, value in attributes.items():
        levels = study.settings.get(name, {})
        if levels and str(value) not in levels:
            raise UnknownLevel(name, value, levels)
        dynamics = merge(dynamics, levels.get(str(value), {}))
    return Dynamics.model_validate(fill(merge(dynamics, stage.overrides), {**study.constants, **attributes}))


def trainers(study: ResolvedStudy, stages: Collection[str] | None = None) -> list[Program | None]:
    """The trainers of your own that train some arm's stage (of some ``stages``), None being the built-in one.

    Raises: ValueError, never once `studies.loader.resolve` has passed.
    """
    said = [study.dynamics, study.settings, *(stage.overrides for chain in _chains(study) for stage in chain.stages)]
    if not _mentions(said, "trainer"):
        return [study.trainer]
    found = [
        stage_dynamics(study, stage, chain.attributes).trainer
        for chain in _chains(study)
        for stage in chain.stages
        if stages is None or stage.name in stages
    ]
    return [one for i, one in enumerate(found) if one not in found[:i]]


def assumed(study: ResolvedStudy) -> tuple[str, ...]:
    """The study's assumptions, and which of the user's own trainers train its arms."""
    names = dict.fromkeys(one.name for one in trainers(study) if one is not None)
    return (*study.assumptions, *(f"Trained and sampled by {name}, not by the built-in trainer." for name in names))


def _mentions(value: Any, key: str) -> bool:
    """Whether a mapping somewhere in it has a key."""
    if isinstance(value, dict):
        return key in value or any(_mentions(part, key) for part in value.values())
    return isinstance(value, list | tuple) and any(_mentions(part, key) for part in value)


@dataclass(frozen=True)
class _Chain:
    """The stages of an arm and where they stand; its attributes, and where each of them stands."""

    study: ResolvedStudy
    at: Loc
    stages: Sequence[Stage]
    attributes: dict[str, Attribute]
    origins: Mapping[str, Loc]

    def problem(self, i: int) -> tuple[list[Loc], str] | None:
        """What is wrong with stage i, and the parts of the study that may be to blame, the likeliest first."""
        stage = self.stages[i]
        try:
            stage_dynamics(self.study, stage, self.attributes)
        except ValidationError as error:
            first = error.errors()[0]
            loc: Loc = tuple(first["loc"])
            message = refusal(first)
            if first["type"] == "extra_forbidden":
                message += there_is(loc[-1], keys_at(Dynamics, loc), shown=20)
            key = ".".join(map(str, loc)) or "dynamics"
            return self._givers(i, loc), f"stage '{stage.name}': {key}: {message}"
        except UnknownLevel as error:
            return [self.origins[error.name]], f"stage '{stage.name}': {error}"
        except ValueError as error:
            return [(*self.at, i)], f"stage '{stage.name}': {error}"
        return None

    def _givers(self, i: int, loc: Loc) -> list[Loc]:
        """What gave a part of the dynamics its value: the stage, a setting or the study; and what the names ``$name``
        in it stand for, which comes first where it is one, since nothing else varies."""
        at, given = self._giver(i, loc)
        for part in loc:
            given = given[part] if _has(given, part) else given
        named = [self.origins.get(name, ("constants", name)) for name in sorted(names_in(given))]
        return [*named, (*at, *loc)] if len(named) == 1 else [(*at, *loc), *named]

    def _giver(self, i: int, loc: Loc) -> tuple[Loc, Any]:
        """Who has the last word on a part of the dynamics, and what it says."""
        overrides = self.stages[i].overrides
        if not loc or loc[0] in overrides:
            return (*self.at, i), overrides
        for name, value in reversed(self.attributes.items()):
            level = self.study.settings.get(name, {}).get(str(value), {})
            if loc[0] in level:
                return ("settings", name, str(value)), level
        return ("dynamics",), self.study.dynamics


def _has(given: Any, part: str | int) -> bool:
    if isinstance(given, dict):
        return part in given
    return isinstance(given, list) and isinstance(part, int) and part < len(given)


def stage_problems(study: ResolvedStudy) -> Iterator[tuple[list[Loc], str]]:
    """What is wrong with the stages' dynamics for some arm, and the parts of the study that may be to blame."""
    for chain in _chains(study):
        for i in range(len(chain.stages)):
            if found := chain.problem(i):
                yield found


def _chains(study: ResolvedStudy) -> Iterator[_Chain]:
    """Of every arm of the panels, of the sweep and of the controls."""
    for panel in study.panels:
        listed = len(study.panels[panel].attributes())
        for i, (_, attributes) in enumerate(study.arms_of(panel)):
            origins = {name: _origin(study, panel, name, of_sweep=i >= listed) for name in attributes}
            yield _Chain(study, ("stages",), study.stages, attributes, origins)
    for name, control in study.controls.items():
        at: Loc = ("controls", name, "stages") if control.stages else ("stages",)
        own: dict[str, Loc] = {key: ("controls", name, "attributes", key) for key in control.attributes}
        yield _Chain(study, at, study.stages_of(name), control.attributes, own)


def _origin(study: ResolvedStudy, panel: str, name: str, *, of_sweep: bool) -> Loc:
    """Where an attribute of an arm stands; a point of the sweep has those of the panel too."""
    if of_sweep and study.sweep is not None:
        if name in study.sweep.space:
            return ("sweep", "space", name)
        if name in study.sweep.base:
            return ("sweep", "base", name)
    return ("panels", panel, "arms", name)
