"""What a study claims, as a test declared beforehand. Torch-free."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from meanflow_core.registry import spec_field
from studies.strict import Attribute, Name, Strict


class Alternative(Strict):
    """What a claim compares under another reading of what the paper leaves open; what is not given is as declared."""

    arms: tuple[str, str] | None = None
    among: dict[str, Attribute] | None = None
    metric: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.arms is None and self.among is None and self.metric is None:
            raise ValueError("another reading compares other 'arms', 'among' others, or by another 'metric'")
        return self


class Claim(Strict):
    """One sentence of the paper as a predicate with its primary test, declared before any result is seen.

    Each arm and seed gives one number (``summary``) from its curve of ``metric`` at ``nfe`` and ``solver`` over
    ``stage`` (by default each arm's last stage):

    - ``end``: the value at the stage's end;
    - ``mean``: the mean of the linearly interpolated curve over ``window``, in epochs from the arm's root;
    - ``average``: the arithmetic mean of the stage's points;
    - ``rises``: Σ max(0, increase between consecutive points) over the stage: 0 for a curve that only falls.

    Test ``trend``: the summary is monotone (``direction``) in the attribute ``over``, among the arms that have the
    attributes ``among``; Page's trend test over seeds, confirmed by the t of the per-seed slopes of the logs (arms that
    share a prefix are correlated, which Page's ignores).
    Test ``difference``: summary(arms[0]) − summary(arms[1]) is negative (``decreasing``) or positive
    (``increasing``); t of the log ratios, paired by seed (of the differences, where values can be 0 or negative).
    Test ``equivalence``: summary(arms[0]) / summary(arms[1]) lies between 1 / (1 + ``margin``) and 1 + ``margin``
    (where values can be 0 or negative: their difference within ±margin times the mean of arms[1]); two one-sided t
    tests.
    Test ``speedup``: arms[0] reaches the final value of arms[1] sooner than arms[1] does; Student's t of the log₂ of
    the speed-up (`reports.speedup`), a number a seed, against 0. It has a summary of its own, and takes none.

    Test ``own``: the component ``judge`` decides, by the summaries of ``arms``, or else of the panel's arms that have
    the attributes ``among`` (`reports.owntest`).

    An arm is one of ``panel``; ``panel/arm`` names one of another panel.

    ``implies`` says in words what each verdict would mean, for tests whose outcome needs explaining; it is printed with
    the verdict.

    ``readings`` are other readings of what the paper leaves open, by name, and ``reading`` is the name of the one
    declared: where not all of them give one verdict, the claim depends on the reading. ``of`` names a claim of another
    study, ``study/claim``, that is declared under one of the readings.

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
    test: Literal["trend", "difference", "equivalence", "speedup", "own"]
    judge: spec_field("claim") | None = None  # type: ignore[valid-type]
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
    implies: dict[Literal["supported", "contradicted", "undecided"], str] = {}
    of: str | None = None
    reading: str = ""
    readings: dict[str, Alternative] = {}

    def under(self, reading: str) -> Claim:
        """The claim under another of its readings."""
        given = self.readings[reading].model_dump(exclude_none=True)
        return self.model_copy(update={**given, "reading": reading, "readings": {}})

    def place(self, arm: str) -> tuple[str, str]:
        """(panel, arm) of one of ``arms``."""
        panel, _, name = arm.rpartition("/")
        return panel or self.panel, name

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.test == "trend" and self.over is None:
            raise ValueError("a trend needs 'over', the attribute along which it runs")
        if (self.judge is None) == (self.test == "own"):
            raise ValueError("the test 'own', and no other, has a 'judge'")
        if self.test not in ("trend", "own") and self.arms is None:
            raise ValueError(f"the test '{self.test}' needs 'arms', the two arms compared")
        if self.test == "equivalence" and self.margin is None:
            raise ValueError("an equivalence needs a 'margin', relative to the mean of the second arm")
        if self.test == "speedup" and (self.summary != "end" or self.direction is not None):
            raise ValueError("a speed-up takes neither 'summary' nor 'direction'")
        if self.test in ("trend", "difference") and self.direction is None:
            raise ValueError(f"the test '{self.test}' needs a 'direction'")
        if self.readings and not self.reading:
            raise ValueError("'readings' needs 'reading', the name of the one that is declared")
        if self.summary == "mean" and self.window is None:
            raise ValueError("the summary 'mean' needs a 'window' [from, to] in epochs")
        return self
