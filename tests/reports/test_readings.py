"""Claims under every reading of what the paper leaves open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports.build import build_claims
from reports.claims import claim_hash
from reports.text import plain
from reports.verdicts import DEPENDS, Verdict
from results.ingest import ingest
from results.layout import Home
from results.store import open_store
from studies.arms import Arm, Point
from studies.schema import ResolvedStudy

from .stored import run_of, write_home
from .synthetic import Case, gap_restriction, measured, noisy, study
from .test_claims import judged


def only(resolved: ResolvedStudy, *claims: str) -> ResolvedStudy:
    return resolved.model_copy(update={"claims": tuple(one for one in resolved.claims if one.id in claims)})


def readings_case(clamped: float) -> Case:
    """Figure 4 under three readings: small gaps improve v where r stays negative, and where r is clamped as said."""
    resolved = only(study("cpu", range(3), "readings_gaps"), "small_gaps_improve_v")

    def value(arm: Arm, p: Point) -> float:
        size = 1.0
        if p.stage == "u_finetune" and arm.attributes["start"] == "v-pretrained":
            size = clamped if arm.attributes["negative_r"] == "clamp" else 0.8
        return 3.0 * size * noisy(arm, p, 0.03)

    return resolved, *measured(resolved, value)


@pytest.mark.parametrize(
    ("clamped", "judgement", "words"),
    [
        (0.8, "supported", "supported under r stays negative, r is clamped at 0, t is drawn again"),
        (1.2, DEPENDS, "supported under r stays negative, t is drawn again; contradicted under r is clamped at 0"),
        (1.0, DEPENDS, "supported under r stays negative, t is drawn again; undecided under r is clamped at 0"),
    ],
)
def test_a_claim_is_decided_where_all_readings_agree(clamped: float, judgement: str, words: str) -> None:
    verdict: Verdict = judged(*readings_case(clamped))["small_gaps_improve_v"]
    assert verdict.judgement == judgement and verdict.to_json()["verdict"] == judgement
    assert verdict.readings_words == words and f"By what the paper leaves open: {words}." in plain([verdict], [])
    assert [o.under for o in verdict.readings] == ["r is clamped at 0", "t is drawn again"]
    assert {o.compared for o in verdict.readings} == {
        ("pretrained_01_03_clamp", "v_pretrained"),
        ("pretrained_01_03_resample_t", "v_pretrained"),
    }
    assert verdict.primary.role == "primary" and all(o.role == "reading" for o in verdict.readings)
    assert plain([verdict], []).splitlines()[0] == f"small_gaps_improve_v: {judgement.upper()} at scale cpu"
    json.dumps(verdict.to_json())


def test_readings_move_no_hash() -> None:
    claim = {one.id: one for one in study("cpu", [0], "obs_gap_restriction").claims}["small_gaps_improve_v"]
    other = {one.id: one for one in study("cpu", [0], "readings_gaps").claims}["small_gaps_improve_v"]
    same = claim.model_copy(update={"of": None, "reading": "", "readings": {}})
    assert claim_hash(claim) == claim_hash(same) != claim_hash(other)


def test_a_claim_made_under_one_reading_takes_the_verdict_of_all(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    resolved, *rest = gap_restriction(range(3), "cpu")
    write_home(home, (only(resolved, "small_gaps_improve_v", "small_gaps_beat_more_v"), *rest))
    engine = open_store(home.store_url)
    ingest(engine, home)
    alone = {v.claim: v for v in build_claims(engine, home, study="obs_gap_restriction", record=False).verdicts}
    assert alone["small_gaps_improve_v"].judgement == "supported"
    every = readings_case(1.2)
    write_home(home, every, run_of(every, run="20261121T120501-4d5e6f"))
    ingest(engine, home)
    made = {v.claim: v for v in build_claims(engine, home, study="obs_gap_restriction", record=False).verdicts}
    settled = made["small_gaps_improve_v"]
    assert settled.primary.verdict == "supported" and settled.judgement == DEPENDS == settled.to_json()["verdict"]
    assert "(readings_gaps/small_gaps_improve_v): supported under r stays negative" in plain([settled], [])
    assert made["small_gaps_beat_more_v"].settled == ""
