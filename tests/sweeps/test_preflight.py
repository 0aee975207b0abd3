"""What is said before anything is trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.preflight import preflight
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
