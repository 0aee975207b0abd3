"""`study report --all`: whatever is stored is written and linked, and whatever is not is named."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine

from reports.catalogue import paper_elements
from reports.errors import NothingToReport
from reports.everything import EverythingReport, build_everything
from results.ingest import ingest
from results.layout import Home
from results.store import open_store
from studies.cli import main
from studies.loader import load_source, resolve
from tests.homes import succeeds

from .quick import save_quickly
from .stored import run_of, write_home
from .synthetic import Case, corruption, gap_restriction, measured, noisy, v_then_u

PICTURES = Path(__file__).parent.parent / "assets" / "pictures.yaml"
ELEMENTS = paper_elements()
MINE = "study run ./my/pictures.yaml --scale cpu"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def pictures() -> Case:
    """A user's study that shows pictures."""
    resolved = resolve(load_source(str(PICTURES)), "cpu")
    return resolved, *measured(resolved, lambda arm, point: 40.0)


def write_pictures(home: Home, case: Case) -> list[Path]:
    frame = case[1][case[1]["metric"] == "images"].drop_duplicates("evaluation")
    paths = [
        home.trajectory(trajectory).artefact(1, "images", evaluation)
        for trajectory, evaluation in zip(frame["trajectory"], frame["evaluation"], strict=True)
    ]
    for path in paths:
        np.save(path, np.full((6, 8, 8, 1), 7, np.uint8))
    return paths


def everything(home: Home, out: Path, scale: str | None = None) -> EverythingReport:
    engine: Engine = open_store(home.store_url)
    ingest(engine, home)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("reports.everything.paper_elements", lambda: ELEMENTS)  # reads every study's file
        return build_everything(engine, home, scale=scale, out=out)


def links(index: Path) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", index.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two built-in studies (one half measured), a variant, a user's, one with nothing measured, one unreadable."""
    home = Home(tmp_path_factory.mktemp("full") / "home")
    half = gap_restriction(range(2))
    half[1].loc[half[1]["seed"] == 1, "value"] = np.nan
    empty = v_then_u(range(2), scale="smoke")
    empty[1]["value"] = np.nan
    write_home(home, v_then_u(range(3)))
    write_home(home, half, replace(run_of(half), run="20261121T000000-000000"))
    other = corruption(range(1))
    write_home(home, other, replace(run_of(other), run="20261122T000000-000000", variant="mine"))
    write_home(home, empty, replace(run_of(empty), run="20261123T000000-000000"))
    write_home(home, pictures(), replace(run_of(pictures()), run="20261124T000000-000000"), MINE)
    old = replace(run_of(pictures()), run="20261125T000000-000000", study="old", config={"study": "old"})
    write_home(home, pictures(), old, "study run old")
    write_pictures(home, pictures())
    return home


@pytest.fixture(scope="module")
def made(full: Home, tmp_path_factory: pytest.TempPathFactory) -> EverythingReport:
    with pytest.MonkeyPatch.context() as monkeypatch:
        save_quickly(monkeypatch, drawn=())
        return everything(full, tmp_path_factory.mktemp("all") / "out")


