"""From a store to files: with `results.queries` replaced by synthetic answers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.build import build_claims, build_figure, build_implications
from reports.errors import NothingToReport, ReportError
from results import queries
from results.ingest import ingest
from results.layout import Home
from results.store import open_store

from .stored import write_home
from .synthetic import Case, FakeRun, corruption, draw_case, gap_restriction, layer_rows, task_affinity
from .synthetic import v_then_u as case
from .test_claims import judged


class Store:
    """Answers in place of `results.queries` on one study; ``engine`` is never touched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seeds: int = 4, made: Case | None = None) -> None:
        resolved, self.frame, self.protocols = made or case(range(seeds))
        self.study, self.scale = resolved.study, resolved.scale
        self.runs = {self.scale: FakeRun(config=resolved.model_dump(mode="json"), scale=self.scale)}
        monkeypatch.setattr(queries, "latest_run", self.latest_run)
        monkeypatch.setattr("results.stored.stored_runs", lambda engine: [])
        monkeypatch.setattr(queries, "evaluations", lambda engine, **k: self.frame)
        monkeypatch.setattr(queries, "protocols", lambda engine: self.protocols)
        monkeypatch.setattr(queries, "training_metrics", lambda engine, trajectories: layer_rows(self.frame))

    def latest_run(self, engine: Any, study: str, scale: str | None, variant: str | None = None) -> FakeRun | None:
        if study != self.study or variant is not None:
            return None
        return self.runs.get(scale or self.scale)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


ENGINE: Any = None


