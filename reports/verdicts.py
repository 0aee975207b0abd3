"""What a claim's test found, JSON-ready, and what changed since an earlier verdict was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Judgement = Literal["supported", "contradicted", "undecided"]
Role = Literal["primary", "truth", "secondary", "reading"]
DEPENDS = "depends on the reading"
# How claims are judged. 1: t of differences in the metric's units, each claim alone at its α. 2: log ratios of what is
# positive, corrected for skewness, and Holm's correction for the claims of a study (docs/reports.md).
RULE = 2
OF_STUDY = ("study", "scale", "variant")
IDENTITY = (*OF_STUDY, "claim")
HEAD = (
    *IDENTITY,
    "claim_hash",
    "protocol",
    "metric",
    "verdict",
    "direction",
    "effect",
    "interval",
    "n",
    "planned_n",
    "rule",
)


class Record(BaseModel):
    """Frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Level(Record):
    """One level of a trend: its mean, and its paired difference from the lowest level (p two-sided, also adjusted by
    Holm's method for the levels)."""

    level: float
    arm: str
    mean: float
    difference: float | None = None
    p: float | None = None
    p_holm: float | None = None


class Trend(Record):
    """Page's test in the declared direction and in reverse, and the t of per-seed slopes that checks it. ``p``, by
    which a trend is decided, is the larger of ``slope_p`` and that of Page's test in the slopes' direction.

    ``slope`` is in the metric's units a unit of the attribute; of ratios, ``slope_percent`` is what is tested.
    """

    p: float | None = None
    p_forward: float
    p_reverse: float
    slope: float
    slope_interval: tuple[float, float] | None
    slope_percent: float | None = None
    slope_interval_percent: tuple[float, float] | None = None
    slope_p: float | None = None
    slope_p_forward: float | None
    monotone: bool
    levels: tuple[Level, ...]


class SpeedUp(Record):
    """Geometric means over seeds of the speed-up and of the lasting one (`reports.speedup`), with their intervals."""

    ratio: float
    interval: tuple[float, float] | None
    lasting: float
    lasting_interval: tuple[float, float] | None


class Outcome(Record):
    """A claim's test under one reading. ``effect`` is the mean paired difference between ``compared``.

    ``ratios``: what is tested are log ratios. Then ``effect_percent`` (the geometric mean of the ratios) and the other
    numbers in % are what is tested; ``effect``, ``interval`` and ``sd`` describe the differences in the metric's units,
    and what would be tested in these units (``resolvable``, ``bound``, ``inner_interval``) is None. Otherwise the
    numbers in units are tested, and those in % are of the mean of the second arm.

    ``p_holm`` decides: ``p`` (of a trend, that in ``trend``) adjusted for the ``tests`` of its family. Of an
    equivalence, ``bound`` is the margin, ``inner_interval`` that at 1 − 2α. Of a speed-up, all numbers are of its
    log₂, and ``speedup`` says the same in ratios.
    """

    metric: str
    protocol: str
    nfe: int
    samples: int
    weights: str
    role: Role
    under: str = ""
    verdict: Judgement
    reason: str
    notes: tuple[str, ...] = ()
    n: int
    missing_seeds: tuple[int, ...] = ()
    compared: tuple[str, str] | None = None
    baseline: float | None = None
    effect: float | None = None
    effect_percent: float | None = None
    interval: tuple[float, float] | None = None
    ratios: bool = False
    interval_percent: tuple[float, float] | None = None
    sd: float | None = None
    p: float | None = None
    p_holm: float | None = None
    tests: int | None = None
    p_sign_flip: float | None = None
    agree: int | None = None
    agree_interval: tuple[float, float] | None = None
    resolvable: float | None = None
    resolvable_percent: float | None = None
    bound: float | None = None
    bound_percent: tuple[float, float] | None = None
    inner_interval: tuple[float, float] | None = None
    inner_interval_percent: tuple[float, float] | None = None
    trend: Trend | None = None
    speedup: SpeedUp | None = None

    @property
    def primary(self) -> bool:
        return self.role == "primary"

    @property
    def tested_p(self) -> float | None:
        """The p that is adjusted and decides."""
        return self.trend.p if self.trend else self.p


