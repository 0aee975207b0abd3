"""What a study file may say, typed and strict. Torch-free.

A study file holds the study and its scales; merging one scale over the study's own keys gives a `ResolvedStudy`
(see `studies.loader`), which is what is hashed, run and reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from meanflow_core.components import Program
from meanflow_core.config import Measurement
from meanflow_core.own import Source, with_sources
from meanflow_core.registry import spec_field
from meanflow_core.words import there_is
from studies.claim import Claim
from studies.figure import Figure
from studies.strict import Attribute, Name, Seed, Strict, in_one_message, no_boolean
from studies.sweep import Drawn, Sweep, sweep_points
from studies.table import Table


class PaperRef(Strict):
    """Where in the paper the study stands."""

    figures: tuple[PositiveInt, ...] = ()
    tables: tuple[PositiveInt, ...] = ()
    section: str | None = None
    appendix: str | None = None


class Stage(BaseModel):
    """One stage of an arm. Every key besides these three overrides the study's dynamics.

    ``epochs`` is a number or ``$attribute`` of the arm; a stage of 0 epochs vanishes. Anywhere in the overrides a text
    ``$attribute`` stands for the arm's value (or a constant). A ``probe`` stage trains only to be looked at: its epochs
    are counted apart from those that the paper's arms are made of.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name
    epochs: Annotated[
        NonNegativeInt | Annotated[str, Field(pattern=r"^\$[a-z_]+$")],
        BeforeValidator(no_boolean),
        in_one_message("a whole number from 0, or $attribute"),
    ]
    probe: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def fill(value: Any, names: Mapping[str, Attribute]) -> Any:
    """``value`` with every text ``$name`` in it replaced by what the name stands for.

    Raises: ValueError for a ``$name`` that is no attribute of the arm and no constant.
    """
    if isinstance(value, dict):
        return {k: fill(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [fill(v, names) for v in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value[1:] not in names:
        raise ValueError(f"{value} is no attribute of the arm and no constant{there_is(value[1:], names)}")
    return names[value[1:]]


def names_in(value: Any) -> set[str]:
    """All names that texts ``$name`` in it stand for."""
    if isinstance(value, dict | list | tuple):
        return set().union(*map(names_in, value.values() if isinstance(value, dict) else value))
    return {value[1:]} if isinstance(value, str) and value.startswith("$") else set()


class Panel(Strict):
    """One axes: its arms are given by attributes; lists zip, scalars repeat."""

    title: str
    arms: dict[str, Annotated[Attribute | list[Attribute], in_one_message("a value, or a list of them")]]

    @model_validator(mode="after")
    def _lists_zip(self) -> Self:
        lengths = {name: len(v) for name, v in self.arms.items() if isinstance(v, list)}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} has {n}" for name, n in lengths.items())
            raise ValueError(f"the lists of a panel's arms must be equally long: {said}")
        if not lengths:
            raise ValueError("at least one attribute of a panel's arms must be a list")
        return self

    def scalars(self) -> dict[str, Attribute]:
        """The attributes that all its arms share."""
        return {name: value for name, value in self.arms.items() if not isinstance(value, list)}

    def attributes(self) -> list[dict[str, Attribute]]:
        """One dictionary of attributes an arm, in the order declared."""
        n = next(len(v) for v in self.arms.values() if isinstance(v, list))
        return [{k: v[i] if isinstance(v, list) else v for k, v in self.arms.items()} for i in range(n)]


class Control(Strict):
    """An arm of ours that the paper lacks, drawn apart and counted apart. ``label`` is what tables call it.

    Its stages are the study's unless it gives its own, for an arm of these ``attributes``.
    """

    panel: Name
    text: str
    label: str | None = None
    attributes: dict[str, Attribute] = {}
    stages: tuple[Stage, ...] | None = Field(default=None, min_length=1)


class Measure(Measurement):
    """What is measured where. With ``every_epochs`` a stage is measured at its start, every so many epochs and at
    its end; without, at its end only. Points before ``from_epoch`` of the stage are left out. ``stages`` restricts it
    to some stages."""

    every_epochs: PositiveInt | None = None
    from_epoch: NonNegativeInt = 0
    stages: tuple[Name, ...] | None = None


class ResolvedStudy(Strict):
    """A study at one scale. ``arm_name`` is a format string over the arm's attributes, e.g. ``v{v_epochs}``.

    ``heading`` is written over figures and reports instead of ``title``, which may be a finding of the paper: it says
    what is shown. It may be changed without making another configuration.

    The dynamics of an arm's stage are ``dynamics``, overlaid with what ``settings`` say of the values of its attributes
    (``settings.method.dtd`` of an arm with method dtd; in the order of the arm's attributes), overlaid with the stage's
    own keys. In settings and stages a text ``$name`` stands for the arm's attribute of that name, or else for that of
    ``constants``.

    ``as_in_paper`` says that network, data, budget and protocol are the paper's, so that values may be compared;
    ``paper_values``, that an arm is the paper's arm of that name, so that the paper's values may stand beside it. Both
    end where what is trained or measured is changed, unless it is said anew (`studies.loader.merged`).

    ``trainer`` is a program of one's own that trains instead of ours, every stage of every arm.

    ``sources`` are the files that components of your own come from; they are found, not written.

    ``primary`` is the metric label that figures and claims use unless they name another. ``truth`` is that of the true
    error (of data whose fields are known) that is drawn and judged beside it.
    """

    study: Name
    title: str
    heading: str | None = None
    scale: Name
    scale_text: str
    paper: PaperRef = PaperRef()
    seeds: tuple[Seed, ...] = Field(min_length=1)
    arm_name: str
    panels: dict[Name, Panel] = Field(min_length=1)
    stages: tuple[Stage, ...] = Field(min_length=1)
    controls: dict[Name, Control] = {}
    sweep: Sweep | None = None
    settings: dict[str, dict[str, dict[str, Any]]] = {}
    constants: dict[str, Attribute] = {}
    dynamics: dict[str, Any]
    trainer: Program | None = None
    steps_per_epoch: PositiveInt
    measure: tuple[Measure, ...] = Field(min_length=1)
    primary: str
    truth: str | None = None
    figure: Figure | None = None
    table: Table | None = None
    claims: tuple[Claim, ...] = ()
    assumptions: tuple[str, ...] = ()
    scale_assumptions: tuple[str, ...] = ()
    meaningless: bool = False
    as_in_paper: bool = False
    paper_values: bool = True
    observers: tuple[spec_field("observer"), ...] = ()  # type: ignore[valid-type]
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1, le=1024)
    log_every_steps: PositiveInt = 100
    checkpoint_every_epochs: PositiveInt | None = None
    keep_every_epochs: PositiveInt | None = None
    divergence: PositiveFloat = 1e4
    sources: dict[str, Source] = {}

    @model_validator(mode="before")
    @classmethod
    def _sources_first(cls, given: Any) -> Any:
        return with_sources(given)

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("seeds must differ from each other")
        return seeds

    def arms_of(self, panel: str) -> list[tuple[str, dict[str, Attribute]]]:
        """(format string of the name, attributes) of a panel's arms: those listed, then the points of the sweep."""
        listed = [(self.arm_name, attributes) for attributes in self.panels[panel].attributes()]
        if self.sweep is None:
            return listed
        shared = {**self.panels[panel].scalars(), **self.sweep.base}
        return [*listed, *((self.sweep.arm_name, {**shared, **point}) for point in sweep_points(self.sweep))]

    def cut_short(self, panel: str) -> dict[str, Drawn]:
        """The arms of a panel that an adaptive search has not trained to their end, by name."""
        if self.sweep is None:
            return {}
        shared = {**self.panels[panel].scalars(), **self.sweep.base}
        early = [one for one in self.sweep.drawn if one.until_epoch is not None]
        return {self.sweep.arm_name.format(**{**shared, **one.point}): one for one in early}

    def stages_of(self, control: str) -> tuple[Stage, ...]:
        """A control's own stages, or the study's."""
        return self.controls[control].stages or self.stages
