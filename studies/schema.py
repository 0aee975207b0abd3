"""What a study file may say, typed and strict. Torch-free.

A study file holds the study and its scales; merging one scale over the study's own keys gives a `ResolvedStudy`
(see `studies.loader`), which is what is hashed, run and reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from meanflow_core.config import Measurement
from meanflow_core.registry import spec_field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.\-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = int | float
Attribute = Number | str


class Strict(BaseModel):
    """Unknown keys are errors, and so are infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PaperRef(Strict):
    """Where in the paper the study stands."""

    figures: tuple[PositiveInt, ...] = ()
    tables: tuple[PositiveInt, ...] = ()
    section: str | None = None
    appendix: str | None = None


class Stage(BaseModel):
    """One stage of an arm. Every key besides these three overrides the study's dynamics.

    ``epochs`` is a number or ``$attribute`` of the arm; a stage of 0 epochs vanishes. Anywhere in the overrides a text
    ``$attribute`` stands for the arm's value. A ``probe`` stage trains only to be looked at: its epochs are counted
    apart from those that the paper's arms are made of.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name
    epochs: NonNegativeInt | Annotated[str, Field(pattern=r"^\$[a-z_]+$")]
    probe: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def overrides_of(self, attributes: Mapping[str, Attribute]) -> dict[str, Any]:
        """The overrides of an arm's dynamics. Raises: ValueError for a ``$name`` that is no attribute of the arm."""
        filled: dict[str, Any] = _fill(self.overrides, attributes)
        return filled


def _fill(value: Any, attributes: Mapping[str, Attribute]) -> Any:
    """``value`` with every text ``$name`` in it replaced by the attribute of that name."""
    if isinstance(value, dict):
        return {k: _fill(v, attributes) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, attributes) for v in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value[1:] not in attributes:
        raise ValueError(f"{value} is no attribute of the arm (it has: {', '.join(attributes) or 'none'})")
    return attributes[value[1:]]


class Panel(Strict):
    """One axes: its arms are given by attributes; lists zip, scalars repeat."""

    title: str
    arms: dict[str, Attribute | list[Attribute]]

    @model_validator(mode="after")
    def _lists_zip(self) -> Self:
        lengths = {name: len(v) for name, v in self.arms.items() if isinstance(v, list)}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} has {n}" for name, n in lengths.items())
            raise ValueError(f"the lists of a panel's arms must be equally long: {said}")
        if not lengths:
            raise ValueError("at least one attribute of a panel's arms must be a list")
        return self

    def attributes(self) -> list[dict[str, Attribute]]:
        """One dictionary of attributes an arm, in the order declared."""
        n = next(len(v) for v in self.arms.values() if isinstance(v, list))
        return [{k: v[i] if isinstance(v, list) else v for k, v in self.arms.items()} for i in range(n)]


class Control(Strict):
    """An arm of ours that the paper lacks, drawn apart and counted apart."""

    panel: Name
    text: str
    stages: tuple[Stage, ...] = Field(min_length=1)


class Measure(Measurement):
    """What is measured where. With ``every_epochs`` a stage is measured at its start, every so many epochs and at
    its end; without, at its end only. Points before ``from_epoch`` of the stage are left out. ``stages`` restricts it
    to some stages."""

    every_epochs: PositiveInt | None = None
    from_epoch: NonNegativeInt = 0
    stages: tuple[Name, ...] | None = None


class Claim(Strict):
    """One sentence of the paper as a predicate with its primary test, declared before any result is seen.

    Each arm and seed gives one number (``summary``) from its curve of ``metric`` at ``nfe`` and ``solver`` over
    ``stage`` (by default each arm's last stage):

    - ``end``: the value at the stage's end;
    - ``mean``: the mean of the linearly interpolated curve over ``window``, in epochs from the arm's root;
    - ``average``: the arithmetic mean of the stage's points;
    - ``rises``: Σ max(0, increase between consecutive points) over the stage: 0 for a curve that only falls.

    Test ``trend``: the summary is monotone (``direction``) in the attribute ``over``, among the arms that have the
    attributes ``among``; Page's trend test over seeds, confirmed by Student's t of the per-seed slopes (arms that share
    a prefix are correlated, which Page's ignores).
    Test ``difference``: summary(arms[0]) − summary(arms[1]) is negative (``decreasing``) or positive
    (``increasing``); Student's t of the differences paired by seed.
    Test ``equivalence``: |summary(arms[0]) − summary(arms[1])| is below ``margin`` times the mean of arms[1]; two
    one-sided t tests paired by seed (the 1 − 2α interval lies within ±margin).

    ``truth`` is the metric of true errors that is judged beside ``metric`` where it is measured; by default the
    study's.
    """

    id: Name
    text: str
    where: str
    panel: Name
    stage: Name | None = None
    summary: Literal["end", "mean", "average", "rises"] = "end"
    window: tuple[float, float] | None = None
    test: Literal["trend", "difference", "equivalence"]
    over: str | None = None
    among: dict[str, Attribute] = {}
    arms: tuple[str, str] | None = None
    direction: Literal["decreasing", "increasing"] | None = None
    margin: float | None = Field(default=None, gt=0.0, lt=1.0)
    metric: str | None = None
    nfe: PositiveInt = 1
    solver: Literal["jump", "euler"] = "jump"
    truth: str | None = None
    alpha: float = Field(default=0.05, gt=0.0, lt=0.5)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.test == "trend" and self.over is None:
            raise ValueError("a trend needs 'over', the attribute along which it runs")
        if self.test != "trend" and self.arms is None:
            raise ValueError(f"the test '{self.test}' needs 'arms', the two arms compared")
        if self.test == "equivalence" and self.margin is None:
            raise ValueError("an equivalence needs a 'margin', relative to the mean of the second arm")
        if self.test != "equivalence" and self.direction is None:
            raise ValueError(f"the test '{self.test}' needs a 'direction'")
        if self.summary == "mean" and self.window is None:
            raise ValueError("the summary 'mean' needs a 'window' [from, to] in epochs")
        return self


