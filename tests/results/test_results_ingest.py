"""Ingest: idempotent, incremental, independent of the order, and precise about what is wrong."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, delete, select

from results import files
from results.dump import canonical_dump
from results.ingest import Ingest, IngestReport, ingest, upsert
from results.layout import Home
from results.models import Arm, Evaluation, Metric, Point, Run, Source
from results.queries import attempts, training_metrics
from results.rebuild import rebuild
from results.store import StoreError, open_store, reading, writing
from tests.results.conftest import sqlite_store


def dump(engine: Engine) -> list[str]:
    return list(canonical_dump(engine))


def everything(engine: Engine) -> dict[str, list[Any]]:
    """All rows, attempt numbers and times included."""
    with reading(engine) as connection:
        tables = [t for t in Run.metadata.sorted_tables if t is not Source.__table__]
        return {t.name: sorted(map(repr, connection.execute(select(t)))) for t in tables}


def test_counts_and_second_pass(builder, store: Engine) -> None:
    home = builder.standard()
    assert asdict(ingest(store, home)) == {
        "runs": 3, "trajectories": 2, "attempts": 4, "metrics": 2 * (3 + 3 + 4), "evaluations": 5,
        "verdicts": 2,
    }  # fmt: skip
    before = everything(store)
    assert ingest(store, home) == IngestReport()
    assert everything(store) == before


def test_empty_or_missing_home(tmp_path: Path, store: Engine) -> None:
    assert ingest(store, Home(tmp_path / "nowhere")) == IngestReport()
    assert dump(store) == []


def test_rebuild_equals_incremental(builder, new_url: Callable[[], str]) -> None:
    home, url = builder.standard(), new_url()
    engine = open_store(url)
    ingest(engine, home)
    builder.append(home.trajectory("t1").attempt(1) / "metrics.jsonl", builder.metrics_line(20))
    builder.verdict(claim="c3")
    ingest(engine, home)
    incremental = dump(engine)
    rows = everything(engine)
    report = rebuild(url, home)
    assert (report.runs, report.verdicts) == (3, 3)
    assert dump(engine) == incremental
    assert everything(engine) == rows
    engine.dispose()


def test_lowest_attempt_counts(builder, store: Engine) -> None:
    lines = [builder.metrics_line(5, scale=1), builder.evaluation_line("t", 5, value=1.0)]
    others = [builder.metrics_line(5, scale=2), builder.evaluation_line("t", 5, value=2.0)]
    builder.attempt("t", 2, others)
    ingest(store, builder.home)
    builder.attempt("t", 1, lines)
    builder.attempt("t", 10, others)
    ingest(store, builder.home)
    with reading(store) as connection:
        assert connection.scalars(select(Metric.attempt).union_all(select(Evaluation.attempt))).all() == [1] * 3
        assert connection.scalar(select(Evaluation.value)) == 1.0
        assert connection.scalar(select(Metric.value).where(Metric.name == "v_mse")) == 2.0


@given(data=st.data())
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_order_of_ingest_does_not_matter(builder, data: st.DataObject) -> None:
    """Attempts come in any order and pieces; values differ by attempt to make a wrong choice visible."""
    root = Path(tempfile.mkdtemp(dir=builder.home.root))
    try:
        local = type(builder)(root / "home")
        pieces: list[tuple[int, bytes]] = []
        for number in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4, unique=True)):
            span = range(data.draw(st.integers(0, 3)), data.draw(st.integers(4, 7)))
            entries = [local.metrics_line(step, scale=number) for step in span]
            entries += [local.evaluation_line("t", step, value=number) for step in span]
            content = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
            cut = data.draw(st.integers(0, len(content)))
            pieces += [(number, content[:cut]), (number, content)]
        for i in data.draw(st.permutations(range(len(pieces)))):
            path = local.home.trajectory("t").attempt(pieces[i][0]) / "metrics.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.stat().st_size < len(pieces[i][1]):
                path.write_bytes(pieces[i][1])
            engine = sqlite_store(root / "store.sqlite")
            ingest(engine, local.home)
            engine.dispose()
        at_once = sqlite_store(root / "other.sqlite")
        ingest(at_once, local.home)
        engine = sqlite_store(root / "store.sqlite")
        assert everything(engine) == everything(at_once)
        engine.dispose()
        at_once.dispose()
    finally:
        shutil.rmtree(root)


def test_killed_run_has_the_dump_of_an_undisturbed_one(builder, new_store: Callable[[], Engine]) -> None:
    killed, undisturbed = new_store(), new_store()
    calm = type(builder)(builder.home.root.parent / "calm")
    ingest(killed, builder.standard())
    ingest(undisturbed, calm.standard(interrupted=False))
    assert dump(killed) == dump(undisturbed)
    assert everything(killed) != everything(undisturbed)


@given(cut=st.integers(0, 10_000), chunk=st.integers(1, 300), where=st.sampled_from(["metrics", "verdicts"]))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_line_cut_off_anywhere(builder, cut: int, chunk: int, where: str) -> None:
    root = Path(tempfile.mkdtemp(dir=builder.home.root))
    local = type(builder)(root / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK_BYTES", chunk)
        folder = local.attempt("t", 1, [local.metrics_line(s) for s in range(4)] + [local.evaluation_line("t", 4)])
        local.verdict(claim="Ünïcode")
        local.verdict()
        path = folder / "metrics.jsonl" if where == "metrics" else local.home.verdicts
        whole = path.read_bytes()
        cut %= len(whole) + 1
        path.write_bytes(whole[:cut])
        engine = sqlite_store(root / "store.sqlite")
        report = ingest(engine, local.home)
        lines = whole[:cut].count(b"\n")
        read = report.metrics // 2 + report.evaluations if where == "metrics" else report.verdicts
        assert read == lines
        assert ingest(engine, local.home) == IngestReport()
        path.write_bytes(whole)
        ingest(engine, local.home)
        at_once = sqlite_store(root / "other.sqlite")
        ingest(at_once, local.home)
        assert everything(engine) == everything(at_once)
        engine.dispose()
        at_once.dispose()
    shutil.rmtree(root)


def test_growing_attempt_is_read_once(builder, store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = builder.attempt("t", 1, [builder.metrics_line(0)], status=None)
    assert ingest(store, builder.home).metrics == 2
    assert attempts(store).loc[0, ["status", "kind", "stop_step"]].tolist() == ["unfinished", "train", 20]
    builder.append(folder / "metrics.jsonl", builder.metrics_line(1))
    assert ingest(store, builder.home).metrics == 2
    builder.done(folder, "failed")
    assert ingest(store, builder.home) == IngestReport(attempts=1)
    assert attempts(store).loc[0, "status"] == "failed"


def test_interrupted_anywhere(builder, new_store: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    home, store, at_once = builder.standard(), new_store(), new_store()
    ingest(at_once, home)
    for allowed in range(30):
        calls = iter(range(allowed))
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr("results.ingest.upsert", lambda *a, calls=calls, **k: _upsert_or_stop(calls, *a, **k))
            ingest(store, home)
    ingest(store, home)
    assert everything(store) == everything(at_once)


def _upsert_or_stop(calls: Iterator[int], *args: Any, **options: Any) -> None:
    if next(calls, None) is None:
        raise KeyboardInterrupt
    upsert(*args, **options)


def test_unpublished_folders_are_passed_over(builder, store: Engine) -> None:
    builder.run(".tmp-run")
    builder.write(builder.home.run("half") / "arms.jsonl", builder.arm())
    builder.trajectory(".tmp")
    builder.write(builder.home.trajectory("t").attempts / "new" / "segment.json", {})
    assert ingest(store, builder.home) == IngestReport()


def test_numbers_that_json_does_not_have(builder, store: Engine) -> None:
    folder = builder.attempt("t", 1, [])
    (folder / "metrics.jsonl").write_text(
        '{"type": "metrics", "step": 1, "values": {"a": NaN, "b": Infinity, "c": -Infinity, "d": null, "e": 3}}\n'
    )
    ingest(store, builder.home)
    values = training_metrics(store, ["t"]).set_index("name")["value"]
    assert values.isna().to_dict() == {"a": True, "b": False, "c": False, "d": True, "e": False}
    assert values[["b", "c", "e"]].tolist() == [float("inf"), float("-inf"), 3.0]
    assert [json.loads(line)[4] for line in dump(store) if '"metric"' in line] == [
        None,
        "inf",
        "-inf",
        None,
        3.0,
    ]


def broken_line(builder: Any, path: Path, line: bytes) -> None:
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([content[0], line + b"\n", *content[1:]]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"type": "metrics", "st', "Invalid JSON"),
        (b"\x00\x00\xff", "Invalid JSON"),
        (b'{"type": "metrics", "step": 1.5, "values": {}}', "step: Input should be a valid integer"),
        (b'{"type": "metrics", "step": 1, "values": {"a": "x"}}', "values.a: .*valid number"),
        (b'{"type": "metrics", "step": 99999999999999999999, "values": {}}', "metrics.step"),
        (b'{"type": "log", "text": "x"}', "tag 'log'"),
        (
            b'{"format": 2, "type": "metrics", "step": 1, "values": {}}',
            "in format 2, this program reads format 1",
        ),
    ],
)
def test_malformed_line(builder, store: Engine, line: bytes, message: str) -> None:
    home = builder.standard()
    path = home.trajectory("t0").attempt(1) / "metrics.jsonl"
    broken_line(builder, path, line)
    for _ in range(2):  # and again, until it is repaired
        with pytest.raises(StoreError, match=rf"t0/attempts/0001/metrics.jsonl, line 2: .*{message}"):
            ingest(store, home)
    rows = everything(store)
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([content[0], *content[2:]]))
    rebuild(store.url.render_as_string(hide_password=False), home)
    assert everything(store) == rows  # nothing else had been missing


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        (
            "runs/20261120T120501-aaaaaa/run.json",
            {"format": 2},
            "it is in format 2, this program reads format 1",
        ),
        (
            "runs/20261120T120501-aaaaaa/run.json",
            {"run": "x"},
            "describes x, which belongs in a folder of that name",
        ),
        ("runs/20261120T120501-aaaaaa/run.json", {"seeds": None}, "seeds: Input should be a valid array"),
        ("runs/20261120T120501-aaaaaa/run.json", {"config": {"a": float("inf")}}, "cannot be stored"),
        ("runs/20261120T120501-aaaaaa/protocols.json", {"format": 2}, "another format than 1"),
        ("runs/20261120T120501-aaaaaa/protocols.json", {"p": 3}, "p: Input should be a valid dict"),
        ("trajectories/t0/trajectory.json", {"format": 2}, "it is in format 2"),
        ("trajectories/t0/trajectory.json", {"seed": True}, "seed: Input should be a valid integer"),
        ("trajectories/t0/attempts/0003/segment.json", {"format": 2}, "it is in format 2"),
        (
            "trajectories/t0/attempts/0003/DONE.json",
            {"format": "1"},
            "format: Input should be a valid integer",
        ),
        ("trajectories/t0/attempts/0003/DONE.json", {"status": "great"}, "status: Input should be 'done'"),
    ],
)
def test_wrong_document(builder, store: Engine, file: str, fields: dict[str, Any], message: str) -> None:
    home = builder.standard()
    sound = (home.root / file).read_text()
    edit(home.root / file, **fields)
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"{Path(file).parent.name}.*{message}"):
            ingest(store, home)
    with reading(store) as connection:
        assert len(connection.execute(select(Metric)).all()) == 2 * (4 + 4)
        assert len(connection.execute(select(Evaluation)).all()) == 3
    (home.root / file).write_text(sound)
    ingest(store, home)
    rows = everything(store)
    rebuild(store.url.render_as_string(hide_password=False), home)
    assert everything(store) == rows


def test_broken_arms_name_the_line_and_leave_no_half_run(builder, store: Engine) -> None:
    home = builder.standard()
    path = home.run("20261120T120501-aaaaaa") / "arms.jsonl"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(StoreError, match=r"aaaaaa/arms.jsonl, line 2: Invalid JSON"):
        ingest(store, home)
    with reading(store) as connection:
        assert len(connection.execute(select(Run)).all()) == 2


def test_many_problems_are_summed_up(builder, store: Engine) -> None:
    for number in range(8):
        builder.write(builder.home.trajectory(f"x{number}").description, {"format": 3})
    builder.trajectory("y")
    with pytest.raises(StoreError, match=r"x4/trajectory.json: .*\n\.\.\. and 3 more files\.$"):
        ingest(store, builder.home)
    assert len(dump(store)) == 1


def test_shortened_file_is_not_guessed_at(builder, store: Engine) -> None:
    home = builder.standard()
    ingest(store, home)
    path = home.trajectory("t1").attempt(1) / "metrics.jsonl"
    path.write_text("")
    with pytest.raises(StoreError, match="shorter than when it was last read"):
        ingest(store, home)
    rebuild(store.url.render_as_string(hide_password=False), home)
    assert ingest(store, home) == IngestReport()


def test_changed_run_replaces_its_rows(builder, store: Engine) -> None:
    home = builder.standard()
    ingest(store, home)
    builder.run("20261120T120501-aaaaaa", arms=[builder.arm(seed=5, steps=(0,))])
    assert ingest(store, home).runs == 1
    with reading(store) as connection:
        assert connection.scalars(select(Arm.seed).where(Arm.run.like("%aaaaaa"))).all() == [5]
        assert len(connection.execute(select(Point).where(Point.run.like("%aaaaaa"))).all()) == 1


def test_random_values_survive_to_the_last_bit(builder, store: Engine) -> None:
    source = random.Random(0)
    values = {f"m{i}": source.uniform(-1, 1) * 10.0 ** source.randint(-300, 300) for i in range(500)}
    builder.attempt("t", 1, [{"type": "metrics", "step": 0, "values": values}])
    ingest(store, builder.home)
    frame = training_metrics(store, ["t"])
    assert dict(zip(frame["name"], frame["value"], strict=True)) == values


def test_marks_are_those_of_the_moment(builder, store: Engine) -> None:
    """A pass that began before another process rebuilt the store must not skip what the new store lacks."""
    folder = builder.attempt("t", 1, [builder.metrics_line(0)], status=None)
    ingest(store, builder.home)
    builder.append(folder / "metrics.jsonl", builder.metrics_line(1))

    def begin() -> AbstractContextManager[Connection]:
        with writing(store) as connection:
            connection.execute(delete(Metric))
            connection.execute(delete(Source))
        return writing(store)

    known = {"trajectories/t/attempts/0001/metrics.jsonl": files.Mark(offset=75, lines=1)}
    work = Ingest(builder.home, begin, known)
    work.everything()
    assert sorted(training_metrics(store, ["t"], ["loss"])["step"]) == [0, 1]


def test_what_an_attempt_says_twice_counts_as_it_first_stood(builder, store: Engine) -> None:
    lines = [builder.metrics_line(5, scale=1), builder.metrics_line(5, scale=2)]
    lines += [builder.evaluation_line("t", 5, value=1.0), builder.evaluation_line("t", 5, value=2.0)]
    builder.attempt("t", 1, lines)
    ingest(store, builder.home)
    assert training_metrics(store, ["t"], ["v_mse"])["value"].tolist() == [2.0]
    with reading(store) as connection:
        assert connection.scalars(select(Evaluation.value)).all() == [1.0]


NAMES = ["a,b", 'a"b', "a\\b", "{a}", "NULL", "null", "", " ", "a'b", "Ünï\n", "%s", ":x"]


def test_odd_names_survive(builder, store: Engine) -> None:
    builder.attempt("t", 1, [{"type": "metrics", "step": 0, "values": dict.fromkeys(NAMES, 1.0)}])
    builder.run("20261120T120501-aaaaaa", arms=[], command=[], config={"a": NAMES, "b": [], "c": [[1], [2, 3]]})
    ingest(store, builder.home)
    assert sorted(training_metrics(store, ["t"])["name"]) == sorted(NAMES)
    with reading(store) as connection:
        assert connection.scalar(select(Run.config)) == {"a": NAMES, "b": [], "c": [[1], [2, 3]]}
        assert connection.scalar(select(Run.command)) == []
