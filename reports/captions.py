"""What a figure says of itself: its heading, and the caption that tells how to read it and where it comes from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from meanflow_core.components import TRUE_ERROR_POINTS
from reports.frames import Reading, Run
from reports.versions import Version
from reports.words import NAMES, TRUE_ERRORS, common_words, component_words, family_of
from studies.schema import ResolvedStudy


def heading(study: ResolvedStudy, readings: Sequence[Reading], version: Version, variant: str | None) -> str:
    """Study, variant, which metric if it is not the figure's own, scale."""
    said = f" (variant {variant})" if variant else ""
    if version.kind == "truth":
        said += f". Truth version: {common_words(readings)}"
    elif version.kind == "other":
        said += f". By another metric: {common_words(readings)}"
    return f"{(study.heading or study.title).rstrip('.')}{said}. Scale {study.scale}: {study.scale_text.rstrip('.')}."


def paper_words(study: ResolvedStudy) -> str:
    """Where the study stands in the paper: ``Fig. 2, Sec. 4.1, App. A``."""
    ref = study.paper
    parts = [f"Fig. {n}" for n in ref.figures] + [f"Table {n}" for n in ref.tables]
    parts += [f"Sec. {ref.section}"] if ref.section else []
    parts += [f"App. {ref.appendix}"] if ref.appendix else []
    return ", ".join(parts)


def seeds_words(rows: pd.DataFrame, by: Sequence[str], what: str) -> str:
    """How many seeds stand behind every mean: ``12 seeds behind every point``."""
    counts = rows.groupby(list(by))["value"].count()
    low, high, planned = int(counts.min()), int(counts.max()), rows["seed"].nunique()
    if low == high == planned:
        return f"{planned} seed{'s' if planned > 1 else ''} behind every {what}"
    return f"{low} to {high} of {planned} seeds a {what}; each mean is over the seeds measured there"


def measured_words(readings: Sequence[Reading]) -> str:
    """What was measured, how often and on which weights."""
    first = readings[0]
    weights = "EMA" if first.weights == "ema" else first.weights
    family = family_of(first.metric)[0]
    drawn = "points" if family in NAMES else "samples"
    number = min(first.samples, TRUE_ERROR_POINTS) if family in TRUE_ERRORS else first.samples
    return f"Measured: {common_words(readings)}, {number} {drawn}, {weights} weights."


def controls_words(study: ResolvedStudy, arms: Collection[str]) -> str:
    """What the controls drawn are."""
    return " ".join(
        f"Control '{name}' (ours, not the paper's): {' '.join(control.text.split()).rstrip('.')}."
        for name, control in study.controls.items()
        if name in arms
    )


def floor_words(reading: Reading) -> str:
    """What the dotted line is, if there is one."""
    if reading.floor is None:
        return ""
    return f"Dotted: the floor, {reading.floor:.3g}, which as many samples of the data's own law score."


def network_words(study: ResolvedStudy) -> str:
    """The network, or what it depends on where the arms have several."""
    varied = [name for name, values in study.settings.items() if any("network" in given for given in values.values())]
    return f"by {' and '.join(varied)}" if varied else component_words(study.dynamics.get("network"))


def caption(study: ResolvedStudy, readings: Sequence[Reading], run: Run, reading_it: Sequence[str]) -> str:
    """Where the figure stands in the paper, what was trained and measured, how to read it, which run it is."""
    dynamics, paper = study.dynamics, paper_words(study)
    said = [
        f"After {paper} of the paper." if paper else "",
        f"Data: {component_words(dynamics.get('data'))}; network: {network_words(study)}; "
        f"batch {dynamics.get('batch_size', 256)}.",
        measured_words(readings),
        *reading_it,
        f"Run {run.run} of {str(run.created)[:10]}, configuration {run.config_hash[:8]}.",
    ]
    return " ".join(filter(None, said))
