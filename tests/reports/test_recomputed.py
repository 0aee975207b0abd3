"""scripts/recompute_verdicts.py against the verdicts of reports, two implementations of one rule."""

from __future__ import annotations

import ast
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.claims import judge
from reports.committed import declared_claims
from reports.verdicts import RULE
from results.committed import tidy_rows
from scripts import recompute_verdicts
from scripts.recompute_verdicts import holm, p_sign_flip, published
from studies.arms import Arm, Point
from studies.loader import load_source, resolve
from studies.schema import ResolvedStudy

from .synthetic import FakeRun, measured

NOW = "2026-12-01T00:00:00+00:00"
TINY = Path(__file__).parents[1] / "assets" / "tiny.yaml"
PIXEL = {"metric": {"name": "frechet", "features": "pixel"}, "samples": 100, "every_epochs": 2}
KID = {**PIXEL, "metric": {"name": "kid", "features": "pixel"}}  # which can be negative
CLAIMS: list[dict[str, Any]] = [
    {"test": "trend", "over": "v_epochs", "direction": "decreasing"},
    {"test": "trend", "over": "v_epochs", "direction": "increasing", "summary": "average", "panel": "right"},
    {"test": "trend", "over": "v_epochs", "direction": "decreasing", "stage": "v_pretrain"},  # two levels
    {"test": "trend", "over": "v_epochs", "direction": "decreasing", "metric": "kid_pixel"},
    {"test": "difference", "arms": ["v4", "v0"], "direction": "decreasing"},
    {"test": "difference", "arms": ["v2", "right/v2"], "direction": "increasing"},
    {"test": "difference", "arms": ["v4", "v0"], "direction": "decreasing", "summary": "rises", "panel": "right"},
    {"test": "difference", "arms": ["v4", "joint"], "direction": "increasing", "panel": "right", "alpha": 0.2},
    {"test": "difference", "arms": ["v0", "joint"], "direction": "increasing", "panel": "right", "summary": "mean",
     "window": [3, 7]},
    {"test": "difference", "arms": ["v0", "v2"], "direction": "increasing", "summary": "mean", "window": [3, 11]},
    {"test": "difference", "arms": ["v0", "v0"], "direction": "increasing"},  # nothing varies
    {"test": "equivalence", "arms": ["v2", "v4"], "margin": 0.2},
    {"test": "equivalence", "arms": ["v0", "joint"], "margin": 0.02, "panel": "right", "metric": "kid_pixel"},
    {"test": "speedup", "arms": ["v0", "joint"], "panel": "right"},
    {"test": "speedup", "arms": ["v4", "v0"], "panel": "left"},  # not equally long
]  # fmt: skip


def tiny(seeds: int) -> ResolvedStudy:
    """The tiny study with claims of every kind, as if its numbers meant something."""
    study = resolve(load_source(str(TINY)), "cpu", (), range(seeds))
    claims = [{"panel": "left", **claim, "id": f"c{i}", "text": "t", "where": "w"} for i, claim in enumerate(CLAIMS)]
    given = {**study.model_dump(mode="json"), "measure": [PIXEL, KID], "claims": claims, "meaningless": False}
    return ResolvedStudy.model_validate(given)


def value(arm: Arm, point: Point, size: float) -> float:
    """Falls over epochs; an effect of each arm, and skewed noise, half of it the seed's. One point is no number."""
    effect = size * np.random.default_rng([*arm.name.encode(), *arm.panel.encode()]).normal()
    common = np.random.default_rng([arm.seed, 3]).exponential()
    own = np.random.default_rng(int(point.evaluation, 16)).exponential()
    found = float(np.exp(effect - 0.15 * point.epoch + 0.1 * (common + own)))
    if (arm.name, arm.seed, point.epoch) == ("v4", 1, 4):
        return float("nan")
    return found - 0.3 if point.protocol.metric_label == "kid_pixel" else found


def test_the_script_finds_what_reports_find() -> None:
    assert recompute_verdicts.RULE == RULE
    seen: set[tuple[str, str]] = set()
    for seeds, size in ((5, 0.1), (9, 0.3)):
        study = tiny(seeds)
        frame, protocols = measured(study, partial(value, size=size))
        rows = tidy_rows(frame, protocols, set(frame["evaluation"]))
        found = iter(recompute_verdicts.judge(declared_claims(study, frame, protocols), rows, meaningless=False))
        for verdict in judge(study, frame, protocols, run=FakeRun(), time=NOW):
            for outcome in verdict.outcomes:
                one = next(found)
                where = f"{verdict.claim} by {outcome.metric}, {seeds} seeds: {outcome}, {one}"
                assert (one.claim, one.role, one.metric) == (verdict.claim, outcome.role, outcome.metric), where
                assert (one.verdict, one.n) == (outcome.verdict, outcome.n), where
                for name in ("p_holm", "p_sign_flip"):
                    assert getattr(one, name) == pytest.approx(getattr(outcome, name), rel=1e-9), where
                seen.add((verdict.test, outcome.verdict))
        assert next(found, None) is None
    tests = {"trend", "difference", "equivalence", "speedup"}
    assert {test for test, judged in seen if judged != "undecided"} == tests, seen
    assert {judged for _, judged in seen} == {"supported", "contradicted", "undecided"}


def test_it_imports_nothing_of_the_project() -> None:
    tree = ast.parse(Path(recompute_verdicts.__file__).read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]
    assert {name.split(".")[0] for name in names} <= {"numpy", "scipy", *sys.stdlib_module_names}


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_sign_flips() -> None:
    assert p_sign_flip(np.arange(1.0, 7.0)) == 2 / 64
    assert p_sign_flip(np.array([1.0, -1, 1, -1, 1, -1])) == 1
    assert p_sign_flip(np.arange(1.0, 6.0)) is None


def test_what_is_published(tmp_path: Path) -> None:
    page = tmp_path / "s_cpu.md"
    page.write_text(
        "### better: SUPPORTED at scale cpu\n\n> text\n\n| metric | role | verdict | p |\n| --- | --- | --- | --- |\n"
        "| frechet_pixel | primary | supported | 1 |\n| v_error | truth | contradicted | 1 |\n"
    )
    assert published(page) == {
        ("better", "primary", "frechet_pixel"): "supported",
        ("better", "truth", "v_error"): "contradicted",
    }
    assert published(tmp_path / "other.md") == {}
