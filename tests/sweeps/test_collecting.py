"""Deleting garbage from real homes: only that, whatever happens meanwhile, and what is trained after is the same."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from results.layout import Home
from results.recorded import run_names
from studies.errors import StudyError
from studies.loader import load_source, resolve
from sweeps import collecting, lease, leftovers
from sweeps.attempt import recorded_evaluations
from sweeps.collecting import delete, find
from sweeps.garbage import Choice
from sweeps.jobs import Job
from sweeps.lease import acquire, holder
from sweeps.plan import Inventory
from sweeps.provenance import Provenance
from sweeps.runs import record_run
from sweeps.session import Session, open_session
from sweeps.worker import run_job
from tests.homes import TINY, tensors

ALL = Choice(unwanted=True, snapshots=True, ends=True)
SESSION = open_session([resolve(load_source(str(TINY)), "cpu")])
LONG_AGO = time.time() - 2 * leftovers.GRACE_S


def have(home: Home, session: Session = SESSION) -> Inventory:
    measured = {e for key in session.tree.nodes for e in recorded_evaluations(home.trajectory(key))}
    return session.inventory(home, measured)


def records(home: Path) -> dict[Path, bytes]:
    """All files but weights, leases, the store and notes of what was let go."""
    files = [*home.glob("runs/*/*"), *home.glob("trajectories/*/trajectory.json"), *home.glob("*.jsonl")]
    files += [path for path in home.glob("trajectories/*/attempts/*/*") if path.is_file() and path.name[0] != "."]
    return {path: path.read_bytes() for path in files}


def measured(home: Home, trajectories: Iterable[str]) -> dict[str, float]:
    """The values of all evaluations of some trajectories."""
    paths = (path for key in trajectories for path in home.trajectory(key).attempts.glob("*/metrics.jsonl"))
    found = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return {record["evaluation"]: record["value"] for record in found if record["type"] == "evaluation"}


def joint() -> Job:
    """The training of the control: 80 steps from a random start."""
    return next(job for job in SESSION.jobs(Inventory()) if job.kind == "train" and job.steps == 80)


def old(path: Path) -> Path:
    """Make a file, or a folder with a file in it, that was last touched long ago."""
    if path.suffix == ".d":
        path = path.with_suffix("")
        path.mkdir(parents=True)
        (path / "part").write_bytes(b"half")
        os.utime(path / "part", (LONG_AGO, LONG_AGO))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def test_a_finished_home_has_no_garbage(tiny: Path) -> None:
    before = sorted(tiny.rglob("*"))
    assert find(Home(tiny), Choice()).items == []
    assert find(Home(tiny), Choice(unwanted=True, superseded=True)).items == []
    assert sorted(tiny.rglob("*")) == before


def test_finished_weights_go_when_asked_and_nothing_is_to_do_after(copy: Path) -> None:
    home, kept = Home(copy), records(copy)
    found = find(home, ALL)
    assert sum(item.bytes for item in found.items) == sum(
        path.stat().st_size for part in ("checkpoints", "snapshots") for path in copy.glob(f"trajectories/*/{part}/*/*")
    )
    assert delete(home, found).items == found.items
    assert tensors(copy) == {}
    assert not list(copy.rglob(".*")), "nothing is left aside"
    assert records(copy) == kept
    assert SESSION.jobs(have(home)) == []
    assert find(home, ALL).items == []


def test_a_new_metric_after_that_trains_again_to_the_same_numbers(copy: Path, tmp_path: Path) -> None:
    """Beside a home that has kept its weights, and so only measures."""
    other = Home(Path(shutil.copytree(copy, tmp_path / "kept")))
    home = Home(copy)
    delete(home, find(home, ALL))
    new = open_session([resolve(load_source(str(TINY)), "cpu", ["measure.0.samples=90"])])
    assert {job.kind for job in new.jobs(have(other, new))} == {"evaluate"}
    child = next(node.trajectory for node in new.tree if node.trajectory.parent)
    assert child.parent is not None
    chain = {child.key, child.parent.trajectory}
    for place in (home, other):
        for job in new.jobs(have(place, new)):
            if job.trajectory in chain:
                assert run_job(place, job)[0] == "done"
        assert chain.isdisjoint(job.trajectory for job in new.jobs(have(place, new)))
    assert measured(home, chain) == measured(other, chain)
    assert len(measured(home, chain)) == 2 * 6


def test_a_study_that_goes_on_after_gc_ends_the_same(copy: Path, tiny: Path) -> None:
    """Stopped twice: the later state is where it resumes, the earlier one is garbage."""
    home, job = Home(copy), joint()
    folder = home.trajectory(job.trajectory)
    shutil.rmtree(folder.root)
    for steps in (30, 20):
        calls = iter(range(steps))
        assert run_job(home, job, should_stop=lambda calls=calls: next(calls, None) is None)[0] == "preempted"
    assert [path.name for path in sorted(folder.checkpoints.iterdir())] == ["000000030", "000000050"]
    jobs = SESSION.jobs(have(home))
    found = find(home, ALL)
    mine = [(item.kind, item.path.name) for item in found.items if item.trajectory == job.trajectory]
    assert mine == [("rolling", "000000030")]
    delete(home, found)
    assert SESSION.jobs(have(home)) == jobs
    assert [(job.kind, job.start_step) for job in jobs] == [("train", 50), ("evaluate", 0)]
    for job in jobs:
        assert run_job(home, job)[0] == "done"
    delete(home, find(home, Choice()))
    assert {path: h for path, h in tensors(tiny).items() if job.trajectory in path} == tensors(copy)
    assert measured(home, [job.trajectory]) == measured(Home(tiny), [job.trajectory])


def test_what_died_processes_left(copy: Path) -> None:
    home = Home(copy)
    key = joint().trajectory
    folder = home.trajectory(key)
    kept = records(copy)
    expected = {
        old(folder.attempt(1) / "staged-checkpoints-000000080.d"): "staged",
        old(folder.attempt(1) / "staged-discarded-000000010.d"): "staged",
        old(folder.attempt(1) / ".DONE.json.999999999"): "leftover",
        old(folder.root / ".trajectory.json.999999999-0a1b2c3d"): "leftover",
        old(folder.root / f".train.lease.{'a' * 32}"): "leftover",
        old(folder.checkpoints / ".discarded-000000010-abc.d"): "leftover",
        old(home.runs / ".20261120T120501123456-1a2b3c.d"): "run",
        old(copy / ".calibration.json.999999999"): "leftover",
        old(copy / ".import.999999999.d"): "leftover",
        old(copy / ".import.999999999-0a1b2c3d.d"): "leftover",
        old(copy / f".home.json.{'a' * 32}"): "leftover",
        old(copy / ".rebuild-x1.d"): "leftover",
    }
    dead = {**lease._me(), "pid": 999999999}
    for path in (folder.lease("train"), home.gc_lease):
        path.write_text(json.dumps(dead))
        expected[path] = "lease"
    foreign = [old(copy / ".gitignore"), old(copy / ".git.d"), old(home.runs / ".DS_Store"), old(folder.root / ".x.1")]
    found = find(home, Choice())
    assert {item.path: item.kind for item in found.items} == expected
    assert all(item.bytes for item in found.items)
    assert len(delete(home, found).items) == len(expected)
    assert not any(path.exists() for path in expected)
    assert all(path.exists() for path in foreign)
    for path in foreign:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert records(copy) == kept


def test_what_living_processes_write_is_left(copy: Path) -> None:
    home = Home(copy)
    folder = home.trajectory(joint().trajectory)
    mine = old(folder.root / f".trajectory.json.{os.getpid()}")
    os.utime(mine, (time.time() - leftovers.GRACE_S / 2,) * 2)
    fresh = home.runs / ".20261120T120501123456-1a2b3c"
    fresh.mkdir()
    deep = old(copy / ".import.999999999.d")
    (deep / "part").touch()
    assert find(home, Choice()).items == []


def test_nothing_of_a_trajectory_that_is_worked_on(copy: Path) -> None:
    home, key = Home(copy), joint().trajectory
    for kind in ("train", "evaluate"):
        lease = acquire(home.trajectory(key).lease(kind))
        assert lease is not None
        with lease:
            found = find(home, ALL)
            assert found.busy == [key]
            assert found.items and not any(key in str(item.path) for item in found.items)
    found = find(home, ALL)
    lease = acquire(home.trajectory(key).lease("evaluate"))
    assert lease is not None
    with lease:  # taken between looking and deleting
        done = delete(home, found)
    assert done.left == [key]
    assert [item for item in found.items if item.trajectory != key] == done.items
    assert all(key in path for path in tensors(copy))
    assert holder(home.trajectory(key).lease("train")) is None


def test_a_trajectory_that_has_lost_something_meanwhile_is_left(copy: Path) -> None:
    home, key = Home(copy), joint().trajectory
    found = find(home, Choice(snapshots=True))
    shutil.rmtree(home.trajectory(key).checkpoint(80))
    assert delete(home, found).left == [key]
    assert len(list(home.trajectory(key).snapshots.iterdir())) == 4


def new_run(home: Home, session: Session = SESSION) -> None:
    record_run(home, session.studies[0], session.arms, None, ["study", "run"], Provenance({}, {}))


def test_what_only_superseded_runs_want_goes_when_asked_and_its_results_stay(copy: Path) -> None:
    home = Home(copy)
    arms = ["panels.left.arms.v_epochs=[0,2]", "panels.right.arms={v_epochs: [0, 2], u_epochs: [8, 6]}"]
    new_run(home, shorter := open_session([resolve(load_source(str(TINY)), "cpu", arms)]))
    gone = SESSION.tree.nodes.keys() - shorter.tree.nodes.keys()
    assert len(gone) == 1
    for choice in (Choice(), Choice(unwanted=True)):
        assert find(home, choice).items == []
    found = find(home, Choice(unwanted=True, superseded=True))
    assert {item.kind for item in found.items} == {"unwanted"}
    assert {item.trajectory for item in found.items} > gone, "and a branch point, and where only that arm was measured"
    kept = records(copy)
    delete(home, found)
    assert records(copy) == kept
    assert shorter.jobs(have(home, shorter)) == SESSION.jobs(have(home)) == []
    assert not list(home.trajectory(gone.pop()).checkpoints.iterdir())


def test_a_run_that_this_program_cannot_read_keeps_what_it_names(copy: Path) -> None:
    """It was recorded by another version, or with a component of your own that is not there."""
    home = Home(copy)
    path = home.run(run_names(home)[0]) / "run.json"
    path.write_text(path.read_text().replace('"name": "mlp"', '"name": "mine"'))
    assert find(home, Choice(unwanted=True, snapshots=True, ends=True)).items == []
    shutil.rmtree(path.parent)
    assert find(home, Choice()).items == []
    assert len(find(home, Choice(unwanted=True)).items) == 18


def test_a_run_recorded_between_looking_and_deleting_gets_everything_back(copy: Path) -> None:
    home, before = Home(copy), tensors(copy)
    found = find(home, ALL)
    new_run(home)
    done = delete(home, found)
    assert (done.stopped, done.items) == (True, [])
    assert tensors(copy) == before
    assert delete(home, find(home, ALL)).stopped is False


def test_a_run_recorded_while_folders_are_aside(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever records a run looks at the home after that: it either sees what is gone, or gets it back."""
    home, before = Home(copy), tensors(copy)
    first = find(home, ALL)
    aside = collecting._set_aside

    def then_a_run(*args: Any) -> Iterator[tuple[Path, Path]]:
        yield from aside(*args)
        new_run(home)

    monkeypatch.setattr(collecting, "_set_aside", then_a_run)
    assert delete(home, first).stopped
    assert tensors(copy) == before
    assert not list(copy.glob("trajectories/*/*/.discarded-*"))


