"""The paper's implications summed up from the verdicts on their claims at one scale.

Nothing is tested here. By the primary metrics, and likewise by the truth, an implication is *supported* if all its
claims are supported, *contradicted* if none is supported and at least one is contradicted, *mixed* if some are
supported and some contradicted, and else *undecided*; a claim without a verdict counts as neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from reports.claimwords import MEANINGLESS
from reports.verdicts import Judgement, Outcome, Record, Verdict
from reports.words import TRUE_ERRORS
from studies.implications import Implication

Overall = Literal["supported", "contradicted", "mixed", "undecided"]
RULE = (
    "Nothing is tested anew: an implication is supported if all its claims are supported, contradicted if none is "
    "supported and at least one is contradicted, mixed if some are supported and some contradicted, and else "
    "undecided; a claim that has no verdict counts as neither. The same rule is applied to the verdicts by the primary "
    "metrics and to those by the truth, the errors against the known v and u. Claims of one implication share runs and "
    "are not independent evidence."
)


class Judged(Record):
    """The verdict on a claim by one metric, with the effect it rests on (absolute, and in % of the baseline)."""

    metric: str
    verdict: Judgement
    effect: float | None = None
    effect_percent: float | None = None
    n: int
    planned_n: int


class ClaimLine(Record):
    """A claim with its verdicts at the scale, if there are any."""

    study: str
    claim: str
    primary: Judged | None = None
    truth: Judged | None = None


class Tally(Record):
    """How many of the claims have which verdict, and what they come to."""

    overall: Overall
    of: int
    supported: int
    contradicted: int
    undecided: int

    @property
    def judged(self) -> int:
        return self.supported + self.contradicted + self.undecided


class SumUp(Record):
    """An implication with its claims, summed up by the primary metrics and by the truth."""

    id: str
    section: str
    text: str
    scale: str
    claims: tuple[ClaimLine, ...]
    primary: Tally
    truth: Tally
    not_run: tuple[str, ...]
    meaningless: bool


def sum_up(implication: Implication, scale: str, verdicts: Mapping[str, Sequence[Verdict]]) -> SumUp:
    """An implication from the verdicts of each study that has some at the scale."""
    by_name = {f"{study}/{verdict.claim}": verdict for study, found in verdicts.items() for verdict in found}
    lines = tuple(_line(name, by_name.get(name)) for name in implication.claims)
    return SumUp(
        id=implication.id,
        section=implication.section,
        text=" ".join(implication.text.split()),
        scale=scale,
        claims=lines,
        primary=tally([line.primary for line in lines]),
        truth=tally([line.truth for line in lines]),
        not_run=tuple(dict.fromkeys(line.study for line in lines if line.study not in verdicts)),
        meaningless=any(v.primary.reason == MEANINGLESS for v in by_name.values()),
    )


def tally(judged: Sequence[Judged | None]) -> Tally:
    """Claims counted by their verdict and summed up by the rule above."""
    verdicts = [one.verdict for one in judged if one]
    supported, contradicted = verdicts.count("supported"), verdicts.count("contradicted")
    overall: Overall = "undecided"
    if supported == len(judged):
        overall = "supported"
    elif contradicted:
        overall = "mixed" if supported else "contradicted"
    return Tally(
        overall=overall,
        of=len(judged),
        supported=supported,
        contradicted=contradicted,
        undecided=verdicts.count("undecided"),
    )


def _line(name: str, verdict: Verdict | None) -> ClaimLine:
    study, claim = name.split("/")
    if verdict is None:
        return ClaimLine(study=study, claim=claim)

    def judged(outcome: Outcome) -> Judged:
        facts = {k: getattr(outcome, k) for k in ("metric", "verdict", "effect", "effect_percent", "n")}
        return Judged(**facts, planned_n=verdict.planned_n)

    by_truth = verdict.truth or (verdict.primary if verdict.primary.metric.startswith(TRUE_ERRORS) else None)
    truth = judged(by_truth) if by_truth else None
    return ClaimLine(study=study, claim=claim, primary=judged(verdict.primary), truth=truth)
