"""What is wrong with committed results, and with the verdicts published beside them."""

from __future__ import annotations

from pathlib import Path

from reports.build import build_claims
from reports.text import markdown
from results.committed import Committed, as_store
from results.layout import Home
from studies.arms import expand_seed
from studies.loader import load_source, resolve
from studies.schema import ResolvedStudy
from sweeps.runs import config_hash


def problems(one: Committed, claims: Path, study: str) -> list[str]:
    """A phrase each. That it is of an earlier configuration stands first, and its keys are then not looked at.

    Args:
        claims: the folder of published verdicts.
        study: the name or file of the study.
    """
    record = one.record
    said = []
    now = config_hash(resolve(load_source(study), record.scale, (), None))
    if now != record.config_hash:
        said.append(f"{one.name} is of an earlier configuration of the study")
    elif keys(one) != declared_keys(one):
        said.append(f"{one.name}: this version gives its evaluations other keys")
    page = claims / f"{one.name}.md"
    if page.is_file() and page.read_text(encoding="utf-8").rstrip("\n") != published(one).rstrip("\n"):
        said.append(f"docs/claims/{page.name} is not what `study claims --from` prints")
    return said


def keys(one: Committed) -> set[tuple[str, str, str]]:
    """(panel, arm, key) of the first seed."""
    first = one.rows[0]["seed"]
    return {(row["panel"], row["arm"], row["evaluation"]) for row in one.rows if row["seed"] == first}


def declared_keys(one: Committed) -> set[tuple[str, str, str]]:
    """The same as this version makes them from the configuration."""
    study = ResolvedStudy.model_validate(one.record.config)
    arms = expand_seed(study, int(one.rows[0]["seed"]))
    return {(arm.panel, arm.name, point.evaluation) for arm in arms for point in arm.points}


def published(one: Committed) -> str:
    """What `study claims --from DATA --md` prints."""
    engine = as_store([one])
    try:
        found = build_claims(engine, Home(Path("data")), study=one.record.study, scale=one.record.scale, record=False)
        return markdown(found.verdicts, found.flags) + "\n"
    finally:
        engine.dispose()
