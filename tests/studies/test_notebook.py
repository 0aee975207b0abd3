"""The notebook API against the store and against naive computations, and the example notebook, executed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from meanflow_core.evaluation.context import EvaluationContext
from reports.errors import NothingToReport, ReportError
from scripts.make_notebook import CELLS, DOCS, NOTEBOOK, execute, notebook
from studies.errors import StudyError
from studies.notebook import OpenHome, open_home
from tests.homes import TINY, study, succeeds

pytestmark = pytest.mark.slow  # whole commands that train


@pytest.fixture(scope="module")
def seeds(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study with three seeds."""
    home = Path(shutil.copytree(tiny, tmp_path_factory.mktemp("seeds") / "home"))
    succeeds("run", TINY, "--seeds", "0-2", home=home)
    return home


@pytest.fixture
def home(seeds: Path) -> OpenHome:
    return open_home(seeds)


def test_a_frame_is_what_is_measured(home: OpenHome, seeds: Path) -> None:
    frame = home.frame(str(TINY), "frechet_pixel", nfe=1)
    table = pd.read_csv(pd.io.common.StringIO(succeeds("results", "--study", TINY, home=seeds)))
    assert sorted(frame["value"]) == pytest.approx(sorted(table["value"]))
    listed = frame[~frame["control"]]
    assert set(listed["attribute.v_epochs"]) == {0, 2, 4}
    assert home.frame("tiny").equals(home.frame(str(TINY))), "by the name that was run, too"
    assert home.frame(str(TINY), "nothing").empty


def test_a_comparison_is_paired_by_seed(home: OpenHome) -> None:
    found = home.compare("tiny/left/v4", "tiny/left/v0")
    frame = home.frame("tiny", "frechet_pixel")
    ends = frame[(frame["panel"] == "left") & (frame["stage"] == "u_finetune") & (frame["stage_epoch"] == 4)]
    wide = ends.pivot(index="seed", columns="arm", values="value")
    a, b = wide["v4"].to_numpy(float), wide["v0"].to_numpy(float)
    test = stats.ttest_rel(a, b)
    (row,) = found.table.to_dict("records")
    interval = test.confidence_interval()
    assert (row["metric"], row["nfe"], row["n"]) == ("frechet_pixel", 1, 3)
    assert row["difference"] == pytest.approx((a - b).mean())
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    logs = stats.ttest_rel(np.log(a), np.log(b))  # what is tested are log ratios, said in %
    ratios = [np.log(a / b).mean(), *logs.confidence_interval()]
    assert [row[x] for x in ("percent", "low_percent", "high_percent")] == pytest.approx(list(100 * np.expm1(ratios)))
    assert row["p"] == pytest.approx(logs.pvalue)
    told = {one.part: (one.there, one.wanted) for one in home.differences("tiny/left/v4", "tiny/left/v2")}
    assert told == {"v_pretrain.epochs": (4, 2)}
    assert home.differences("tiny/left/v0", "tiny/left/v0") == []


def test_plans_and_claims_are_those_of_the_commands(home: OpenHome) -> None:
    plan = home.plan(str(TINY), seeds="0-2")
    assert plan.epochs == (22, 42)
    assert (plan.cost.steps, plan.remaining.steps) == (900, 0)
    claims = home.claims(str(TINY))
    assert list(claims["claim"]) == ["more_v_is_better"]
    assert claims["verdict_record"][0].primary.n == claims["n"][0] == 3


@pytest.mark.parametrize("weights", ["ema", "online"])
def test_samples_are_those_that_are_measured(home: OpenHome, weights: str) -> None:
    """The same latents and labels, through the same network, as under a protocol of as many samples and that seed."""
    checkpoint = home.checkpoint("tiny/right/v2", seed=1, weights=weights)  # type: ignore[arg-type]
    assert (checkpoint.epoch, checkpoint.step) == (8, 80)
    drawn = home.sample(checkpoint, nfe=1, n=100)
    (point,) = {p.protocol.key: p.protocol for p in checkpoint.kept.arm.points}.values()
    data = checkpoint.kept.stage.trajectory.dynamics.data.build()
    assert (point.samples, point.nfe, point.seed) == (100, 1, 0)
    context = EvaluationContext(checkpoint.load(), data)
    assert torch.equal(torch.from_numpy(drawn), context.samples(point))
    assert not np.array_equal(drawn, home.sample(checkpoint, nfe=2, n=100))
    assert not np.array_equal(drawn, home.sample(checkpoint, n=100, latents=1))