def test_one_gc_at_a_time(copy: Path) -> None:
    lease = acquire(Home(copy).gc_lease)
    assert lease is not None
    with lease, pytest.raises(StudyError, match="another `study gc`"):
        delete(Home(copy), find(Home(copy), ALL))


class Killed(BaseException):
    """As if the process had ended here: nothing catches it."""


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, the file operation of this number is the last that is begun, and it is not done."""
    left = [number]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*args, **kwargs)

        return operation

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", counted(Path.rename))
        patched.setattr(Path, "touch", counted(Path.touch))
        patched.setattr(os, "unlink", counted(os.unlink))
        patched.setattr(os, "rmdir", counted(os.rmdir))
        patched.setattr(
            collecting, "holding", lambda *paths: nullcontext(True)
        )  # the leases of who is killed are stale, and taken over
        yield


def test_killed_at_any_moment_it_can_be_done_again(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of many kills every published folder is whole, nothing is to be trained, and another gc finishes."""
    kills = 0
    for number in (*range(8), *range(8, 130, 9)):
        place = Home(Path(shutil.copytree(copy, tmp_path / str(number))))
        found = find(place, ALL)
        try:
            with killed_at(number, monkeypatch):
                delete(place, found)
        except Killed:
            kills += 1
        for folder in [
            *place.root.glob("trajectories/*/checkpoints/0*"),
            *place.root.glob("trajectories/*/snapshots/0*"),
        ]:
            manifest = json.loads((folder / "manifest.json").read_text())
            assert {path.name for path in folder.iterdir()} == {"manifest.json", *manifest["files"]}
        assert SESSION.jobs(have(place)) == []
        delete(place, find(place, ALL))
        assert tensors(place.root) == {}
        assert not list(place.root.rglob(".discarded-*"))
        assert run_names(place) == run_names(Home(copy))
        shutil.rmtree(place.root)
    assert kills >= 15
