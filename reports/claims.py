"""Claims judged: the declared test on the primary metric, and beside it on the truth and on other metrics measured.

The verdict on a claim is that of the primary reading (the claim's metric, else the study's ``primary``). Beside it
stands the truth (the claim's, else the study's) where it is measured. All other readings at the claim's NFE and solver
are secondary: shown, labelled, never part of the verdict. Task affinities are no measure of quality and
their ranges of Δt are different quantities, so they are secondary to nothing, and nothing but the truth to them.

The claims of a study are one family: the p of their primary readings are adjusted together by Holm's method, and so
are those of the truth, and those of each secondary metric. Claims that cannot be tested yet count as well. A test of
the user's own decides alone, and does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from meanflow_core.config import key_of
from reports.claimwords import MEANINGLESS, compared_words, declared, implied
from reports.errors import Unsuited
from reports.frames import Protocols, Reading, Run, find, planned_seeds, points, readings
from reports.owntest import Finding, judged
from reports.paper import claimed_effect, paper_values
from reports.predicates import Sample, decide, effect, p_of, page_trend, trend_notes
from reports.statistics import holm_by_family
from reports.summaries import arms_of, signed_summary, speedup_table, table
from reports.verdicts import Judgement, Outcome, Role, Trend, Verdict
from studies.claim import Claim
from studies.schema import ResolvedStudy

AFFINITY = "task_affinity"
Pair = tuple[str, frozenset[str], str, int, str]
"""Two arms of a panel at their ends: panel, arms, metric, NFE, solver."""
# Fields that claims have since verdicts were first recorded; in the hash only where they say something.
LATER_FIELDS = (
    "stage", "direction", "among", "margin", "solver", "truth", "implies", "judge", "of", "reading", "readings",
)  # fmt: skip


def judge(
    study: ResolvedStudy,
    frame: pd.DataFrame,
    protocols: Protocols,
    *,
    run: Run,
    variant: str | None = None,
    time: str,
    paper_run: str | None = None,
) -> list[Verdict]:
    """A verdict on every claim of a study at its scale.

    Raises: ReportError where a claim's metric is not among what the study measures.
    """
    found = {reading: points(frame, reading) for reading in readings(study, frame, protocols)}
    seeds = planned_seeds(study, frame)
    shared = {
        "study": study.study,
        "scale": study.scale,
        "variant": variant,
        "planned_seeds": seeds,
        "config_hash": run.config_hash,
        "run": run.run,
        "time": time,
        "paper_scale": _paper_scale(study.scale, paper_run),
    }
    tests = [test for claim in study.claims for test in _tests(study, claim, found)]
    adjusted = holm_by_family([test.family for test in tests], [test.p for test in tests])
    by_claim: dict[str, list[Outcome]] = {claim.id: [] for claim in study.claims}
    for test, (p_holm, size) in zip(tests, adjusted, strict=True):
        by_claim[test.claim.id].append(_outcome(test, p_holm, size, seeds, meaningless=study.meaningless))
    return [_verdict(study, claim, by_claim[claim.id], shared) for claim in study.claims]


@dataclass(frozen=True)
class Claimed:
    """What decides a claim about two arms: its p adjusted for the ``tests`` of the study's claims, and its α."""

    claim: str
    p_holm: float
    tests: int
    alpha: float


def claimed_pairs(study: ResolvedStudy, verdicts: Sequence[Verdict]) -> dict[Pair, Claimed]:
    """The pairs of arms whose difference at the end a claim is about, so that a table's order of them is decided by the
    same p."""
    found: dict[Pair, Claimed] = {}
    for claim, verdict in zip(study.claims, verdicts, strict=True):
        at_end = claim.test == "difference" and claim.summary == "end" and claim.stage is None
        places = [claim.place(arm) for arm in claim.arms or ()]
        p, tests = verdict.primary.p_holm, verdict.primary.tests
        if at_end and {panel for panel, _ in places} == {claim.panel} and p is not None and tests:
            pair = (claim.panel, frozenset(arm for _, arm in places), verdict.primary.metric, claim.nfe, claim.solver)
            found.setdefault(pair, Claimed(claim.id, p, tests, claim.alpha))
    return found


@dataclass(frozen=True)
class _Test:
    """A claim under one reading, before it is decided: what was measured, or the ``problem`` that stands in the way."""

    claim: Claim
    reading: Reading
    role: Role
    sample: Sample | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    trend: Trend | None = None
    own: Finding | None = None
    problem: str = ""
    nth: int = 0

    @property
    def family(self) -> tuple[str | int, ...] | None:
        """The tests of the same family are adjusted together; None for a test of the user's own. The n-th other
        readings of all claims are one: a claim is decided where all of its readings agree, so that these need no
        correction for each other."""
        if self.claim.test == "own":
            return None
        one = self.reading
        if self.role == "reading":
            return (self.role, self.nth)
        return (self.role, one.metric, one.nfe, one.solver) if self.role == "secondary" else (self.role,)

    @property
    def p(self) -> float | None:
        return None if self.own else p_of(self.claim, self.measured, self.trend)


def _tests(study: ResolvedStudy, claim: Claim, found: Mapping[Reading, pd.DataFrame]) -> list[_Test]:
    """One claim under each of its readings."""
    # where panels train with different guidance, true errors have a protocol a panel under one label
    own = [reading for reading, rows in found.items() if (rows["panel"] == claim.panel).any()]
    here = own or list(found)
    tests = [_test(claim, found[reading], reading, role) for role, reading in roles(study, claim, here)]
    for nth, name in enumerate(claim.readings):
        other = claim.under(name)
        reading = find(here, other.metric or study.primary, other.nfe, other.solver)
        tests.append(replace(_test(other, found[reading], reading, "reading"), nth=nth))
    return tests


