"""What is committed of a study's results (`results.committed`), with its claims as they are tested."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.claims import claim_hash, roles
from reports.errors import ReportError, Unsuited
from reports.frames import Protocols, Reading, last_stages, points, readings
from reports.ledger import read_verdicts
from reports.stored import resolved_config, whole_arms, with_floors
from reports.summaries import arms_of
from reports.verdicts import HEAD
from results.committed import Committed, tidy
from studies.claim import Claim
from studies.schema import ResolvedStudy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from results.layout import Home
    from results.queries import RunRecord

FLAGGED = ("planned_seeds", "config_hash")  # of a verdict's details: what is flagged where it was changed


def committed_from(
    engine: Engine, home: Home, study: str, scale: str, here: Mapping[str, Any] | None = None
) -> Committed:
    """What is to be committed of the latest plain run of a study at a scale; ``here`` as in `results.committed.tidy`.

    Raises: ReportError where its configuration cannot be read; StoreError where there is no such run.
    """
    return tidy(engine, study, scale, partial(with_floors, home), _claimed, here)


def _claimed(run: RunRecord, frame: pd.DataFrame, protocols: Protocols) -> list[dict[str, Any]]:
    study = resolved_config(run)
    return declared_claims(study, whole_arms(study, frame), protocols)


def declared_claims(study: ResolvedStudy, frame: pd.DataFrame, protocols: Protocols) -> list[dict[str, Any]]:
    """Each claim with the readings under which it is judged, and the arms that each compares
    (`results.formats.CommittedClaim`): all that a test needs besides the values."""
    found = {reading: points(frame, reading) for reading in readings(study, frame, protocols)}
    ends: dict[Any, str] = last_stages(frame).to_dict()
    kept = ("id", "panel", "test", "direction", "summary", "window", "margin", "alpha")
    claims = []
    for claim in study.claims:
        own = [reading for reading, rows in found.items() if (rows["panel"] == claim.panel).any()] or list(found)
        try:
            told = [_reading(claim, role, one, found[one], ends) for role, one in roles(study, claim, own)]
        except ReportError as error:
            told = [{"role": "primary", "problem": str(error)}]
        dumped = claim.model_dump(mode="json", include=set(kept))
        claims.append({**{name: dumped[name] for name in kept}, "hash": claim_hash(claim), "readings": told})
    return claims


def _reading(claim: Claim, role: str, reading: Reading, rows: pd.DataFrame, ends: Mapping[Any, str]) -> dict[str, Any]:
    about = {"role": role, **{name: getattr(reading, name) for name in ("metric", "nfe", "solver", "protocol")}}
    try:
        compared = arms_of(claim, rows[rows["panel"] == claim.panel])
    except Unsuited as error:
        return {**about, "problem": str(error)}
    return {**about, "arms": [_arm(claim, arm, level, ends) for arm, level in compared]}


def _arm(claim: Claim, arm: str, level: float | None, ends: Mapping[Any, str]) -> dict[str, Any]:
    panel, name = claim.place(arm)
    return {"panel": panel, "arm": name, "stage": claim.stage or ends.get((panel, name)), "level": level}


def seen(home: Home, whose: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
    """The verdicts that were seen in a home of some studies at their scales: what `reports.verdicts.flags` asks for."""
    lines = [line for line in read_verdicts(home.verdicts) if line.get("variant") is None]
    return [_head(line) for line in lines if (line["study"], line["scale"]) in whose]


def _head(line: Mapping[str, Any]) -> dict[str, Any]:
    details = {name: line["details"][name] for name in FLAGGED if name in line.get("details", {})}
    return {**{name: line[name] for name in (*HEAD, "time") if name in line}, "details": details}
