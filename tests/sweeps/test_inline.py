"""The inline engine: what it shows, that it can be stopped, and that no job feels those before it."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from results.layout import Home
from studies.cli.progress import PlainProgress
from studies.loader import load_source, resolve
from sweeps.backend import Event
from sweeps.inline import InlineWorkers, inline
from sweeps.jobs import Job
from sweeps.plan import Inventory
from sweeps.session import open_session
from sweeps.worker import process_restored
from tests.homes import TINY, Command, study, tensors, unfinished, wait_for

from .conformance import Recorder, ends

OWN = '''
import os, random, sys
from pydantic import PositiveInt
from meanflow_core.registry import BuildContext, Params, component


@component("transform", version=1)
class Rude(Params):
    """Draws from the global generators, and leaves the process in disorder."""

    seed: PositiveInt

    def build(self, context: BuildContext):
        import numpy, torch
        from meanflow_core.hooks import Transform

        class Noise(Transform):
            def v_target(this, step, batch, target):
                return target + 0.1 * torch.rand(()) + 0.1 * random.random() + 0.1 * numpy.random.rand()

            def after_step(this, step, terms):
                if step >= SAY_AT:
                    print("step", step)
                    print("noise", step, file=sys.stderr)
                return {}

        torch.manual_seed(self.seed)
        random.seed(self.seed)
        numpy.random.seed(self.seed)
        torch.set_float32_matmul_precision("medium")
        os.environ["RUDE"] = str(self.seed)
        return Noise()
'''
STUDY = """
extends: {tiny}
study: rude
panels: {{left: {{arms: {{v_epochs: [{epochs}], u_epochs: 0}}}}, right: null}}
controls: {{joint: null}}
claims: []
stages:
  - {{name: v_pretrain, epochs: $v_epochs, fm_ratio: 1.0, transforms: [{{use: ./own.py:Rude, seed: 1}}]}}
  - {{name: u_finetune, epochs: $u_epochs, fm_ratio: 0.0}}
"""


@pytest.fixture
def rude(tmp_path: Path) -> Callable[..., Path]:
    """A study whose transform leaves disorder; and speaks from a step on."""

    def write(say_at: int = 10**9, epochs: int = 1) -> Path:
        (tmp_path / "own.py").write_text(OWN.replace("SAY_AT", str(say_at)))
        path = tmp_path / "rude.yaml"
        path.write_text(STUDY.format(tiny=TINY, epochs=epochs))
        return path

    return write


def jobs_of(file: Path, *overrides: str) -> list[Job]:
    return open_session([resolve(load_source(str(file)), "cpu", overrides)]).jobs(Inventory())


def test_no_job_feels_those_before_it(rude: Callable[..., Path], tmp_path: Path) -> None:
    """Two in both orders, bitwise; neither is what it would be if the other's generators reached it."""
    file = rude()
    one, other = (
        next(job for job in jobs_of(file, f"stages.0.transforms.0.seed={seed}") if job.kind == "train")
        for seed in (1, 2)
    )
    plain = next(job for job in jobs_of(TINY) if job.kind == "train" and job.parent is None)
    found = []
    for number, order in enumerate(([one, plain, other], [other, plain, one])):
        home = Home(tmp_path / f"home{number}")
        assert inline(home, order, Recorder()).run().complete
        found.append(tensors(home.root))
    assert found[0] == found[1]
    assert one.trajectory != other.trajectory


STATE: dict[str, tuple[Callable[[], Any], Callable[[], object]]] = {
    # name: how it is read, and something that a component may do to it
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "precision": (torch.get_float32_matmul_precision, lambda: torch.set_float32_matmul_precision("medium")),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "torch's numbers": (lambda: torch.get_rng_state().tolist(), lambda: torch.rand(())),
    "determinism": (torch.get_deterministic_debug_mode, lambda: torch.use_deterministic_algorithms(True)),
    "gradients": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "numpy's numbers": (lambda: str(np.random.get_state()), lambda: np.random.rand(1000)),
    "Python's numbers": (random.getstate, random.random),
    "environment": (lambda: dict(os.environ), lambda: os.environ.update(RUDE="1")),
    "a variable less": (lambda: dict(os.environ), lambda: os.environ.pop("PATH")),
}


@pytest.mark.parametrize("name", STATE)
def test_what_a_job_does_to_its_process_is_undone(name: str) -> None:
    read, disturb = STATE[name]
    before = read()
    with process_restored():
        disturb()
        assert read() != before
    assert read() == before