def _test(claim: Claim, rows: pd.DataFrame, reading: Reading, role: Role) -> _Test:
    try:
        sample = _sample(claim, rows, reading.metric)
    except Unsuited as error:
        return _Test(claim, reading, role, problem=f"cannot be tested: {error}")
    if claim.test == "own":
        finding = judged(claim, pd.DataFrame(sample.values, index=list(sample.seeds), columns=sample.arms))
        return _Test(claim, reading, role, sample, own=finding)
    trend = page_trend(sample) if claim.test == "trend" else None
    return _Test(claim, reading, role, sample, effect(sample), trend)


def _verdict(study: ResolvedStudy, claim: Claim, found: Sequence[Outcome], shared: Mapping[str, Any]) -> Verdict:
    outcomes = tuple(o for o in found if o.role != "reading")
    return Verdict(
        **shared,
        claim=claim.id,
        claim_hash=claim_hash(claim),
        text=" ".join(claim.text.split()),
        where=claim.where,
        panel=claim.panel,
        test=claim.test,
        declared=declared(claim, ratios=not signed_summary(claim, outcomes[0].metric)),
        direction=claim.direction,
        alpha=claim.alpha,
        provisional=outcomes[0].n < len(shared["planned_seeds"]),
        disagreement=compared_words(outcomes),
        implies=implied(claim, outcomes),
        paper=claimed_effect(study, claim, paper_values(study)),
        outcomes=outcomes,
        readings=tuple(o for o in found if o.role == "reading"),
    )


def roles(study: ResolvedStudy, claim: Claim, found: Sequence[Reading]) -> list[tuple[Role, Reading]]:
    """The readings under which a claim is judged, the primary first, then the truth."""
    primary = find(found, claim.metric or study.primary, claim.nfe, claim.solver)
    named = claim.truth or study.truth
    truth = next((r for r in found if r.metric == named and r != primary), None)
    others = [
        r
        for r in found
        if r not in (primary, truth) and (r.nfe, r.solver) == (claim.nfe, claim.solver) and AFFINITY not in r.metric
    ]
    said: list[tuple[Role, Reading]] = [("primary", primary)]
    said += [("truth", truth)] if truth else []
    return said if AFFINITY in primary.metric else [*said, *(("secondary", r) for r in others)]


def claim_hash(claim: Claim) -> str:
    """The key of a claim as declared."""
    dumped = claim.model_dump(mode="json")
    default = {name: Claim.model_fields[name].default for name in LATER_FIELDS}
    return key_of({k: v for k, v in dumped.items() if k not in default or v != default[k]})


def _outcome(test: _Test, p_holm: float | None, tests: int, seeds: Sequence[int], *, meaningless: bool) -> Outcome:
    """A test decided; whatever stands in its way becomes the reason of an 'undecided'."""
    facts = {k: getattr(test.reading, k) for k in ("metric", "protocol", "nfe", "samples", "weights")}
    if test.sample is None:
        said = MEANINGLESS if meaningless else test.problem
        return Outcome(**facts, role=test.role, under=test.claim.reading, verdict="undecided", reason=said, n=0)
    measured = test.measured
    if test.own:
        verdict, reason = test.own.verdict, test.own.reason
        measured = test.own.model_dump(exclude={"verdict", "reason"})
    else:
        verdict, reason = decide(test.sample, measured, test.trend, p_holm, tests)
    if meaningless:
        verdict, reason = "undecided", MEANINGLESS
    return Outcome(
        **facts,
        **measured,
        role=test.role,
        under=test.claim.reading,
        verdict=verdict,
        reason=reason,
        notes=_notes(test, verdict),
        n=len(test.sample.values),
        missing_seeds=tuple(seed for seed in seeds if seed not in test.sample.seeds),
        trend=test.trend,
        p_holm=p_holm,
        tests=tests or None,
    )


def _notes(test: _Test, verdict: Judgement) -> tuple[str, ...]:
    """What a reader should know besides the numbers."""
    notes = trend_notes(test.trend, verdict, test.measured) if test.trend else ()
    sample = test.sample
    if sample and len(sample.values) and not test.own and not sample.signed and not test.measured["ratios"]:
        notes = ("not all values are positive, so differences were tested and not ratios", *notes)
    return notes


def _sample(claim: Claim, rows: pd.DataFrame, metric: str) -> Sample:
    """What the claim's test needs of the seeds whose points are all measured. Raises: Unsuited."""
    signed = signed_summary(claim, metric)
    if claim.test == "speedup":
        whole = speedup_table(claim, rows).dropna()
        over_itself = np.zeros(len(whole))  # log₂ of the speed-up of the second arm over itself
        values = np.column_stack([whole["first"], over_itself])
        seeds, lasting = list(whole.index), whole["lasting"].to_numpy()
        return Sample(claim, values, list(claim.arms or ()), [None, None], seeds, lasting, signed)
    arms = arms_of(claim, rows[rows["panel"] == claim.panel])
    whole = table(claim, rows, [arm for arm, _ in arms]).dropna()
    levels = [level for _, level in arms]
    return Sample(claim, whole.to_numpy(float), list(whole.columns), levels, list(whole.index), signed=signed)


def _paper_scale(scale: str, paper_run: str | None) -> str:
    """Whether the paper's own scale, which is another question, was run."""
    if scale.partition("-")[0] == "paper":
        return "this is the paper's scale"
    return f"at the paper's scale: run {paper_run}, judged apart" if paper_run else "at the paper's scale: not run"
