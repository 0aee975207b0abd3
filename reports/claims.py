"""Claims judged: the declared test on the primary metric, and beside it on the truth and on other metrics measured.

The verdict on a claim is that of the primary reading (the claim's metric, else the study's ``primary``). Beside it
stands the truth (the claim's, else the study's) where it is measured. All other readings at the claim's NFE and solver
are secondary: shown, labelled, uncorrected, never part of the verdict. Task affinities are no measure of quality and
their ranges of Δt are different quantities, so they are secondary to nothing, and nothing but the truth to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from meanflow_core.config import key_of
from reports.claimwords import MEANINGLESS, compared_words, declared, implied
from reports.errors import Unsuited
from reports.frames import Protocols, Reading, Run, find, planned_seeds, points, readings
from reports.owntest import judged
from reports.paper import claimed_effect, paper_values
from reports.predicates import Sample, decide, effect, page_trend, trend_notes
from reports.summaries import arms_of, speedup_table, table
from reports.verdicts import Outcome, Role, Trend, Verdict
from studies.claim import Claim
from studies.schema import ResolvedStudy

AFFINITY = "task_affinity"
# Fields that claims have since verdicts were first recorded; in the hash only where they say something.
LATER_FIELDS = ("stage", "direction", "among", "margin", "solver", "truth", "implies", "judge")


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
    return [_judge(study, claim, found, shared) for claim in study.claims]


def _judge(
    study: ResolvedStudy, claim: Claim, found: Mapping[Reading, pd.DataFrame], shared: Mapping[str, Any]
) -> Verdict:
    """One claim under each of its readings."""
    seeds = shared["planned_seeds"]
    # where panels train with different guidance, true errors have a protocol a panel under one label
    own = [reading for reading, rows in found.items() if (rows["panel"] == claim.panel).any()]
    outcomes = tuple(
        outcome(claim, found[reading], reading, seeds, role=role, meaningless=study.meaningless)
        for role, reading in roles(study, claim, own or list(found))
    )
    return Verdict(
        **shared,
        claim=claim.id,
        claim_hash=claim_hash(claim),
        text=" ".join(claim.text.split()),
        where=claim.where,
        panel=claim.panel,
        test=claim.test,
        declared=declared(claim),
        direction=claim.direction,
        alpha=claim.alpha,
        provisional=outcomes[0].n < len(seeds),
        disagreement=compared_words(outcomes),
        implies=implied(claim, outcomes),
        paper=claimed_effect(study, claim, paper_values(study)),
        outcomes=outcomes,
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


def outcome(
    claim: Claim,
    rows: pd.DataFrame,
    reading: Reading,
    seeds: Sequence[int],
    *,
    role: Role = "primary",
    meaningless: bool = False,
) -> Outcome:
    """The claim's test under one reading; whatever stands in its way becomes the reason of an 'undecided'."""
    facts = {k: getattr(reading, k) for k in ("metric", "protocol", "nfe", "samples", "weights")}
    try:
        sample = _sample(claim, rows)
    except Unsuited as error:
        n, said = 0, MEANINGLESS if meaningless else f"cannot be tested: {error}"
        return Outcome(**facts, role=role, verdict="undecided", reason=said, n=n)
    trend: Trend | None = None
    notes: tuple[str, ...] = ()
    if claim.test == "own":
        found = judged(claim, pd.DataFrame(sample.values, index=list(sample.seeds), columns=sample.arms))
        verdict, reason = found.verdict, found.reason
        measured: dict[str, Any] = found.model_dump(exclude={"verdict", "reason"})
    else:
        measured = effect(sample)
        trend = page_trend(sample) if claim.test == "trend" else None
        verdict, reason = decide(sample, measured, trend)
    if meaningless:
        verdict, reason = "undecided", MEANINGLESS
    if trend:
        notes = trend_notes(trend, verdict, sample, measured["interval"])
    return Outcome(
        **facts,
        **measured,
        role=role,
        verdict=verdict,
        reason=reason,
        notes=notes,
        n=len(sample.values),
        missing_seeds=tuple(seed for seed in seeds if seed not in sample.seeds),
        trend=trend,
    )


def _sample(claim: Claim, rows: pd.DataFrame) -> Sample:
    """What the claim's test needs of the seeds whose points are all measured. Raises: Unsuited."""
    if claim.test == "speedup":
        whole = speedup_table(claim, rows).dropna()
        over_itself = np.zeros(len(whole))  # log₂ of the speed-up of the second arm over itself
        values = np.column_stack([whole["first"], over_itself])
        return Sample(
            claim, values, list(claim.arms or ()), [None, None], list(whole.index), whole["lasting"].to_numpy()
        )
    arms = arms_of(claim, rows[rows["panel"] == claim.panel])
    whole = table(claim, rows, [arm for arm, _ in arms]).dropna()
    return Sample(claim, whole.to_numpy(float), list(whole.columns), [level for _, level in arms], list(whole.index))


def _paper_scale(scale: str, paper_run: str | None) -> str:
    """Whether the paper's own scale, which is another question, was run."""
    if scale.partition("-")[0] == "paper":
        return "this is the paper's scale"
    return f"at the paper's scale: run {paper_run}, judged apart" if paper_run else "at the paper's scale: not run"