def test_what_a_component_prints_is_seen_and_kept(rude: Callable[..., Path], tmp_path: Path) -> None:
    done = study("run", rude(say_at=8), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "step 8\nstep 9\n" in done.stdout and "noise 8\nnoise 9\n" in done.stderr
    assert done.stdout.rstrip().splitlines()[-1].startswith("done. Next: study report")
    logs = [path.read_text() for path in tmp_path.glob("home/trajectories/*/attempts/*/log.txt")]
    assert "step 8\nnoise 8\nstep 9\nnoise 9\n" in logs, "without the command's own lines"


def test_a_traceback_is_shown_in_full_where_it_happens(
    rude: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = jobs_of(rude(say_at=0))
    failing = (tmp_path / "own.py").read_text().replace('print("step", step)', "self.nothing")
    (tmp_path / "own.py").write_text(failing)
    jobs = jobs_of(tmp_path / "rude.yaml")
    outcome = inline(Home(tmp_path / "home"), jobs, Recorder()).run()
    (failure,) = outcome.failures
    assert "no attribute 'nothing'" in failure.reason and outcome.blocked
    said = capsys.readouterr().err
    line = next(number for number, text in enumerate(failing.splitlines(), 1) if "self.nothing" in text)
    assert f'own.py", line {line}, in after_step\n    self.nothing\n' in said.replace("                    ", "    ")
    assert "sweeps/worker.py" in said, "from where the job is begun"


def test_a_component_that_ends_the_process_fails_its_job_only(rude: Callable[..., Path], tmp_path: Path) -> None:
    rude(say_at=0)
    (tmp_path / "own.py").write_text(
        (tmp_path / "own.py").read_text().replace('print("step", step)', "sys.exit('enough')")
    )
    outcome = inline(Home(tmp_path / "home"), jobs_of(tmp_path / "rude.yaml"), Recorder()).run()
    assert [failure.reason for failure in outcome.failures] == ["SystemExit: enough"]
    assert [end["status"] for end in ends(tmp_path / "home")] == ["failed"]


def test_progress_is_told_while_a_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.backend.PROGRESS_EVERY_S", 0.0)
    watcher = Recorder()
    (job, *_) = jobs_of(TINY)
    assert inline(Home(tmp_path), [job], watcher).run().complete
    told = [event.step for event in watcher.events if event.kind == "progress"]
    assert told == list(range(job.start_step + 1, job.stop_step + 1))
    assert [event.kind for event in watcher.events if event.kind != "progress"] == ["started", "done"]


def test_a_stop_reaches_the_job_that_runs(tmp_path: Path) -> None:
    """Asked for in the middle of a job, as a signal handler does."""
    (job, *_) = jobs_of(TINY)

    class Stopping(Recorder):
        def event(self, event: Event) -> None:
            super().event(event)
            if event.kind == "started":
                scheduler.stop()

    scheduler = inline(Home(tmp_path), [job], Stopping())
    outcome = scheduler.run()
    assert outcome.interrupted and not outcome.failures
    assert [end["status"] for end in ends(tmp_path)] == ["preempted"]


def test_the_last_line_after_a_stop_counts_the_steps_that_were_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However soon it comes: progress is told twice a second at most."""
    (job, *_) = jobs_of(TINY)
    with PlainProgress([job]) as watcher:
        scheduler = inline(Home(tmp_path), [job], watcher)
        asked = iter([False] * 5)

        def stop() -> bool:
            if next(asked, None) is None:
                scheduler.stop()
            return scheduler.outcome.interrupted

        assert isinstance(scheduler.pool, InlineWorkers)
        scheduler.pool.should_stop = stop
        scheduler.run()
    assert [end["steps"] for end in ends(tmp_path)] == [5]
    assert f"trained 5/{job.steps} steps" in capsys.readouterr().out.splitlines()[-2]


@pytest.mark.slow
def test_ctrl_c_saves_and_running_again_goes_on(tmp_path: Path, tiny: Path) -> None:
    home = tmp_path / "home"
    command = Command("run", TINY, "--backend", "inline", home=home)
    assert wait_for(lambda: bool(unfinished(home)))
    os.killpg(command.process.pid, signal.SIGINT)
    status, output = command.wait()
    assert (status, "Run the same command again" in output) == (130, True), output
    assert not unfinished(home)
    assert study("run", TINY, home=home).returncode == 0
    assert tensors(home) == tensors(tiny)


def test_workers_are_refused(tmp_path: Path) -> None:
    done = study("run", TINY, "--backend", "inline", "--workers", "2", cwd=tmp_path)
    assert (done.returncode, "--workers does not go with --backend inline" in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == []
