"""What was declared of a claim, and how its metrics agree."""

from __future__ import annotations

from collections.abc import Sequence

from meanflow_core.registry import non_defaults
from reports.verdicts import Outcome
from reports.words import DISTANCES, metric_name
from studies.claim import Claim

MEANINGLESS = "this scale is for checking that everything runs; its numbers mean nothing"
SUMMARIES = {"end": "value at the end", "average": "mean of the points", "rises": "sum of rises"}


def declared(claim: Claim, *, ratios: bool = True) -> str:
    """The claim's test in words; with ``ratios``, of what is compared as ratios (`reports.statistics.tested`)."""
    number = SUMMARIES.get(claim.summary, "mean")
    if claim.summary == "mean" and claim.window is not None:
        number = f"mean over epochs {claim.window[0]:g} to {claim.window[1]:g}"
    where = f"{number} of {claim.stage or 'the last stage'} (panel {claim.panel})"
    among = "".join(f", among arms with {name} {value}" for name, value in claim.among.items())
    if claim.judge is not None:
        options = "".join(f", {name} {value}" for name, value in non_defaults(claim.judge.params).items())
        arms = " and ".join(claim.arms) if claim.arms else f"all arms{among}"
        return f"{where} of {arms}; the user's own test {claim.judge.short}{options}, α = {claim.alpha:g}"
    if claim.arms is None or claim.test == "trend":
        return (
            f"{where}: {claim.direction} in {claim.over}{among}; Page's trend test over seeds, "
            f"confirmed by Student's t of the per-seed slopes{' of the logs' if ratios else ''}, α = {claim.alpha:g}"
        )
    a, b = claim.arms
    if claim.test == "equivalence":
        margin = claim.margin or 0
        size = f"{100 * margin:g} %"
        within = f"{a} / {b} between 1 / {1 + margin:g} and {1 + margin:g} (±{size})"
        if not ratios:
            within = f"{a} − {b} within ±{size} of the mean of {b}"
        what = "t tests of the log ratios" if ratios else "t tests"
        return f"{where}: {within}; two one-sided {what}, paired by seed, α = {claim.alpha:g}"
    if claim.test == "speedup":
        return (
            f"curve of {claim.stage or 'the last stage'} (panel {claim.panel}): {a} reaches the final value of {b} "
            f"sooner than {b} does; Student's t of log₂ of the speed-ups against 0, two-sided, α = {claim.alpha:g}"
        )
    side = "below" if claim.direction == "decreasing" else "above"
    what = "t of the log ratios" if ratios else "t"
    return f"{where}: {a} − {b} {side} 0; Student's {what}, paired by seed, two-sided, α = {claim.alpha:g}"


def implied(claim: Claim, outcomes: Sequence[Outcome]) -> str:
    """What the claim says its verdict implies, and by which metrics not; nothing where there is no verdict (the
    numbers mean nothing, too few seeds) or only a provisional one."""
    primary = outcomes[0]
    sentence = " ".join(claim.implies.get(primary.verdict, "").split())
    if not sentence or primary.reason == MEANINGLESS or primary.n < 2 or primary.missing_seeds:
        return ""
    others = ", ".join(o.metric for o in dissenting(outcomes))
    return f"by the primary metric alone (not by {others}): {sentence}" if others else sentence


def dissenting(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes by other metrics, the truth among them, whose verdict is not that by the primary one."""
    return [o for o in outcomes[1:] if o.n >= 2 and o.verdict != outcomes[0].verdict]


def compared_words(outcomes: Sequence[Outcome]) -> str:
    """Whether the truth agrees with the primary metric, and where secondary metrics say other than it."""
    primary = outcomes[0]
    if primary.reason == MEANINGLESS:
        return ""
    truth = next((o for o in outcomes if o.role == "truth"), None)
    said = [truth_words(primary, truth)] if truth else []
    other: dict[str, list[str]] = {}
    for o in dissenting(outcomes):
        if o.role == "secondary":
            other.setdefault(o.verdict, []).append(o.metric)
    if other:
        listed = "; ".join(f"{verdict} by {', '.join(metrics)}" for verdict, metrics in other.items())
        said.append(f"The metrics disagree: {primary.verdict} by {primary.metric} (primary), but {listed} (secondary).")
    return " ".join(said)


def truth_words(primary: Outcome, truth: Outcome) -> str:
    """How the verdict by the truth stands to that by the primary metric."""
    if truth.n < 2:
        return f"By the truth ({truth.metric}) there is no verdict yet: {truth.reason}."
    if truth.verdict == primary.verdict:
        return "The truth agrees." if truth.verdict != "undecided" else "By the truth it is undecided as well."
    what = "the distance" if primary.metric.partition("_")[0] in DISTANCES else f"{primary.metric}"
    if truth.verdict == "undecided":
        end = f"the truth does not decide what {what} does"
    elif primary.verdict == "undecided":
        end = f"the truth decides what {what} does not"
    else:
        end = f"{what} and the truth disagree"
    name = f"{metric_name(truth.metric)} ({truth.metric})"
    return f"Judged by the {name} the claim is {truth.verdict}, by {primary.metric} {primary.verdict}: {end}."
