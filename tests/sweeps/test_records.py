"""What attempts have recorded, read as it grows."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.layout import TrajectoryDir
from sweeps.attempt import recorded_evaluations
from sweeps.records import Records


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_at_any_time_it_is_what_reading_everything_finds(seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        folder, records = TrajectoryDir(Path(place)), Records()
        for _ in range(30):
            there = sorted(folder.attempts.glob("*")) if folder.attempts.exists() else []
            running = [attempt for attempt in there if not (attempt / "DONE.json").exists()]
            match rng.choice(["begin", "write", "write", "write", "end", "look"]):
                case "begin":
                    folder.attempt(len(there) + 1).mkdir(parents=True)
                case "write" if running:
                    with (rng.choice(running) / "metrics.jsonl").open("ab") as file:
                        line = b'{"type": "evaluation", "evaluation": "%d"}\n' % rng.randrange(10**6)
                        file.write(rng.choice([line, line[:-9], b"\n", b'{"type": "metrics"}\n', b"\x00\n"]))
                case "end" if running:
                    (rng.choice(running) / "DONE.json").touch()
                case "look":
                    assert records(folder) == recorded_evaluations(folder)
        assert records(folder) == recorded_evaluations(folder)


def test_an_attempt_that_has_ended_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, records, opened = TrajectoryDir(tmp_path), Records(), []
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: (opened.append(path), original(path, *a, **k))[1])
    for number in range(1, 11):
        attempt = folder.attempt(number)
        attempt.mkdir(parents=True)
        (attempt / "metrics.jsonl").write_bytes(b'{"type": "evaluation", "evaluation": "%d"}\n' % number)
        (attempt / "DONE.json").touch()
        opened.clear()
        assert len(records(folder)) == number
        assert opened == [attempt / "metrics.jsonl"]