def test_weights_are_found_along_the_stages(home: OpenHome) -> None:
    """The arm's first stage is another's too; its end is the second's start."""
    at = {epoch: home.checkpoint("tiny/right/v4", seed=0, epoch=epoch) for epoch in (0, 2, 4, 8)}
    assert [one.step for one in at.values()] == [0, 20, 40, 80]
    first, second = at[4].kept.arm.stages
    assert [one.kept.stage for one in at.values()] == [first, first, first, second]
    with pytest.raises(StudyError, match=r"no ema weights of .* are kept at epoch 3 \(available: 0, 2, 4"):
        home.checkpoint("tiny/right/v4", seed=0, epoch=3)


def test_a_panel_is_drawn_on_axes_of_ones_own(home: OpenHome) -> None:
    figure, ax = plt.subplots()
    assert home.figure("tiny", panel="right", ax=ax) is figure
    assert ax.get_title() == "8 epochs in all"
    drawn = [line for line in ax.get_lines() if len(line.get_xdata()) > 1]
    assert len(drawn) >= 4, "three arms and the control"
    with pytest.raises(ReportError, match="has no panel 'nowhere'"):
        home.figure("tiny", panel="nowhere", ax=ax)
    page = home.figure("tiny")
    assert page is not figure and len(page.axes) >= 2
    plt.close(figure)


def test_what_is_not_there_is_said(home: OpenHome, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="nothing is stored in"):
        open_home(tmp_path).frame("tiny")
    with pytest.raises(StudyError, match="unknown study 'nothing'"):
        home.frame("nothing")
    with pytest.raises(StudyError, match="'tiny' means several arms"):
        home.checkpoint("tiny")
    with pytest.raises(NothingToReport):
        home.figure(2)


def test_no_torch_before_weights_are_asked_for(seeds: Path) -> None:
    code = (
        "import sys\nfrom studies.notebook import open_home\n"
        f"home = open_home({str(seeds)!r})\n"
        f"home.plan({str(TINY)!r}); home.frame('tiny'); home.compare('tiny/left/v4', 'tiny/left/v0')\n"
        "home.claims('tiny'); home.figure('tiny'); home.checkpoint('tiny/left/v4', seed=0)\n"
        "print(sorted({'torch', 'ray', 'submitit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_example_notebook_runs_and_is_the_one_that_is_kept(tmp_path: Path) -> None:
    kept = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == CELLS
    (tmp_path / "examples").symlink_to(DOCS / "examples")
    executed = execute(notebook(), tmp_path)
    for old, new in zip(kept.cells, executed.cells, strict=True):
        if new.cell_type == "code":
            assert [one.output_type for one in old.outputs] == [one.output_type for one in new.outputs]
            assert all(one.output_type != "error" for one in new.outputs)


# --- the commands ------------------------------------------------------------------------------------------


def test_the_commands_write_pictures(seeds: Path, tmp_path: Path) -> None:
    said = succeeds("compare", "tiny/left/v4", "tiny/left/v0", "--out", tmp_path, home=seeds)
    assert "stage v_pretrain" in said and "frechet_pixel" in said
    assert (tmp_path / "compare_tiny_at_cpu_left_v4_tiny_at_cpu_left_v0.png").stat().st_size > 10_000
    rows = pd.read_csv(tmp_path / "compare_tiny_at_cpu_left_v4_tiny_at_cpu_left_v0.csv")
    assert set(rows["arm"]) == {"v4", "v0"}
    succeeds("sample", "tiny/left/*", "--nfe", "1,3", "--side", "2", "--epoch", "4", "--out", tmp_path, home=seeds)
    assert (tmp_path / "samples.png").stat().st_size > 5_000
    places = pd.read_csv(tmp_path / "samples.csv")
    assert list(zip(places["arm"], places["nfe"], strict=True)) == [(a, n) for a in ("v0", "v2", "v4") for n in (1, 3)]
    assert set(places["epoch"]) == {4.0}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("sample", "tiny/left/nobody"), "no arm is called 'tiny/left/nobody'"),
        (("sample", "tiny/left/v0", "--epoch", "1"), "are kept at epoch 1 (available: 0, 2, 4)"),
        (("sample", "tiny/left/v0", "--nfe", "0"), "numbers of function evaluations from 1"),
        (("sample", "tiny/left/v0", "--seed", "9"), "none of these seeds was run"),
        (("sample", "tiny/left/v0", "--weights", "online", "--epoch", "2"), "no online weights"),
        (("compare", "tiny/left/*", "tiny/left/v0"), "means several arms"),
        (("compare", "tiny/left/v4", "tiny/left/v0", "--metric", "kid"), "'kid' is not among"),
        (("compare", "tiny/left/v4", "tiny/left/v9"), "no arm is called"),
    ],
)
def test_wrong_input_is_refused(args: tuple[str, ...], said: str, seeds: Path, tmp_path: Path) -> None:
    done = study(*args, "--out", tmp_path / "out", home=seeds)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()