def test_whatever_is_stored_is_written(full: Home, made: EverythingReport) -> None:
    out = made.index.parent
    found = {path.relative_to(out).as_posix() for path in made.files}
    assert found == {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {
        "index.md",
        "obs_v_then_u/obs_v_then_u_cpu.png",
        "obs_v_then_u/obs_v_then_u_cpu_claims.md",
        "obs_v_then_u/obs_v_then_u_cpu_results.csv",
        "obs_v_corruption/obs_v_corruption_cpu_mine.pdf",
        "obs_gap_restriction/obs_gap_restriction_truth_truth.svg",
        "pictures/pictures_cpu.png",
        "implications_cpu.md",
        "implications_truth.md",
    } <= found
    assert set(links(made.index)) == found - {"index.md"}, "the index links every file and nothing else"
    claims = (out / "obs_v_then_u/obs_v_then_u_cpu_claims.md").read_text(encoding="utf-8")
    assert "### fixed_u_budget: SUPPORTED at scale cpu" in claims
    table = pd.read_csv(out / "obs_v_then_u/obs_v_then_u_cpu_results.csv")
    assert len(table) == len(v_then_u(range(3))[1]) and set(table["variant"].isna()) == {True}
    assert len(full.verdicts.read_bytes().splitlines()) > 4, "verdicts that were shown are recorded"


def test_the_index_has_captions_and_verdicts(made: EverythingReport) -> None:
    text = made.index.read_text(encoding="utf-8")
    assert "| Figure 2 | obs_v_then_u | cpu |" in text and "| Figure 3 | obs_v_corruption | missing |" in text
    assert "| Figure 4 | obs_gap_restriction | truth |" in text and "| Figure 5 | obs_task_affinity | missing |" in text
    assert "## obs_v_corruption at scale cpu, variant mine" in text
    assert "- fixed_u_budget: SUPPORTED at scale cpu" in text
    assert "After Fig. 2, Sec. 4.1" in text and "Truth version: true error" in text
    assert "**MEANINGLESS" in text  # the user's study
    assert "Implication of Sec. 4.1" in text


def test_what_is_missing_is_named_with_what_makes_it(made: EverythingReport) -> None:
    said = "\n".join(made.missing)
    for words in (
        "Figure 5 of the paper: run `study run obs_task_affinity`, then `study report --figure 5`",
        "Figure 8 of the paper: run `study run obs_v_then_u --scale paper-ffhq`, then `study report --figure 8 --scale",
        "Table 4 of the paper: run `study run k_schedule`, then `study report --table 4`",
        "obs_v_then_u at scale smoke: nothing is measured yet; continue it with `study run obs_v_then_u --scale smoke`",
        "old at scale cpu: the configuration of run 20261125T000000-000000 cannot be read by this version",
    ):
        assert words in said
    assert "pictures at scale cpu" not in said
    [half] = [line for line in made.missing if line.startswith("obs_gap_restriction at scale truth, figure:")]
    assert "(seed 1)" in half and half.endswith("continue it with `study run obs_gap_restriction --scale truth`")
    listed = made.index.read_text(encoding="utf-8").split("## Missing")[1]
    assert listed.count("\n- ") == len(made.missing)
    named = {element.name for element in ELEMENTS if f"{element.name} of the paper" in said}
    assert named == {element.name for element in ELEMENTS} - {"Figure 2", "Figure 4"}


def test_one_that_fails_leaves_the_rest(home: Home, tmp_path: Path) -> None:
    write_home(home, pictures(), command=MINE)
    spoilt = write_pictures(home, pictures())[0]
    spoilt.write_bytes(b"")
    report = everything(home, tmp_path / "out")
    [said] = [line for line in report.missing if line.startswith("pictures")]
    assert f"pictures at scale cpu, figure: {spoilt} is damaged" in said
    assert "`study run ./my/pictures.yaml --scale cpu`" in said
    assert [path.name for path in report.files] == ["index.md", "pictures_cpu_results.csv"]


def test_a_users_study_takes_no_place_of_the_papers(
    home: Home, tmp_path: Path, real_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that extends a built-in study inherits its figure's number. And equal stores give equal files."""
    save_quickly(monkeypatch, drawn=["svg"])
    resolved, frame, protocols = corruption(range(1))
    mine = resolved.model_copy(update={"study": "mine"})
    write_home(home, (mine, frame.assign(study="mine"), protocols))
    report, again = (everything(home, tmp_path / name) for name in "ab")
    assert "mine/mine_cpu.png" in links(report.index)
    assert any(line.startswith("Figure 3 of the paper") for line in report.missing)
    for one, other in zip(report.files, again.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one


def test_one_scale(home: Home, tmp_path: Path) -> None:
    write_home(home, pictures())
    write_pictures(home, pictures())
    empty = corruption(range(1), "smoke")
    empty[1]["value"] = np.nan
    write_home(home, empty, replace(run_of(empty), run="20261123T000000-000000"))
    report = everything(home, tmp_path / "out", "cpu")
    said = "\n".join(report.missing)
    assert "run `study run obs_v_corruption --scale cpu`, then `study report --figure 3 --scale cpu`" in said
    assert "run `study run obs_v_then_u --scale paper-ffhq`" in said and "smoke" not in said
    with pytest.raises(NothingToReport, match=r"nothing is measured at scale 'paper' in .*run a study first"):
        everything(home, tmp_path / "none", "paper")
    with pytest.raises(NothingToReport, match="obs_v_corruption at scale smoke: nothing is measured yet"):
        everything(home, tmp_path / "none", "smoke")
    assert not (tmp_path / "none").exists()


def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str | Path
) -> tuple[int, str, str]:
    """Status, output and errors of a command run in this process, which has loaded everything already."""
    monkeypatch.setattr(sys, "argv", ["study", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), *capsys.readouterr()


def test_from_the_command_line(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_home(home, pictures(), command=MINE)
    write_pictures(home, pictures())
    out = tmp_path / "out"
    said = succeeds("report", "--all", "--out", out, home=home.root)
    assert "missing: Figure 2 of the paper: run `study run obs_v_then_u`" in said
    assert said.endswith(f"wrote 6 files; {out / 'index.md'} lists them\n")
    report_all = ["report", "--all", "--home", home.root]
    status, printed, _ = here(monkeypatch, capsys, *report_all, "--out", out, "--json")
    record = json.loads(printed)
    assert status == 0
    assert record["index"] == str(out / "index.md") and len(record["files"]) == 6 and record["missing"]
    for more in (["--figure", "2"], ["obs_v_then_u", "--as", "mine"]):
        status, _, refused = here(monkeypatch, capsys, *report_all, *more)
        assert status == 2 and "--all reports whatever is stored" in refused
    status, _, nothing = here(monkeypatch, capsys, *report_all, "--scale", "gpu", "--out", tmp_path / "none")
    assert status == 2 and "nothing is measured at scale 'gpu'" in nothing
    assert not (tmp_path / "none").exists()


def test_tables_rankings_and_figures_split_by_the_paper(home: Home, tmp_path: Path) -> None:
    for number, name in enumerate(("k_schedule", "convergence")):
        resolved = resolve(load_source(name), "smoke", (), [0])
        case = (resolved, *measured(resolved, lambda arm, point: 3.0 * noisy(arm, point, 0.3)))
        write_home(home, case, replace(run_of(case), run=f"2026112{number}T000000-000000"))
    out = tmp_path / "out"
    report = everything(home, out)
    found = {path.relative_to(out).as_posix() for path in report.files}
    assert {
        "k_schedule/k_schedule_smoke.png",
        "k_schedule/k_schedule_smoke_table.md",
        "k_schedule/k_schedule_smoke_orders.csv",
        "k_schedule/k_schedule_smoke_ranking.md",
        "convergence/convergence_smoke.png",
        "convergence/convergence_smoke_figure1.png",
    } <= found
    text = report.index.read_text(encoding="utf-8")
    assert "| Figure 1 | convergence | smoke |" in text and "| Figure 6 | convergence | smoke |" in text
    assert "| Table 4 | k_schedule | smoke |" in text and "Points of k_schedule at scale smoke" in text
    said = "\n".join(report.missing)
    assert not re.search(r"(Figure [16]|Table 4) of the paper: run", said) and "Table 5 of the paper: run" in said
