"""Claims judged: the declared test on the primary metric, and beside it on every other metric measured.

The verdict on a claim is that of the primary reading (the claim's metric, else the study's ``primary``). All
other readings at the claim's NFE are secondary: shown, labelled, uncorrected, never part of the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from meanflow_core.config import key_of
from reports.frames import Protocols, Reading, Run, find, planned_seeds, points, readings
from reports.predicates import Sample, decide, effect, page_trend, trend_notes
from reports.summaries import Unsuited, arms_of, table
from reports.verdicts import Outcome, Verdict
from studies.schema import Claim, ResolvedStudy

MEANINGLESS = "this scale is for checking that everything runs; its numbers mean nothing"


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
    found = readings(study, frame, protocols)
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
    return [_judge(study, claim, frame, found, shared) for claim in study.claims]


def _judge(
    study: ResolvedStudy,
    claim: Claim,
    frame: pd.DataFrame,
    found: Sequence[Reading],
    shared: Mapping[str, Any],
) -> Verdict:
    """One claim under its primary reading and under every other at its NFE."""
    primary = find(found, claim.metric or study.primary, claim.nfe, "jump")
    others = [r for r in found if r != primary and (r.nfe, r.solver) == (claim.nfe, "jump")]
    seeds = shared["planned_seeds"]
    outcomes = tuple(
        outcome(claim, points(frame, r), r, seeds, primary=r == primary, meaningless=study.meaningless)
        for r in (primary, *others)
    )
    return Verdict(
        **shared,
        claim=claim.id,
        claim_hash=key_of(claim.model_dump(mode="json")),
        text=" ".join(claim.text.split()),
        where=claim.where,
        panel=claim.panel,
        test=claim.test,
        declared=declared(claim),
        direction=claim.direction,
        alpha=claim.alpha,
        provisional=outcomes[0].n < len(seeds),
        disagreement=disagreement(outcomes),
        outcomes=outcomes,
    )


def declared(claim: Claim) -> str:
    """The claim's test in words."""
    number = {"end": "value at the end", "rises": "sum of rises"}.get(claim.summary)
    if claim.window is not None and number is None:
        number = f"mean over epochs {claim.window[0]:g} to {claim.window[1]:g}"
    where = f"{number} of {claim.stage} (panel {claim.panel})"
    if claim.arms is not None and claim.test == "difference":
        a, b = claim.arms
        side = "below" if claim.direction == "decreasing" else "above"
        return f"{where}: {a} − {b} {side} 0; Student's t paired by seed, two-sided, α = {claim.alpha:g}"
    return (
        f"{where}: {claim.direction} in {claim.over}; Page's trend test over seeds, "
        f"confirmed by Student's t of the per-seed slopes, α = {claim.alpha:g}"
    )


def outcome(
    claim: Claim,
    rows: pd.DataFrame,
    reading: Reading,
    seeds: Sequence[int],
    *,
    primary: bool = True,
    meaningless: bool = False,
) -> Outcome:
    """The claim's test under one reading; whatever stands in its way becomes the reason of an 'undecided'."""
    facts = {k: getattr(reading, k) for k in ("metric", "protocol", "nfe", "samples", "weights")}
    try:
        arms = arms_of(claim, rows[rows["panel"] == claim.panel])
        whole = table(claim, rows, [arm for arm, _ in arms]).dropna()
    except Unsuited as error:
        n, said = 0, MEANINGLESS if meaningless else f"cannot be tested: {error}"
        return Outcome(**facts, primary=primary, verdict="undecided", reason=said, n=n)
    missing = tuple(seed for seed in seeds if seed not in whole.index)
    sample = Sample(claim, whole.to_numpy(float), list(whole.columns), [level for _, level in arms])
    measured = effect(sample)
    trend = page_trend(sample) if claim.test == "trend" else None
    verdict, reason = decide(sample, measured["interval"], trend)
    if meaningless:
        verdict, reason = "undecided", MEANINGLESS
    notes = trend_notes(trend, verdict, sample, measured["interval"]) if trend else ()
    return Outcome(
        **facts,
        **measured,
        primary=primary,
        verdict=verdict,
        reason=reason,
        notes=notes,
        n=len(whole),
        missing_seeds=missing,
        trend=trend,
    )


def disagreement(outcomes: Sequence[Outcome]) -> str:
    """In words, where a secondary metric says other than the primary; empty where none does."""
    primary, *others = outcomes
    other: dict[str, list[str]] = {}
    for o in others:
        if o.verdict != primary.verdict and o.n >= 2:
            other.setdefault(o.verdict, []).append(o.metric)
    if not other:
        return ""
    said = "; ".join(f"{verdict} by {', '.join(metrics)}" for verdict, metrics in other.items())
    return f"The metrics disagree: {primary.verdict} by {primary.metric} (primary), but {said} (secondary)."


def _paper_scale(scale: str, paper_run: str | None) -> str:
    """Whether the paper's own scale, which is another question, was run."""
    if scale == "paper":
        return "this is the paper's scale"
    return f"at the paper's scale: run {paper_run}, judged apart" if paper_run else "at the paper's scale: not run"
