"""What is said before anything is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meanflow_core.config import Measurement
from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.preflight import damaged_data, impossible, preflight
from sweeps.session import open_session
from tests.homes import TINY, environment, study, succeeds

GUIDED = ("dynamics.guidance={effective_omega: 2.0, cfg_kappa: 0.5}", "dynamics.label_dropout=0.1")
FACES = "{name: synthetic_latents, channels: 1, side: 4, modes: 2, classes: 1}"


def said(*overrides: str) -> list[str]:
    return preflight(open_session([resolve(load_source(str(TINY)), "cpu", overrides)]), Home(Path("nowhere")))


@pytest.mark.parametrize(("data", "name"), [("gaussian", "gaussian"), (FACES, "synthetic_latents")])
def test_guidance_on_data_without_classes(data: str, name: str) -> None:
    """Once, however many trajectories are concerned."""
    message = f"guidance needs labels, and the data '{name}' have none: set dynamics.guidance to null"
    assert said(f"dynamics.data={data}", *GUIDED) == [message]
    assert said(f"dynamics.data={data}") == []
    assert said(*GUIDED) == []


IMAGES = "{name: synthetic_latents, channels: 3, side: 256, classes: 2}"
SMALL = "{name: synthetic_latents, channels: 1, side: 6, modes: 2}"


PIXEL = {"name": "frechet", "features": "pixel"}
GUIDED_ERROR = {"name": "v_error", "guidance": {"cfg_omega": 1.0, "cfg_kappa": 0.5}}


@pytest.mark.parametrize(
    ("metric", "overrides", "why"),
    [
        (PIXEL, (f"dynamics.data={IMAGES}",), "takes matrices of 196608 × 196608 (288 GiB each)"),
        (PIXEL, ("measure.0.samples=1",), "a covariance needs at least 2 samples, not 1"),
        ({"name": "kid", "features": "pixel", "subset_size": 3000}, ("measure.0.samples=3000",), "'digits' gives 1797"),
        ({"name": "kid", "features": "pixel", "subset_size": 1}, (), "subset_size must be at least 2"),
        ({"name": "kid", "features": "pixel"}, (), "needs as many samples, not 100"),
        ({"name": "frechet"}, (f"dynamics.data={SMALL}",), "digits_cnn takes images of shape (1, 8, 8)"),
        ({"name": "frechet", "features": "coarse"}, (f"dynamics.data={SMALL}",), "sides are multiples of 4"),
        ({"name": "frechet", "features": "inception"}, (), "are for decoded latents"),
        ({"name": "v_error"}, (), "the exact fields of the data 'digits' are not known"),
        ({"name": "task_affinity", "quantity": "exact", "lo": 0, "hi": 1}, ("measure.0.weights=online",), "not known"),
        ({"name": "images"}, ("dynamics.data=gaussian",), "images are of shape (channels, height, width)"),
        (PIXEL, ("dynamics.network={name: dit, size: nano/4}", f"dynamics.data={SMALL}"), "of 4, not (1, 6, 6)"),
        (PIXEL, ("dynamics.network={name: dit, size: nano/4}", "dynamics.data=gaussian"), "'mlp' takes any shape"),
        (GUIDED_ERROR, ("dynamics.data=gmm", "dynamics.network.conditional=false"), "this network takes no labels"),
    ],
)
def test_what_can_never_be_trained_or_measured_is_said_from_parameters(
    metric: dict[str, Any], overrides: tuple[str, ...], why: str
) -> None:
    label = Measurement(metric=metric, weights="online").metric_label
    ours = (f"measure.0.metric={json.dumps(metric)}", f"primary={label}", "claims=[]", "figure=null")
    study = resolve(load_source(str(TINY)), "cpu", (*overrides, *ours))
    (message,) = impossible(open_session([study]))
    assert why in message
    assert message.startswith(f"'{label}' at 1 NFE") or "dit" in message


@pytest.mark.parametrize("name", ["frechet", "kid"])
def test_damaged_reference_statistics_are_said_where_a_metric_needs_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `study check`, which says nothing of what may lie on another machine."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))

    def found(features: str) -> list[str]:
        metric = {"name": name, "features": features}
        label = Measurement(metric=metric).metric_label
        data = {"name": "latents", "dataset": "small", "channels": 1, "side": 8, "classes": 2}
        ours = (f"dynamics.data={json.dumps(data)}", f"measure.0.metric={json.dumps(metric)}", f"primary={label}")
        study = resolve(load_source(str(TINY)), "cpu", (*ours, "claims=[]", "figure=null"))
        return damaged_data(open_session([study]))

    assert found("inception") == []
    path = tmp_path / "small" / "reference.npz"
    path.parent.mkdir()
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    assert found("inception") == [f"{path} has statistics of 3 features, not 2048"]
    assert found("pixel") == []
    np.savez(path, mu=np.zeros(3), sigma=np.full((3, 3), np.nan))
    assert found("inception") == [f"{path} has moments that are not finite"]


METRIC = """
from meanflow_core.registry import Params, component