class Curves(Strict):
    """A figure of measured distance over epochs, one axes a panel, a colour a value of ``colour_by`` (Figs 2, 3).

    ``label`` is a format string over an arm's attributes for the legend; by default the value coloured by.
    """

    kind: Literal["curves"]
    colour_by: str
    colour_label: str
    label: str | None = None
    stage: Name
    metric: str | None = None
    nfe: PositiveInt = 1


class Bars(Strict):
    """A figure of bars, one axes a panel: groups along x, in each a bar for every value of ``colour_by`` (Figs 4, 5).

    Along x stand either the values of the attribute ``x`` or several ``metrics`` (with ``metric_labels``). A bar is the
    mean over seeds of ``summary`` over the arm's last stage. The arm ``reference`` and the controls are lines across.
    Where ``metrics`` stand along x, ``ceilings`` names for each the metric of what noise allows, and ``true_metrics``
    those that the figure's truth version draws.
    """

    kind: Literal["bars"]
    colour_by: str
    colour_label: str
    x: str | None = None
    x_label: str
    metrics: tuple[str, ...] = ()
    metric_labels: tuple[str, ...] = ()
    ceilings: tuple[str, ...] = ()
    true_metrics: tuple[str, ...] = ()
    value_label: str | None = None
    summary: Literal["end", "average"] = "end"
    reference: str | None = None
    metric: str | None = None
    nfe: PositiveInt = 1
    solver: Literal["jump", "euler"] = "jump"

    @model_validator(mode="after")
    def _one_axis(self) -> Self:
        if (self.x is None) == (not self.metrics):
            raise ValueError("along x stands either an attribute ('x') or several 'metrics'")
        for name in ("metric_labels", "ceilings", "true_metrics"):
            given = getattr(self, name)
            if given and len(given) != len(self.metrics):
                raise ValueError(f"'{name}' must be as many as 'metrics' ({len(self.metrics)})")
        return self


Figure = Annotated[Curves | Bars, Field(discriminator="kind")]


class ResolvedStudy(Strict):
    """A study at one scale. ``arm_name`` is a format string over the arm's attributes, e.g. ``v{v_epochs}``.

    ``primary`` is the metric label that figures and claims use unless they name another. ``truth`` is that of the true
    error (of data whose fields are known) that is drawn and judged beside it.
    """

    study: Name
    title: str
    scale: Name
    scale_text: str
    paper: PaperRef = PaperRef()
    seeds: tuple[Seed, ...] = Field(min_length=1)
    arm_name: str
    panels: dict[Name, Panel] = Field(min_length=1)
    stages: tuple[Stage, ...] = Field(min_length=1)
    controls: dict[Name, Control] = {}
    dynamics: dict[str, Any]
    steps_per_epoch: PositiveInt
    measure: tuple[Measure, ...] = Field(min_length=1)
    primary: str
    truth: str | None = None
    figure: Figure | None = None
    claims: tuple[Claim, ...] = ()
    assumptions: tuple[str, ...] = ()
    scale_assumptions: tuple[str, ...] = ()
    meaningless: bool = False
    observers: tuple[spec_field("observer"), ...] = ()  # type: ignore[valid-type]
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = 1
    log_every_steps: PositiveInt = 100
    checkpoint_every_epochs: PositiveInt | None = None
    divergence: PositiveFloat = 1e4

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ from each other")
        for name, control in self.controls.items():
            if control.panel not in self.panels:
                raise ValueError(f"control '{name}': there is no panel '{control.panel}'")
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) != len(ids):
            raise ValueError("claims must have different ids")
        for claim in self.claims:
            if claim.panel not in self.panels:
                raise ValueError(f"claim '{claim.id}': there is no panel '{claim.panel}'")
            for name in filter(None, (claim.over, *claim.among)):
                if name not in self.panels[claim.panel].arms:
                    raise ValueError(f"claim '{claim.id}': arms of '{claim.panel}' have no attribute '{name}'")
        return self
