"""What a study's figure shows. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from meanflow_core.registry import spec_field
from studies.strict import Name, Strict


class Curves(Strict):
    """A figure of measured distance over epochs, one axes a panel, a colour a value of ``colour_by`` (Figs 2, 3).

    ``label`` is a format string over an arm's attributes for the legend; by default the value coloured by.
    ``reference`` is an arm that every panel has: a line across stands at its final value, and every other curve is
    marked where it reaches that, with the speed-up (Figs 1, 6). ``panels_of`` names the panels of a figure of the paper
    that shows only some.
    """

    kind: Literal["curves"]
    colour_by: str
    colour_label: str
    label: str | None = None
    stage: Name
    metric: str | None = None
    nfe: PositiveInt = 1
    reference: str | None = None
    panels_of: dict[PositiveInt, tuple[Name, ...]] = {}


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


class Levels(Strict):
    """A figure of the final value against the attribute ``x`` of the arms that have it, one axes a panel, and beside
    them one of the paper's values (`studies.paper_values`) in column ``paper_column`` of the study's table. The arm
    ``reference`` and the controls are lines across (Table 4 as a picture)."""

    kind: Literal["levels"]
    x: str
    x_label: str
    log_x: bool = False
    reference: str | None = None
    paper_column: Name | None = None
    metric: str | None = None
    nfe: PositiveInt = 1
    solver: Literal["jump", "euler"] = "jump"


class Images(Strict):
    """A figure of samples from the same latents, a row an arm, a column an epoch, of one seed (Fig. 7).

    ``metric`` is the label of the metric that keeps images (`images`); ``columns`` of latents and ``rows`` of them
    make the block of one arm at one epoch.
    """

    kind: Literal["images"]
    metric: str = "images"
    label: str
    nfe: PositiveInt = 1
    rows: PositiveInt = 4
    columns: PositiveInt = 4


class Own(Strict):
    """A figure that a component of your own draws on axes as wide as the page and ``height`` inches high
    (`reports.ownfigure`)."""

    kind: Literal["own"]
    draw: spec_field("figure")  # type: ignore[valid-type]
    height: PositiveFloat = 4.0


Figure = Annotated[Curves | Bars | Levels | Images | Own, Field(discriminator="kind")]