@component("metric", version=1)
class Metric(Params):
    def build(self, context):
        import os, sys
        print("built")
        os.chdir("/")
        sys.exit(0)
"""


def test_a_component_that_ends_the_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it was is where the process is afterwards, and the standard output is the command's."""
    monkeypatch.chdir(tmp_path)
    Path("it.py").write_text(METRIC)
    given = ("measure.0.metric={use: ./it.py:Metric}", "primary=Metric", "claims=[]", "figure=null")
    (why,) = impossible(open_session([resolve(load_source(str(TINY)), "cpu", given)]))
    assert why == "the metric 'Metric' cannot be built: SystemExit: 0"
    assert (Path.cwd(), capsys.readouterr().out) == (tmp_path, "")


def test_a_study_that_can_never_run_is_refused_by_every_command(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(TINY.read_text().replace("features: pixel}, samples: 100", "features: pixel}, samples: 1"))
    for words in (("check",), ("plan", "--scale", "cpu"), ("run", "--scale", "cpu")):
        done = study(words[0], file, *words[1:], **({} if words[0] == "check" else {"home": tmp_path / "home"}))
        assert (done.returncode, "needs at least 2 samples, not 1" in done.stderr) == (2, True), done.stderr
    assert not list((tmp_path / "home").glob("trajectories/*"))


def test_in_one_stage_of_several() -> None:
    stage = "stages.1.guidance={cfg_omega: 1.0, cfg_kappa: 0.5}"
    (message,) = said("dynamics.data=gaussian", "dynamics.label_dropout=0.1", stage)
    assert "'gaussian'" in message


def test_a_curriculum_whose_first_times_are_never_drawn() -> None:
    transform = "stages.0.transforms=[{name: dtd, clusters: 1000000}]"
    (message,) = said(transform, "dynamics.time_sampler={name: logit_normal, mean: -4, std: 0.05}")
    assert "the transform 'dtd' does not fit the times 'logit_normal': no time is drawn in the first" in message
    assert said(transform.replace("1000000", "4"), "dynamics.time_sampler=uniform") == []


def test_where_there_is_nothing_to_do_nothing_is_checked_and_no_worker_started(tmp_path: Path) -> None:
    args = ("run", TINY, "-o", "stages.0.transforms=[{name: dtd, clusters: 4}]", "--as", "dtd")
    succeeds(*args, home=tmp_path)
    code = (
        "import sys, studies.cli\n"
        "try: studies.cli.main()\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'pandas', 'sweeps.pool'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, *map(str, args), "--home", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


OWN = """
from meanflow_core.registry import BuildContext, Params, component

@component("{kind}", version=1)
class Broken(Params):
    factor: float = 1.0

    def build(self, context: BuildContext) -> None:
        raise RuntimeError(f"no file of factor {{self.factor}}")
"""


@pytest.mark.parametrize(
    ("kind", "override"),
    [("metric", "measure.0.metric={{use: {file}:Broken}}"), ("observer", "observers=[{{use: {file}:Broken}}]")],
)
def test_ones_own_metrics_and_observers_are_built_before_training(kind: str, override: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN.format(kind=kind))
    (message,) = said(override.format(file=file), "claims=[]", "figure=null", *["primary=Broken"] * (kind == "metric"))
    assert message == f"the {kind} 'Broken' cannot be built: RuntimeError: no file of factor 1.0"


def test_a_run_stops_there(tmp_path: Any) -> None:
    overrides = [word for one in ("dynamics.data=gaussian", *GUIDED) for word in ("-o", one)]
    done = study("run", TINY, *overrides, "--as", "guided", home=tmp_path / "home")
    assert done.returncode != 0
    assert "guidance needs labels" in done.stdout + done.stderr
    assert not list((tmp_path / "home").glob("trajectories/*/attempts"))
