"""scripts/recompute_verdicts.py against the verdicts of reports, two implementations of one rule."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reports import verdicts
from reports.claims import judge
from reports.committed import declared_claims
from results.committed import tidy_rows
from scripts import recompute_verdicts
from scripts.recompute_verdicts import Found, holm, p_sign_flip, published
from studies.arms import Arm, Point

from .synthetic import FakeRun, measured, study

NOW = "2026-12-01T00:00:00+00:00"
CASES = [
    ("obs_v_then_u", "cpu", 6),
    ("obs_gap_restriction", "truth", 7),
    ("obs_task_affinity", "truth", 5),
    ("convergence", "cpu", 6),
    ("k_schedule", "cpu", 8),
    ("multistep_v", "cpu", 3),
]
same_rule = pytest.mark.skipif(
    getattr(verdicts, "RULE", 1) != recompute_verdicts.RULE, reason="the script is for rule 2 of docs/reports.md"
)


def value(arm: Arm, point: Point) -> float:
    """Falls over epochs, with an effect of the arm and of each metric; skewed noise, half of it the seed's. Some of it is
    negative, or no number, where metrics are so."""
    label = point.protocol.metric_label
    effect = np.random.default_rng([*arm.name.encode(), len(label)]).normal()
    common = np.random.default_rng([arm.seed, 3]).exponential()
    own = np.random.default_rng(int(point.evaluation, 16)).exponential()
    size = float(np.exp(-0.02 * point.epoch + 0.15 * effect + 0.08 * (common + own)))
    if label.startswith(("kid", "task_affinity")):
        size -= 1.0
    return float("nan") if arm.seed == 1 and effect > 1.5 else size


def both(name: str, scale: str, seeds: int) -> list[tuple[verdicts.Verdict, verdicts.Outcome, Found]]:
    """The outcomes of reports, each beside what the script finds from the rows of a CSV."""
    resolved = study(scale, range(seeds), name)
    frame, protocols = measured(resolved, value)
    rows = tidy_rows(frame, protocols, set(frame["evaluation"]))
    declared = declared_claims(resolved, frame, protocols)
    found = recompute_verdicts.judge(declared, rows, resolved.meaningless)
    told = [
        (verdict, outcome)
        for verdict in judge(resolved, frame, protocols, run=FakeRun(), time=NOW)
        for outcome in verdict.outcomes
    ]
    return [(verdict, outcome, one) for (verdict, outcome), one in zip(told, found, strict=True)]


@same_rule
def test_the_script_finds_what_reports_find() -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for case in CASES:
        for verdict, outcome, found in both(*case):
            where = f"{case[0]}: {verdict.claim} by {outcome.metric}"
            assert (found.claim, found.role, found.metric) == (verdict.claim, outcome.role, outcome.metric)
            assert (found.verdict, found.n) == (outcome.verdict, outcome.n), f"{where}: {outcome.reason}; {found}"
            assert found.p_holm == pytest.approx(outcome.p_holm, rel=1e-9), where
            if outcome.p_sign_flip is not None and outcome.n <= recompute_verdicts.MOST_FLIPPED:
                assert found.p_sign_flip == pytest.approx(outcome.p_sign_flip, abs=1e-9), where
            seen[verdict.test, outcome.verdict] += 1
    for test in ("trend", "difference", "equivalence", "speedup"):
        assert {"supported", "contradicted"} & {judged for kind, judged in seen if kind == test}, (test, seen)


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
        "### better: SUPPORTED at scale cpu\n\n> text\n\n| metric | role | verdict | effect |\n| --- | --- | --- | --- |\n"
        "| frechet_pixel | primary | supported | 1 |\n| v_error | truth | contradicted | 1 |\n"
    )
    assert published(page) == {
        ("better", "primary", "frechet_pixel"): "supported",
        ("better", "truth", "v_error"): "contradicted",
    }
    assert published(tmp_path / "other.md") == {}
