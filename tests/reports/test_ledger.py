from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from reports import ledger
from reports.ledger import read_verdicts, record_verdicts
from reports.verdicts import Verdict

from .synthetic import v_then_u
from .test_claims import judged


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return list(judged(*v_then_u(range(3))).values())


def test_recorded_once(verdicts: list[Verdict], tmp_path: Path) -> None:
    path = tmp_path / "new" / "verdicts.jsonl"
    assert read_verdicts(path) == [] == record_verdicts(path, verdicts)
    before = path.read_bytes()
    assert len(record_verdicts(path, verdicts)) == 4 and path.read_bytes() == before
    path.chmod(0o444)  # nothing new: nothing is opened for writing
    assert len(record_verdicts(path, verdicts)) == 4


def test_lines_of_earlier_versions_are_read(verdicts: list[Verdict], tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    record_verdicts(path, verdicts)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:  # as it was when an outcome only said whether it is the primary one
        for outcome in line["details"]["outcomes"]:
            outcome["primary"] = outcome.pop("role") == "primary"
            del outcome["bound"], outcome["inner_interval"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(record_verdicts(path, verdicts)) == 4 and len(read_verdicts(path)) == 8


def test_what_another_process_appended_meanwhile_is_seen(
    verdicts: list[Verdict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "verdicts.jsonl"
    record_verdicts(path, verdicts)
    whole = path.read_bytes()
    monkeypatch.setattr(ledger, "read_verdicts", lambda path: [])  # as if read before the other had written
    assert len(record_verdicts(path, verdicts)) == 4
    assert path.read_bytes() == whole


def _record(path: Path, verdicts: list[Verdict], wait: Callable[[], object]) -> None:
    wait()
    record_verdicts(path, verdicts)


def test_processes_at_once(verdicts: list[Verdict], tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(6)
    processes = [context.Process(target=_record, args=(path, verdicts, barrier.wait)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6 and len(read_verdicts(path)) == 4
