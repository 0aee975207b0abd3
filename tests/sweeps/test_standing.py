"""How work stands, against the jobs that a run would make of the same home."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.layout import Home
from results.stored import AttemptRecord
from studies.loader import load_source, resolve
from sweeps import queued
from sweeps.causes import CAUSES, cause_of
from sweeps.cost import Rates
from sweeps.plan import Inventory
from sweeps.queued import QueuedJob, queued_jobs
from sweeps.session import open_session
from sweeps.standing import Work, by_arm, works
from sweeps.summary import summarise
from sweeps.view import held_in, reached
from tests.homes import TINY

T = TypeVar("T")
SESSION = open_session([resolve(load_source(str(TINY)), "cpu")])
NODES = list(SESSION.tree)
KEYS = [key for node in NODES for at in node.points.values() for key in at]
BRANCHED = next(node for node in NODES if node.full_steps == {20, 40})  # v alone, with branches at both


def subset(of: list[T]) -> st.SearchStrategy[set[T]]:
    return st.sets(st.sampled_from(of))


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    full = {node.key: draw(subset([*node.boundaries(), node.start_step + 5])) for node in NODES}
    snapshots = {node.key: draw(subset(sorted(node.points))) for node in NODES}
    return Inventory(full, snapshots, draw(subset(KEYS)))


def nobody(attempt: AttemptRecord) -> None:
    return None


def attempt(
    number: int, status: str, start: int, stop: int, kind: str = "train", reason: str | None = None
) -> AttemptRecord:
    return AttemptRecord(BRANCHED.key, number, kind, status, reason, start, stop, None, None, None)


def look(
    attempts: list[AttemptRecord], held=nobody, queued=(), have: Inventory | None = None
) -> dict[tuple[str, int], Work]:
    """The work on the trajectory that branches, by kind and stop step."""
    found = works(SESSION, SESSION.arms, have or Inventory(), attempts, held, queued)
    return {(one.kind, one.stop_step): one for one in found if one.trajectory == BRANCHED.key}


@given(inventories())
def test_work_that_is_not_done_is_what_a_run_would_do(have: Inventory) -> None:
    found = works(SESSION, SESSION.arms, have, [], nobody)
    assert sorted(job.name for one in found for job in one.jobs) == sorted(job.name for job in SESSION.jobs(have))
    for one in found:
        assert (one.standing == "done") == (not one.jobs)
        assert all(one.start_step < job.stop_step <= one.stop_step or job.stop_step == 0 for job in one.jobs)
    assert len([one for one in found if one.kind == "train"]) == SESSION.tree.segments()
    assert sorted(key for one in found for key in one.evaluations) == sorted(KEYS)
    assert {key for one in found for key in one.unmeasured} == set(KEYS) - have.evaluated


@given(inventories())
def test_an_arm_needs_what_a_run_of_it_alone_would_do(have: Inventory) -> None:
    needed = by_arm(SESSION.arms, works(SESSION, SESSION.arms, have, [], nobody))
    for arm, some in zip(SESSION.arms, needed, strict=True):
        stops = {(one.trajectory, one.stop_step) for one in some if one.kind == "train"}
        ends = {(stage.trajectory.key, stage.stop_step) for stage in arm.stages}
        assert ends <= stops
        assert {key for one in some for key in one.evaluations} >= {point.evaluation for point in arm.points}
        alone = works(SESSION, [arm], have, [], nobody)
        assert {one.name for one in alone} == {one.name for one in some}
        assert {key for one in alone for key in one.evaluations} == {point.evaluation for point in arm.points}


@given(inventories())
def test_numbers_add_up(have: Inventory) -> None:
    found = works(SESSION, SESSION.arms, have, [], nobody)
    s = summarise(SESSION, SESSION.arms, by_arm(SESSION.arms, found), Rates(), lambda work: None)
    assert s.left == SESSION.cost(SESSION.jobs(have), Rates())
    assert sum(s.segments.values()) == SESSION.tree.segments()
    assert sum(s.evaluations.values()) == len(KEYS)
    assert s.evaluations.get("done", 0) == len(have.evaluated)


def test_the_newest_attempt_at_a_segment_tells_how_it_stands() -> None:
    first, second = ("train", 20), ("train", 40)
    assert {one.standing for one in look([]).values()} == {"missing"}
    failed = attempt(1, "failed", 20, 27, reason="ValueError: no")
    assert look([failed])[second].standing == "failed"
    assert look([failed])[first].standing == "missing", "it failed past the first segment"
    assert look([attempt(1, "failed", 0, 0)])[first].standing == "failed", "it failed before its first step"
    assert look([attempt(1, "preempted", 0, 20)])[first].standing == "preempted"
    assert look([attempt(1, "unfinished", 0, 20)])[first].standing == "lost"
    assert look([failed, attempt(2, "unfinished", 20, 40)])[second].standing == "lost"
    assert look([attempt(1, "done", 0, 20)])[first].standing == "missing", "what it made is gone"
    measuring = attempt(1, "failed", 0, 20, "evaluate")
    assert look([measuring])["evaluate", 20].standing == "failed"
    assert look([measuring])[first].standing == "missing"


def test_only_the_newest_attempt_can_be_the_one_that_runs() -> None:
    def held(one: AttemptRecord) -> str:
        assert one.attempt == 2, "no lease of an attempt that was superseded is asked"
        return "process 1 on here"

    both = look([attempt(1, "unfinished", 0, 20), attempt(2, "unfinished", 20, 40)], held)
    assert (both["train", 40].standing, both["train", 40].where) == ("running", "process 1 on here")
    assert both["train", 20].standing == "lost"


def test_what_waits_in_a_queue() -> None:
    waiting = QueuedJob("train", BRANCHED.key, 40, "job 7 of a cluster")
    elsewhere = QueuedJob("train", "0" * 20, 40, "of another study")
    found = look([attempt(1, "preempted", 20, 27)], queued=[waiting, elsewhere])
    assert (found["train", 40].standing, found["train", 40].where) == ("queued", "job 7 of a cluster")
    assert found["train", 20].standing == "missing"


def test_backends_that_have_a_queue_are_asked_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert queued_jobs(Home(tmp_path)) == []
    monkeypatch.setattr(queued, "QUEUES", ["tests.sweeps.test_standing:a_queue"])
    assert queued_jobs(Home(tmp_path)) == [QueuedJob("train", "t", 4, str(tmp_path))]


def a_queue(home: Home) -> list[QueuedJob]:
    return [QueuedJob("train", "t", 4, str(home.root))]


@pytest.mark.parametrize(
    ("status", "reason", "cause"),
    [
        ("done", None, None),
        ("unfinished", None, "lost"),
        ("preempted", "stopped on request at step 7", "preempted"),
        ("preempted", "stopped at step 7: the time limit of the job", "timeout"),
        ("failed", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory"),
        ("failed", "RuntimeError: DefaultCPUAllocator: not enough memory: you tried to allocate", "out of memory"),
        ("failed", "killed by the oom-killer of node 3", "out of memory"),
        ("failed", "Diverged: raw error 1e30 at step 3", "user error"),
        ("failed", "CheckpointError: x/online.safetensors: damaged", "user error"),
        ("failed", "the disk is full: free some space, then run the same command again", "failed"),
        ("failed", "ZeroDivisionError: room for error", "failed"),
        ("failed", None, "failed"),
    ],
)  # fmt: skip
def test_causes(status: str, reason: str | None, cause: str | None) -> None:
    assert cause is None or cause in CAUSES
    assert cause_of(attempt(1, status, 0, 7, reason=reason)) == cause


def test_an_attempt_that_ends_while_one_looks_is_not_lost(tmp_path: Path) -> None:
    """Its lease is gone, but not because it died."""
    home, one = Home(tmp_path), attempt(1, "unfinished", 0, 20)
    folder = home.trajectory(BRANCHED.key).attempt(1)
    folder.mkdir(parents=True)
    assert held_in(home)(one) is None
    (folder / "DONE.json").touch()
    assert held_in(home)(one) is not None


def test_how_far_an_attempt_has_come(tmp_path: Path) -> None:
    home, one = Home(tmp_path), attempt(3, "unfinished", 0, 40)
    work = Work("train", BRANCHED.key, 0, 0, 20, frozenset(), attempt=one)
    assert reached(home, replace(work, attempt=None)) is None
    assert reached(home, work) is None, "it has written nothing yet"
    folder = home.trajectory(BRANCHED.key).attempt(3)
    folder.mkdir(parents=True)
    lines = [{"type": "metrics", "step": step, "values": {"loss": 1.0}} for step in (5, 10)]
    lines.append({"type": "evaluation", "step": 0})
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"type": "metrics", "st'
    )
    assert reached(home, work) == 10
    assert reached(home, replace(work, kind="evaluate")) == 1
