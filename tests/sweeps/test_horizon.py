"""A schedule over T binds a trajectory to its length, and the tree knows it; a curriculum survives being stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from results.layout import Home
from studies.loader import load_source, resolve
from sweeps.plan import Inventory
from sweeps.session import Session, open_session
from sweeps.worker import run_job
from tests.homes import TINY, tensors

# The u-rows need a place to be weighted in, and DTD a v-loss to be paced by.
JOINT = ("stages.0.fm_ratio=0.75", "stages.1.fm_ratio=0.5", "controls={}")


def session(*transforms: str) -> Session:
    return open_session(
        [resolve(load_source(str(TINY)), "cpu", [*JOINT, f"dynamics.transforms=[{', '.join(transforms)}]"])]
    )


def planned(horizon_counts: bool) -> float:
    """Epochs of distinct prefixes: an arm is a sequence of ratios, one an epoch, and where T counts also its length."""
    arms = {(v, u) for v in (0, 2, 4) for u in (4,)} | {(v, 8 - v) for v in (0, 2, 4)}
    prefixes = set()
    for v, u in arms:
        course = [0.75] * v + [0.5] * u
        prefixes |= {(tuple(course[:n]), len(course) if horizon_counts else None) for n in range(1, len(course) + 1)}
    return len(prefixes)


@pytest.mark.parametrize(
    ("transform", "bound"),
    [
        ("progressive_weight", True),
        ("{name: progressive_weight, schedule: rising}", True),
        ("{name: progressive_weight, schedule: constant}", False),
        ("dtd", False),
        ("min_snr", False),
    ],
)
def test_epochs_are_those_of_distinct_prefixes(transform: str, bound: bool) -> None:
    s = session(transform)
    assert planned(True) > planned(False)
    assert s.epochs().planned == planned(bound)
    assert s.epochs().naive == 4 + 6 + 8 + 3 * 8
    spe = s.studies[0].steps_per_epoch
    horizons = {node.trajectory.horizon_steps for node in s.tree}
    assert horizons == ({4 * spe, 6 * spe, 8 * spe} if bound else {None})
    for job in s.jobs(Inventory()):
        job.check_key()
        assert (job.horizon_steps is not None) == bound


def test_powers_are_trajectories_of_their_own_and_the_default_is_not() -> None:
    keys = [
        {node.key for node in session(f"{{name: progressive_weight, schedule_power: {k}}}").tree}
        for k in (0.5, 1, 1.0, 2)
    ]
    assert keys[1] == keys[2] == {node.key for node in session("progressive_weight").tree}
    assert not keys[0] & keys[1] and not keys[1] & keys[3]


# --- a curriculum through the worker -------------------------------------------------------------------------

METHOD = ("{name: dtd, clusters: 4, patience: 2}", "progressive_weight")


@pytest.mark.parametrize("stop_at", [3, 7, 17])
def test_stopped_in_the_middle_of_a_curriculum_and_resumed(stop_at: int, tmp_path: Path) -> None:
    """Bitwise the same tensors, and each change of stage in the log once, at its step."""
    jobs = [job for job in session(*METHOD).jobs(Inventory()) if job.kind == "train" and job.parent is None]
    job = next(job for job in jobs if job.stop_step == 40)
    whole, halves, seen = Home(tmp_path / "whole"), Home(tmp_path / "halves"), [0]
    assert run_job(whole, job)[0] == "done"
    assert run_job(halves, job, seen.append, lambda: seen[-1] >= stop_at)[0] == "preempted"
    assert run_job(halves, job)[0] == "done"
    assert tensors(whole.root).items() <= tensors(halves.root).items(), "which has the checkpoint of the stop, too"
    assert changes(whole) == changes(halves)
    stages = [stage for _, stage in changes(whole)]
    assert stages == sorted(stages) and stages[-1] == 4
    assert any(step % job.log_every_steps for step, _ in changes(whole)), "between the steps that log all else"


def changes(home: Home) -> list[tuple[int, float]]:
    """(step, stage) wherever the log, in all attempts together, says that a new stage has begun."""
    told: dict[int, float] = {}
    for file in sorted(home.root.glob("trajectories/*/attempts/*/metrics.jsonl")):
        for record in map(json.loads, file.read_text().splitlines()):
            if "dtd_stage" in record.get("values", {}):
                told.setdefault(record["step"], record["values"]["dtd_stage"])
    found, stage = [], 1.0
    for step in sorted(told):
        if told[step] != stage:
            found.append((step, stage := told[step]))
    return found
