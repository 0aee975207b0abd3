"""What a figure says in words: labels with units, what is missing, the caption, the assumptions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from reports.frames import Reading, Run
from studies.schema import ResolvedStudy

DISTANCES = {"frechet": "Fréchet distance", "kid": "kernel distance (KID)"}
FEATURES = {
    "pixel": "pixel space",
    "digits_cnn": "digits-CNN features",
    "inception": "Inception features (FID)",
}


def metric_words(reading: Reading) -> str:
    """The axis label of a metric: ``1-NFE Fréchet distance, pixel space``."""
    name, _, features = reading.metric.partition("_")
    if name in DISTANCES:
        steps = f"{reading.nfe}-NFE" + ("" if reading.solver == "jump" else f" ({reading.solver})")
        return f"{steps} {DISTANCES[name]}, {FEATURES.get(features, features)}"
    error = re.fullmatch(r"([uv])_error(?:\[(.+),(.+)\])?", reading.metric)
    if error is None:
        return reading.metric
    field, lo, hi = error.groups()
    gap = f", Δt = {lo}" if lo == hi else f", Δt from {lo} to {hi}"
    return f"relative error of {field}" + (gap if lo else "")


def component_words(raw: Any) -> str:
    """A component as written in a study: ``mlp (width 128, depth 3)``."""
    if not isinstance(raw, dict):
        return str(raw)
    rest = ", ".join(f"{k} {v}" for k, v in raw.items() if k != "name")
    return f"{raw.get('name')}" + (f" ({rest})" if rest else "")


def ranges(numbers: Sequence[int]) -> str:
    """``0–3, 7`` for 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for n in sorted(set(numbers)):
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in parts)


def missing_arms(rows: pd.DataFrame) -> list[str]:
    """One phrase an arm that lacks points: ``top v20: 12 points (seeds 3, 5–7)``."""
    lacking = rows[rows["value"].isna()]
    said = []
    for (panel, arm), group in lacking.groupby(["panel", "arm"], sort=False):
        some = f"{len(group)} point" + ("s" if len(group) > 1 else "")
        seeds = [int(seed) for seed in group["seed"].unique()]
        said.append(f"{panel} {arm}: {some} (seed{'s' if len(seeds) > 1 else ''} {ranges(seeds)})")
    return said


def missing_words(rows: pd.DataFrame, limit: int = 8) -> str:
    """``17 of 240 points not measured yet: …``; empty where all are measured."""
    lacking, said = int(rows["value"].isna().sum()), missing_arms(rows)
    if not lacking:
        return ""
    more = f"; and {len(said) - limit} more arms" if len(said) > limit else ""
    return f"{lacking} of {len(rows)} points not measured yet: {'; '.join(said[:limit])}{more}."


def paper_words(study: ResolvedStudy) -> str:
    """Where the study stands in the paper: ``Fig. 2, Sec. 4.1, App. A``."""
    ref = study.paper
    parts = [f"Fig. {n}" for n in ref.figures] + [f"Table {n}" for n in ref.tables]
    parts += [f"Sec. {ref.section}"] if ref.section else []
    parts += [f"App. {ref.appendix}"] if ref.appendix else []
    return ", ".join(parts)


def title(study: ResolvedStudy, variant: str | None) -> str:
    """The heading: study, scale, variant."""
    said = f" (variant {variant})" if variant else ""
    return f"{study.title}{said}. Scale {study.scale}: {study.scale_text.rstrip('.')}."


def seeds_words(rows: pd.DataFrame) -> str:
    """How many seeds stand behind every mean."""
    counts = rows.groupby(["panel", "arm", "stage", "epoch"])["value"].count()
    low, high = int(counts.min()), int(counts.max())
    planned = rows["seed"].nunique()
    if low == high == planned:
        return f"{planned} seed{'s' if planned > 1 else ''} at every point"
    return f"{low} to {high} of {planned} seeds a point; each mean is over the seeds measured there"


def caption(study: ResolvedStudy, rows: pd.DataFrame, reading: Reading, run: Run, stage: str, *, log: bool) -> str:
    """How the figure is to be read and where its numbers come from."""
    dynamics = study.dynamics
    paper = paper_words(study)
    lines = "One seed: no interval can be given. "
    if rows["seed"].nunique() > 1:
        lines = (
            f"Strong lines: mean, {seeds_words(rows)}; thin lines: single seeds; bands: pointwise Student-t "
            "95 % interval of the mean. Bands show each arm's spread over seeds; claims are tested on "
            "differences paired by seed. "
        )
    lower = "Lower row: the ends of the curves on a linear scale. " if log else ""
    controls = "".join(
        f"Control '{name}' (ours, not the paper's): {control.text.strip().rstrip('.')}. "
        for name, control in study.controls.items()
        if (rows["arm"][rows["control"].astype(bool)] == name).any()
    )
    return (
        f"{f'After {paper} of the paper. ' if paper else ''}"
        f"Data: {component_words(dynamics.get('data'))}; "
        f"network: {component_words(dynamics.get('network'))}; "
        f"batch {dynamics.get('batch_size', 256)}. Measured: {metric_words(reading)}, {reading.samples} "
        f"samples, {'EMA' if reading.weights == 'ema' else reading.weights} weights. {lines}"
        f"Solid: {stage}, from the end of the stage before; dashed: earlier stages. {lower}{controls}"
        f"Run {run.run} of {str(run.created)[:10]}, configuration {run.config_hash[:8]}."
    )
