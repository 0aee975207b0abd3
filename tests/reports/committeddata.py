"""What is wrong with committed results, and with the verdicts published beside them."""

from __future__ import annotations

from pathlib import Path

from reports.build import build_claims
from reports.text import markdown
from results.committed import Committed, as_store
from results.layout import Home
from scripts import recompute_verdicts
from studies.arms import expand_seed
from studies.loader import load_source, resolve
from studies.schema import ResolvedStudy
from sweeps.runs import config_hash

EARLIER = "of an earlier configuration"


def problems(one: Committed, study: str) -> list[str]:
    """A phrase each; of an earlier configuration of the ``study`` (a name or file) only that is said."""
    now = config_hash(resolve(load_source(study), one.record.scale, (), None))
    if now != one.record.config_hash:
        return [f"{one.name} is {EARLIER} of the study"]
    return [] if keys(one) == declared_keys(one) else [f"{one.name}: this version gives its evaluations other keys"]


def verdict_problems(record: Path, claims: Path) -> list[str]:
    """The verdicts published in the folder ``claims`` that the script does not find in committed values."""
    lines = recompute_verdicts.report(record, claims, everything=False)
    return [line for line in lines if line and "PUBLISHED AS" in line]


def page_problems(one: Committed, data: Path, claims: Path) -> list[str]:
    """Whether the published page is another than `study claims --from DATA` prints."""
    page = claims / f"{one.name}.md"
    if not page.is_file() or page.read_text(encoding="utf-8").rstrip("\n") == published(one, data).rstrip("\n"):
        return []
    return [f"docs/claims/{page.name} is not what `study claims {one.record.study} --from ... --md` prints"]


def keys(one: Committed) -> set[tuple[str, str, str]]:
    """(panel, arm, key) of the first seed."""
    first = one.rows[0]["seed"]
    return {(row["panel"], row["arm"], row["evaluation"]) for row in one.rows if row["seed"] == first}


def declared_keys(one: Committed) -> set[tuple[str, str, str]]:
    """The same as this version makes them from the configuration."""
    study = ResolvedStudy.model_validate(one.record.config)
    arms = expand_seed(study, int(one.rows[0]["seed"]))
    return {(arm.panel, arm.name, point.evaluation) for arm in arms for point in arm.points}


def published(one: Committed, data: Path) -> str:
    """What `study claims --from DATA --md` prints."""
    engine = as_store([one])
    try:
        found = build_claims(engine, Home(data), study=one.record.study, scale=one.record.scale, record=False)
        return markdown(found.verdicts, found.flags, found.notes) + "\n"
    finally:
        engine.dispose()