class Verdict(Record):
    """The verdict on one claim at one scale: that of its primary measurement, beside the truth's and all others.

    ``readings`` are the outcomes under other readings of what the paper leaves open; ``settled`` and ``settled_words``
    are what another study found that tries them all.

    ``paper`` is the effect that the paper's own numbers give, where it has them: in % of the second arm, of a speed-up
    its factor. ``rule`` is that by which it was judged; a recorded verdict without one was judged by rule 1.
    """

    study: str
    scale: str
    variant: str | None
    claim: str
    claim_hash: str
    text: str
    where: str
    panel: str
    test: str
    declared: str
    direction: str | None
    alpha: float
    planned_seeds: tuple[int, ...]
    provisional: bool
    config_hash: str
    run: str
    time: str
    paper_scale: str
    disagreement: str
    implies: str = ""
    paper: float | None = None
    rule: int = RULE
    outcomes: tuple[Outcome, ...]
    readings: tuple[Outcome, ...] = ()
    settled: str = ""
    settled_words: str = ""

    @property
    def primary(self) -> Outcome:
        return self.outcomes[0]

    @property
    def judgement(self) -> str:
        """The primary verdict; `DEPENDS` where the readings of what the paper leaves open do not all give the same."""
        if self.settled:
            return self.settled
        found = {self.primary.verdict, *(o.verdict for o in self.readings)}
        return self.primary.verdict if len(found) == 1 else DEPENDS

    @property
    def readings_words(self) -> str:
        """Which readings give which verdict: ``supported under v-prediction; undecided under flow matching``."""
        by: dict[str, list[str]] = {}
        for o in (self.primary, *self.readings):
            by.setdefault(o.verdict, []).append(o.under)
        return "; ".join(f"{verdict} under {', '.join(names)}" for verdict, names in by.items())

    @property
    def truth(self) -> Outcome | None:
        return next((outcome for outcome in self.outcomes if outcome.role == "truth"), None)

    @property
    def planned_n(self) -> int:
        return len(self.planned_seeds)

    @property
    def label(self) -> str:
        """The verdict in words, with its scale and whether seeds are missing."""
        provisional = f", provisional ({self.primary.n} of {self.planned_n} seeds)" if self.provisional else ""
        return f"{self.judgement} at scale {self.scale}{provisional}"

    def to_json(self) -> dict[str, Any]:
        """One line of verdicts.jsonl: the fields of docs/architecture.md, the rest under ``details``."""
        dumped = _without_later(self.model_dump(mode="json"))
        first = dumped["outcomes"][0]
        known = {
            **dumped,
            **{k: first[k] for k in ("protocol", "metric", "verdict", "effect", "interval", "n")},
        }
        known |= {"planned_n": self.planned_n, "verdict": self.judgement}
        head = {name: known[name] for name in (*HEAD, "time")}
        return {**head, "details": {k: v for k, v in dumped.items() if k not in head}}


def _without_later(dumped: dict[str, Any]) -> dict[str, Any]:
    """A verdict's fields without those that verdicts have had since they were first recorded, where they say nothing:
    a line recorded before and the same verdict now must be equal."""
    outcomes = [{k: v for k, v in o.items() if k not in ("speedup", "under") or v} for o in dumped["outcomes"]]
    later = ("implies", "paper", "readings", "settled", "settled_words")
    return {k: v for k, v in dumped.items() if k not in later or v} | {"outcomes": outcomes}


def first_seen(lines: Iterable[Mapping[str, Any]], new: Verdict, alike: Sequence[str]) -> str:
    """When a verdict was first seen that is alike in some fields; at the latest, now."""
    times = (str(line["time"]) for line in lines if all(line.get(name) == getattr(new, name) for name in alike))
    return min(times, default=new.time)


def same_claim(line: Mapping[str, Any], new: Verdict) -> bool:
    """Whether a recorded verdict is about the same claim of the same study, scale and variant."""
    return all(line.get(name) == getattr(new, name) for name in IDENTITY)


def substance(line: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded verdict without its time and run: what must differ to be recorded anew."""
    details = {k: v for k, v in line.get("details", {}).items() if k != "run"}
    return {**{k: v for k, v in line.items() if k != "time"}, "details": details}


def flags(previous: Iterable[Mapping[str, Any]], new: Iterable[Verdict]) -> list[str]:
    """In words: what was changed after a verdict on the same claim had been seen, at any time before.

    A claim, a predicate, a primary measurement, a configuration or a set of seeds chosen in sight of a result is not
    declared beforehand, and the p values and intervals do not account for the choice.
    """
    lines = list(previous)
    said: list[str] = []
    for verdict in new:
        of_study = first_seen(lines, verdict, OF_STUDY)
        if of_study < first_seen(lines, verdict, IDENTITY):
            said.append(f"{verdict.claim}: the claim was added after verdicts of its study were seen ({of_study[:10]})")
        for line in (line for line in lines if same_claim(line, verdict)):
            seen = f"after a verdict was seen ({line['verdict']}, n = {line['n']}, {str(line['time'])[:10]})"
            changes = _changes(line, verdict)
            said += [f"{verdict.claim}: {change} {seen}" for change in changes]
            rule = line.get("rule", 1)
            if not changes and rule != verdict.rule and line["verdict"] != verdict.primary.verdict:
                before = f"{line['verdict']} by rule {rule}, n = {line['n']}, {str(line['time'])[:10]}"
                said.append(
                    f"{verdict.claim}: judged by another rule before ({before}; now {verdict.primary.verdict} by rule "
                    f"{verdict.rule}); nothing else was changed"
                )
    return list(dict.fromkeys(said))


def _changes(line: Mapping[str, Any], new: Verdict) -> list[str]:
    """What differs between a recorded verdict's declaration and the one at hand."""
    details = line.get("details", {})
    changes = []
    if line["claim_hash"] != new.claim_hash:
        changes.append("the predicate was edited")
    if line["metric"] != new.primary.metric:
        changes.append(f"the primary metric was changed from {line['metric']} to {new.primary.metric}")
    elif line["protocol"] != new.primary.protocol:
        changes.append("the protocol of the primary metric was changed")
    now = set(new.planned_seeds)
    before = set(details.get("planned_seeds", now))
    if now - before:
        changes.append(f"seeds were added ({len(now - before)}, now {len(now)})")
    if before - now:
        changes.append(f"seeds were dropped ({len(before - now)}, now {len(now)})")
    if details.get("config_hash", new.config_hash) != new.config_hash:
        changes.append("the study's configuration at this scale was changed")
    return changes
