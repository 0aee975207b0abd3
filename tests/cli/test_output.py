"""What commands print for programs, and what they import to do so."""

from __future__ import annotations

import csv
import errno
import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from studies.cli.progress import PlainProgress
from tests.homes import STUDY, TINY, environment, study, succeeds

COST = {
    "epochs", "steps", "images", "v_flops", "u_flops", "gpu_hours", "evaluations", "evaluation_samples",
    "evaluation_flops", "evaluation_hours", "gib", "files", "hours_basis",
}  # fmt: skip
COLUMNS = (
    "evaluation,study,scale,variant,panel,arm,control,seed,stage,stage_epoch,epoch,step,"
    "metric,nfe,protocol,trajectory,value,weights,solver,samples,protocol_seed,precision,parameters"
)


def test_a_run_says_how_long_it_took(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.setattr("studies.cli.progress.time.monotonic", lambda: now[0])
    with PlainProgress([]):
        now[0] += 27 * 60 + 35.2
    assert capsys.readouterr().out.splitlines()[-1] == "took 27:35"


def test_list() -> None:
    records = {r["name"]: r for r in json.loads(succeeds("list", "--json"))}
    figures = {name: r["figures"] for name, r in records.items()}
    assert figures["obs_v_then_u"] == [2, 8]
    assert figures["obs_v_corruption"] == [3, 9]
    assert figures["obs_gap_restriction"] == [4, 10]
    assert figures["obs_task_affinity"] == [5]
    tables = {name: r["tables"] for name, r in records.items() if r["tables"]}
    assert tables == {
        "model_sizes": [1], "cfg_configs": [2], "components": [3], "k_schedule": [4], "multistep_v": [5],
        "components_ffhq": [6],
    }  # fmt: skip
    assert (figures["convergence"], figures["samples_over_training"]) == ([1, 6], [7])
    for name, record in records.items():
        ours = name == "aa" or name.startswith("readings")  # which are no studies of the paper's
        assert {"smoke", "cpu", "truth_multi", *(() if ours else ("truth", "paper"))} <= set(record["scales"])
        observed = name.startswith("obs_")
        assert ("gpu" in record["scales"]) == observed
        assert ("paper-ffhq" in record["scales"]) == (observed and len(record["figures"]) > 1)
    assert "obs_v_then_u" in succeeds("list")


def test_plan_of_several_studies(tmp_path: Path) -> None:
    names = ("obs_v_then_u", "obs_gap_restriction", "obs_task_affinity")
    plan = json.loads(succeeds("plan", *names, "--scale", "paper", "--json", home=tmp_path))
    assert plan["studies"] == list(names)
    assert (plan["naive_epochs"], plan["planned_epochs"]) == (1350, 710)
    assert (plan["probe_epochs"], plan["control_epochs"]) == (120, 80)
    assert plan["cost"]["epochs"] == 710 + 120 + 80
    text = succeeds("plan", *names, "--scale", "paper", home=tmp_path)
    assert "710 of 1350" in text and "probed adds 120" in " ".join(text.split())


def test_plan(tmp_path: Path) -> None:
    plan = json.loads(succeeds("plan", "obs_v_then_u", "--scale", "paper", "--json", home=tmp_path / "none"))
    assert (plan["naive_epochs"], plan["planned_epochs"], plan["control_epochs"]) == (750, 370, 80)
    assert plan["cost"].keys() == plan["missing"]["cost"].keys() >= COST
    assert plan["cost"]["epochs"] == 450
    assert plan["missing"]["segments"] == plan["segments"]
    assert not (tmp_path / "none").exists(), "a plan makes nothing"
    assert "370 of 750" in succeeds("plan", "obs_v_then_u", "--scale", "paper", home=tmp_path / "none")


def test_status(copy: Path) -> None:
    status = json.loads(succeeds("status", TINY, "--json", home=copy))
    assert status.keys() >= {"studies", "running", "failed"}
    (row,) = status["studies"]
    expected = {"study": "tiny", "scale": "cpu", "variant": None, "seeds": 1, "points": 18, "measured": 18}
    assert row.items() >= expected.items()
    assert status["running"] == status["failed"] == []


def test_claims_and_report(copy: Path, tmp_path: Path) -> None:
    claims = json.loads(succeeds("claims", TINY, "--json", home=copy))
    assert (claims["study"], claims["scale"]) == ("tiny", "cpu")
    (verdict,) = claims["claims"]
    assert verdict["verdict"] == "undecided", "one seed never decides"
    out = tmp_path / "pictures"
    report = json.loads(succeeds("report", TINY, "--out", out, "--json", home=copy))
    assert report["missing"] == []
    assert {Path(f).suffix for f in report["files"]} == {".png", ".pdf", ".svg", ".csv"}
    assert all(Path(f).stat().st_size for f in report["files"])


def test_results_in_every_format(copy: Path, tmp_path: Path) -> None:
    text = succeeds("results", "--study", TINY, home=copy)
    assert text.splitlines()[0] == COLUMNS
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len({row["evaluation"] for row in rows}) == 18
    apart = {(row["weights"], row["solver"], row["samples"], row["protocol_seed"], row["parameters"]) for row in rows}
    assert apart == {("ema", "jump", "100", "0", '{"features": "pixel"}')}
    assert {(row["panel"], row["arm"]) for row in rows if row["control"] == "True"} == {("right", "joint")}
    succeeds("results", "--study", TINY, "--format", "parquet", "--out", tmp_path / "t.parquet", home=copy)
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert list(frame.columns) == COLUMNS.split(",")
    assert frame["value"].tolist() == [float(row["value"]) for row in rows]
    markdown = succeeds("results", "--study", TINY, "--format", "md", home=copy)
    assert markdown.count("\n") == len(rows) + 2
    latex = succeeds("results", "--study", TINY, "--format", "latex", home=copy)
    assert "\\toprule" in latex
    assert "frechet\\_pixel" in latex


def test_verify_and_doctor(copy: Path, tmp_path: Path) -> None:
    verified = json.loads(succeeds("verify", TINY, "--first", "3", "--second", "4", "--json", home=copy))
    assert len(verified["dynamics"]) == 3
    assert all(result["equal"] and result["differing"] == [] for result in verified["dynamics"])
    doctor = json.loads(study("doctor", "--json", home=tmp_path / "none").stdout)
    assert {"python", "torch", "home", "free disk"} <= {check["what"] for check in doctor["checks"]}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("{study} db dump | head -1", 141, ""),
        ("{study} list | true", 141, ""),
        ("{study} list > /dev/full", 2, "the disk is full"),
        ("{study} nope > /dev/full 2>&1", 2, ""),
        ("{study} list <&- >&-", 0, ""),
        ("{study} new mine --from k_schedule >&- 2>&- && head -1 mine.yaml > /dev/null", 0, ""),
    ],
)
def test_outputs_that_nobody_reads(command: str, status: int, said: str, copy: Path, tmp_path: Path) -> None:
    """141 as of any command that SIGPIPE ends, so that it is none of the statuses that say what was found."""
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; " + command.format(study=f"'{STUDY}'")],
        capture_output=True, text=True, env=environment(STUDY_HOME=str(copy)), cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert said in done.stderr and bool(said) == bool(done.stderr)


