"""`study sweep --search`: rounds, the record, the ranking; stopped and run again; what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest

from tests.homes import Command, attempts, study, succeeds, tensors, unfinished, wait_for

pytestmark = pytest.mark.slow

SWEEP = Path(__file__).parent.parent / "assets" / "sweep.yaml"
SEARCH = ("--search", "asha", "--samples", "3", "--as", "found", "--seeds", "0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("search")
    out = succeeds("sweep", SWEEP, *SEARCH, "--out", place / "report", home=place / "home")
    assert "search by asha in panel wide: up to 3 points, compared by frechet_pixel at epochs 2, 4" in out
    assert "Not ranked, since only values of the same epoch are compared: tuned_lr0.0005 (stopped at epoch 2)." in out
    return place / "home"


def rows(home: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(succeeds("results", "--study", SWEEP, "--as", "found", home=home).splitlines()))


def test_a_search_trains_what_it_does_not_stop_and_ranks_that(home: Path) -> None:
    with (home.parent / "report" / "tiny_sweep_cpu_found_ranking.csv").open(encoding="utf-8") as file:
        ranked = {row["arm"]: float(row["mean"]) for row in csv.DictReader(file) if row["rank"]}
    measured = {(row["arm"], row["epoch"]): float(row["value"]) for row in rows(home)}
    assert set(ranked) == {"tuned_lr0.002", "tuned_lr0.008"}
    assert ranked == pytest.approx({arm: measured[arm, "4.0"] for arm in ranked})
    early = {
        arm: value for (arm, epoch), value in measured.items() if epoch == "2.0" and arm in {*ranked, "tuned_lr0.0005"}
    }
    assert max(early, key=early.__getitem__) == "tuned_lr0.0005" and ("tuned_lr0.0005", "4.0") not in measured
    assert {arm for arm, _ in measured} == {*early, "plain", "v_only_wide"}, "one panel, with what stands beside"


def test_the_record_says_what_was_drawn(home: Path) -> None:
    (run,) = (json.loads(path.read_text()) for path in home.glob("runs/*/run.json"))
    sweep = run["config"]["sweep"]
    assert (sweep["strategy"], sweep["points"], run["variant"]) == ("asha", 3, "found")
    assert {(one["point"]["lr"], one["state"], one["until_epoch"]) for one in sweep["drawn"]} == {
        (0.002, "done", None), (0.008, "done", None), (0.0005, "stopped", 2),
    }  # fmt: skip


def test_again_it_costs_nothing_and_the_report_says_the_same(home: Path, tmp_path: Path) -> None:
    before = attempts(home)
    out = succeeds("sweep", SWEEP, *SEARCH, "--out", tmp_path, home=home)
    assert "nothing to compute" in out and "trained" not in out and attempts(home) == before
    said = succeeds("report", SWEEP, "--as", "found", "--out", tmp_path, home=home)
    assert "tuned_lr0.0005 (stopped at epoch 2)" in said and "no value at its end" not in said
    claims = json.loads(succeeds("claims", SWEEP, "--as", "found", "--json", home=home))
    assert all(claim["n"] in (0, 1) for claim in claims["claims"])


def test_stopped_and_run_again_it_ends_the_same(home: Path, tmp_path: Path) -> None:
    own = tmp_path / "home"
    command = Command("sweep", SWEEP, *SEARCH, "--backend", "inline", "--out", tmp_path / "report", home=own)
    assert wait_for(lambda: bool(unfinished(own)))
    os.killpg(command.process.pid, signal.SIGINT)
    status, output = command.wait()
    assert status == 130 and "Run the same command again" in output, output
    recorded = [json.loads(path.read_text())["config"]["sweep"]["drawn"] for path in own.glob("runs/*/run.json")]
    assert [len(drawn) for drawn in recorded] == [3] and recorded[0][0]["state"] == "active"
    succeeds("sweep", SWEEP, *SEARCH, "--out", tmp_path / "report", home=own)
    assert tensors(own).items() >= tensors(home).items()
    assert rows(own) == rows(home)


def test_a_trial_that_diverges_is_named_and_the_rest_is_ranked(tmp_path: Path) -> None:
    space = ("-o", "space.lr=[0.002, 1.0e+30]", "-o", "controls={}", "-o", "log_every_steps=1")
    options = ("--search", "asha", "--samples", "2", "--as", "wild", "--seeds", "0")
    done = study("sweep", SWEEP, *space, *options, "--out", tmp_path / "report", home=tmp_path / "home")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "tuned_lr1e+30 at epoch 2: failed" in done.stdout and "Diverged" in done.stdout
    assert "tuned_lr1e+30 (failed after epoch 0)" in done.stdout and "  1     tuned_lr0.002" in done.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((SWEEP, "--search", "asha", "--as", "x"), "needs --samples"),
        ((SWEEP, "--search", "asha", "--samples", "2"), "name them with --as NAME"),
        ((SWEEP, "--samples", "2"), "--samples 2 goes with --search"),
        ((SWEEP, "--panel", "wide"), "--panel wide goes with --search"),
        ((SWEEP, "--search", "asha", "--samples", "4", "--as", "x"), "--samples 4: 3 different points can be drawn"),
        ((SWEEP, "--search", "asha", "--samples", "2", "--as", "x", "--panel", "tall"), "available: wide, narrow"),
        (
            (SWEEP, "--search", "asha", "--samples", "2", "--as", "x", "-o", "measure.0.every_epochs=4"),
            "measured only at epoch 4, the end",
        ),
        (("obs_v_then_u", "--search", "asha", "--samples", "2", "--as", "x"), "'obs_v_then_u' has no sweep"),
        ((SWEEP, "--search", "asha", "--samples", "2", "--as", "x", "-o", "space.rl=[1]"), "nothing depends on it"),
        (
            (SWEEP, "--search", "asha", "--samples", "2", "--as", "x", "-o", "stages.0.epochs=$n",
             "-o", "space={n: [2, 4]}", "-o", "constants.n=4", "-o", "claims=[]"),
            "compares its points at the same epochs",
        ),
    ],
    ids=lambda value: None if isinstance(value, tuple) else value.replace(" ", "_"),
)  # fmt: skip
def test_a_bad_search_is_refused_before_anything_is_made(args: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = study("sweep", *args, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_random_is_an_ordinary_sweep_of_one_panel(home: Path, tmp_path: Path) -> None:
    options = ("--search", "random", "--samples", "2", "--as", "drawn", "--seeds", "0")
    out = succeeds("sweep", SWEEP, *options, "--panel", "wide", "--out", tmp_path, home=home)
    assert "search by" not in out and "Points of tiny_sweep" in out and "narrow" not in out
    (run,) = (r for p in home.glob("runs/*/run.json") if (r := json.loads(p.read_text()))["variant"] == "drawn")
    assert (run["config"]["sweep"]["strategy"], run["config"]["sweep"]["points"]) == ("random", 2)
