"""Metrics, components, ranges and what is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from reports.frames import Reading

DISTANCES = {"frechet": "Fréchet distance", "kid": "kernel distance (KID)"}
FEATURES = {
    "pixel": "pixel space",
    "digits_cnn": "digits-CNN features",
    "coarse": "block means",
    "inception": "Inception features (FID)",
}
NAMES = {
    "v_error": "true error of v",
    "u_error": "true error of u",
    "task_affinity": "task affinity of the v- and u-loss (cosine)",
    "task_affinity_per_sample": "task affinity of the v- and u-loss, point by point (cosine)",
    "task_affinity_exact": "task affinity with the exact v and u as targets (cosine)",
    "task_affinity_ceiling": "ceiling of the task affinity (cosine)",
}

TRUE_ERRORS = ("v_error", "u_error")
SIGNED = ("task_affinity", "kid")  # cosines, and an estimate without bias, which can be negative


def signed(metric: str) -> bool:
    """Whether a metric can be 0 or negative by its nature, so that its values have no meaningful ratio."""
    return metric.startswith(SIGNED)


def metric_words(reading: Reading) -> str:
    """The axis label of a metric: ``1-NFE Fréchet distance, pixel space``."""
    if reading.metric.partition("_")[0] in DISTANCES:
        steps = f"{reading.nfe}-NFE" + ("" if reading.solver == "jump" else f" ({reading.solver})")
        return f"{steps} {metric_name(reading.metric)}"
    relative = family_of(reading.metric)[0] in TRUE_ERRORS
    return metric_name(reading.metric) + (" (relative)" if relative else "")


def metric_name(metric: str) -> str:
    """A metric's label in words: ``Fréchet distance, pixel space``, ``true error of u, Δt from 0.1 to 0.3``."""
    family, gap = family_of(metric)
    name, _, features = family.partition("_")
    if name in DISTANCES:
        return f"{DISTANCES[name]}, {FEATURES.get(features, features)}"
    if family not in NAMES:
        return metric
    lo, _, hi = gap.partition(",")
    of = f", Δt = {lo}" if lo == hi else f", Δt from {lo} to {hi}"
    return NAMES[family] + (of if gap else "")


def family_of(metric: str) -> tuple[str, str]:
    """``u_error[0.1,0.3]`` → (``u_error``, ``0.1,0.3``)."""
    found = re.fullmatch(r"(.*)\[(.*)\]", metric)
    return (found[1], found[2]) if found else (metric, "")


def common_words(readings: Sequence[Reading]) -> str:
    """The axis label of several metrics, in their order, without what they differ in."""
    said = dict.fromkeys(metric_words(replace(r, metric=family_of(r.metric)[0])) for r in readings)
    return metric_words(readings[0]) if len(readings) == 1 else " / ".join(said)


def component_words(raw: Any) -> str:
    """A component as written in a study: ``mlp (width 128, depth 3)``."""
    if not isinstance(raw, dict):
        return str(raw)
    rest = ", ".join(f"{k} {v}" for k, v in raw.items() if k != "name")
    return str(raw.get("name")).partition("@")[0] + (f" ({rest})" if rest else "")


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
    """``17 of 240 points not measured: …``; empty where all are measured."""
    lacking, said = int(rows["value"].isna().sum()), missing_arms(rows)
    if not lacking:
        return ""
    more = f"; and {len(said) - limit} more arms" if len(said) > limit else ""
    return f"{lacking} of {len(rows)} points not measured: {'; '.join(said[:limit])}{more}."