def test_floors_come_from_the_home(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    key = next(key for key, p in store.protocols.items() if p["label"] == "frechet_pixel" and p["nfe"] == 1)
    home.floors.mkdir(parents=True)
    known = {"format": 1, "protocol": key, "metric": "frechet_pixel", "value": 0.026, "draws": 4}
    home.floor(key).write_text(json.dumps(known))
    assert "the floor, 0.026" in build_figure(ENGINE, home, study="obs_v_then_u", out=tmp_path).captions[0]
    home.floor(key).write_text("{")
    with pytest.raises(ReportError, match="is damaged: delete it"):
        build_figure(ENGINE, home, study="obs_v_then_u", out=tmp_path)


def test_figure(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(monkeypatch)
    report = build_figure(ENGINE, home, study="obs_v_then_u", out=tmp_path / "out")
    assert report.files[0] == tmp_path / "out" / "obs_v_then_u_cpu.png" and report.files[0].exists()
    assert report.missing == [] and report.run.run in report.chosen and "the latest" in report.chosen
    chosen = build_figure(ENGINE, home, study="obs_v_then_u", scale="cpu", out=tmp_path / "out").chosen
    assert "the latest" not in chosen


@pytest.mark.parametrize("more", [{"study": "other"}, {"scale": "gpu"}, {"variant": "mine"}])
def test_no_run(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str]) -> None:
    Store(monkeypatch)
    asked = {"study": "obs_v_then_u", **more}
    with pytest.raises(NothingToReport, match=r"no run of .*run `study run") as error:
        build_figure(ENGINE, home, out=tmp_path / "out", **asked)  # type: ignore[arg-type]
    assert str(home.root) in str(error.value) and str(next(iter(more.values()))) in str(error.value)
    with pytest.raises(NothingToReport):
        build_claims(ENGINE, home, **asked)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_nothing_measured_writes_nothing(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    store.frame["value"] = np.nan
    with pytest.raises(NothingToReport, match="no measured point"):
        build_figure(ENGINE, home, study="obs_v_then_u", out=tmp_path / "out")
    with pytest.raises(NothingToReport, match="no measured point"):
        build_claims(ENGINE, home, study="obs_v_then_u")
    assert list(tmp_path.iterdir()) == []


def names(files: list[Path]) -> list[str]:
    """Of the pictures, without their ending."""
    return [path.stem for path in files if path.suffix == ".png"]


def test_truth_and_layers_stand_beside(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch, made=task_affinity(range(2)))
    report = build_figure(ENGINE, home, study="obs_task_affinity", out=tmp_path)
    stem = "obs_task_affinity_truth"
    assert names(report.files) == [stem, f"{stem}_truth", f"{stem}_layers"] and len(report.files) == 12
    assert all(path.stat().st_size for path in report.files)
    exact = store.frame["metric"].str.contains("exact")
    store.frame.loc[exact, "value"] = np.nan
    report = build_figure(ENGINE, home, study="obs_task_affinity", out=tmp_path / "again")
    assert names(report.files) == [stem, f"{stem}_layers"]
    assert report.missing == ["the truth version: all points"]


def test_no_truth_no_layers(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(monkeypatch, made=corruption(range(2)))
    assert names(build_figure(ENGINE, home, study="obs_v_corruption", out=tmp_path).files) == ["obs_v_corruption_cpu"]


def test_another_metric(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(monkeypatch, made=gap_restriction(range(2)))
    report = build_figure(ENGINE, home, study="obs_gap_restriction", metric="u_error[0.3,0.5]", out=tmp_path)
    assert names(report.files) == ["obs_gap_restriction_truth_u_error_0.3-0.5"]
    with pytest.raises(ReportError, match=r"'fid' at 2 NFE is not among .*v_error at 1 NFE"):
        build_figure(ENGINE, home, study="obs_gap_restriction", metric="fid", nfe=2, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_messages_propose_what_was_typed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    asked = {"asked": "./my studies/mine.yaml"}
    with pytest.raises(NothingToReport, match=r"`study run './my studies/mine\.yaml' --scale gpu -o \.\.\. --as v`"):
        build_figure(ENGINE, home, study="mine", scale="gpu", variant="v", out=tmp_path, **asked)
    store.frame["value"] = np.nan
    for build in (lambda: build_figure(ENGINE, home, study="obs_v_then_u", out=tmp_path, **asked),
                  lambda: build_claims(ENGINE, home, study="obs_v_then_u", **asked)):  # fmt: skip
        with pytest.raises(NothingToReport, match=r"with `study run './my studies/mine\.yaml' --scale cpu`"):
            build()


def test_implications(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(monkeypatch, made=gap_restriction(range(3)))
    report = build_implications(ENGINE, home)
    assert report.scale == "truth" and "no scale was given" in report.chosen
    assert [one.primary.judged for one in report.sums] == [0, 8, 0]
    assert report.sums[0].not_run == ("obs_v_then_u", "obs_v_corruption")
    assert len(home.verdicts.read_bytes().splitlines()) == 9  # what was shown is recorded
    with pytest.raises(NothingToReport, match=r"at scale 'cpu' in .*`study run obs_v_then_u --scale cpu`"):
        build_implications(ENGINE, home, scale="cpu")


def test_a_configuration_of_another_version(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    store.runs["cpu"] = replace(store.runs["cpu"], config={"study": "obs_v_then_u"})
    with pytest.raises(ReportError, match="cannot be read by this version"):
        build_claims(ENGINE, home, study="obs_v_then_u")


def test_shown_verdicts_are_recorded_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    assert build_claims(ENGINE, home, study="obs_v_then_u", record=False).flags == []
    assert not home.verdicts.exists()
    first = build_claims(ENGINE, home, study="obs_v_then_u")
    whole = home.verdicts.read_bytes()
    assert len(whole.splitlines()) == len(first.verdicts) == 4
    store.runs["cpu"] = replace(store.runs["cpu"], run="20261121T000000-000000")  # the same again
    assert build_claims(ENGINE, home, study="obs_v_then_u").flags == []
    assert home.verdicts.read_bytes() == whole

    home.verdicts.write_bytes(whole + b'{"study": "obs_v')  # the next line was cut off
    more = Store(monkeypatch, seeds=6)
    more.runs["paper"] = FakeRun(run="PAPER")
    report = build_claims(ENGINE, home, study="obs_v_then_u")
    assert len(report.flags) == 4 and "seeds were added (2, now 6)" in report.flags[0]
    assert "PAPER" in report.verdicts[0].paper_scale
    lines = home.verdicts.read_bytes()
    assert lines.startswith(whole) and len([json.loads(line) for line in lines.splitlines()]) == 8
    assert len(build_claims(ENGINE, home, study="obs_v_then_u").flags) == 4  # the flag stays

    home.verdicts.write_bytes(b"{nonsense}\n" + whole)
    with pytest.raises(ReportError, match="line 1: not JSON"):
        build_claims(ENGINE, home, study="obs_v_then_u")


def test_from_the_files_of_a_home(home: Home, tmp_path: Path) -> None:
    write_home(home, case(range(3)))
    engine = open_store(home.store_url)
    assert ingest(engine, home).evaluations > 100
    figure = build_figure(engine, home, study="obs_v_then_u", out=tmp_path / "out")
    drawn = draw_case(*case(range(3)))
    assert figure.missing == [] and pd.read_csv(figure.files[3]).equals(_read_back(drawn.points))
    claims = build_claims(engine, home, study="obs_v_then_u")
    expected = judged(*case(range(3)), paper_run=None)
    assert [v.primary for v in claims.verdicts] == [v.primary for v in expected.values()]
    assert ingest(engine, home).verdicts == 4
    assert list(queries.verdicts(engine)["verdict"]) == [v.primary.verdict for v in claims.verdicts]


def _read_back(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(frame.to_csv(index=False)))


@pytest.mark.slow
def test_no_torch() -> None:
    code = (
        "import reports.build, reports.claims, reports.figures, reports.layers, reports.files, reports.text, sys; "
        "import reports.implications, reports.implicationtext, reports.everything, studies.implications; "
        "print([m for m in ('torch', 'ray', 'submitit', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