def test_a_run_whose_progress_nobody_reads_stops_as_for_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, stopped = PlainProgress([]), []

    def broken(text: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("studies.cli.progress.say", broken)
    with pytest.raises(BrokenPipeError):
        progress.line()
    progress.unheard = lambda: stopped.append(True)
    progress.line()
    assert stopped == [True]


LIGHT: tuple[tuple[str | Path, ...], ...] = (
    ("--help",), ("list",), ("plan", TINY), ("plan", TINY, "--power"), ("status",), ("claims", TINY), ("implications",),
    ("status", "--arms"), ("watch",), ("logs",), ("why", TINY), ("results", "--study", TINY),
    ("report", TINY, "--out", "report"), ("run", TINY), ("gc", "tiny", "--ends"),
    ("bundle", "b.tar.gz", "--weights", "ema"), ("run", TINY, "--seeds", "1", "-o", "stages=[]", "--as", "x"),
)  # fmt: skip


@pytest.mark.slow
def test_heavy_packages_stay_out(copy: Path, tmp_path: Path) -> None:
    """Only workers import torch; also of `run`, with all that its parent process uses. One command after another, in
    one process, which names the first that does."""
    code = (
        "import json, sys, studies.cli\n"
        "import sweeps.pool, sweeps.scheduler, sweeps.session, sweeps.runs, sweeps.preflight\n"
        "for args in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['study', *args]\n"
        "    try: studies.cli.main()\n"
        "    except SystemExit: pass\n"
        "    heavy = sorted({'torch', 'ray', 'submitit', 'torchvision'} & set(sys.modules))\n"
        "    if heavy: sys.exit(f'{args} imports {heavy}')\n"
    )
    commands = json.dumps([[str(word) for word in args] for args in LIGHT])
    env = environment(STUDY_HOME=str(copy))
    done = subprocess.run(
        [sys.executable, "-c", code, commands], capture_output=True, text=True, env=env, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower() and "nothing to compute" in done.stdout, done.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"report", "b.tar.gz"}, done.stdout
