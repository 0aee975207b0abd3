"""Queries, dump and export."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import Engine

from results.dump import canonical_dump
from results.export import write_table
from results.ingest import ingest
from results.queries import (
    ANY,
    PROTOCOL_COLUMNS,
    RESULT_COLUMNS,
    artefacts,
    attempts,
    evaluated_keys,
    evaluations,
    latest_run,
    protocols,
    results_table,
    runs,
    step_times,
    training_metrics,
    verdicts,
)
from results.store import StoreError


@pytest.fixture
def filled(builder, store: Engine) -> Engine:
    ingest(store, builder.standard())
    return store


def test_latest_run(filled: Engine) -> None:
    latest = latest_run(filled)
    assert latest is not None
    assert (latest.run, latest.variant, latest.config_hash) == ("20261121T120501-bbbbbb", None, "hash-1")
    assert latest.created == datetime(2026, 11, 20, 12, 5, 1, 500000, tzinfo=UTC)
    assert (latest.seeds, latest.config, latest.provenance["dirty"]) == ([1], {"a": [1, {"b": None}]}, True)
    for variant in ("w", ANY):
        found = latest_run(filled, "s", "cpu", variant)
        assert found is not None and found.run.endswith("cccccc")
    assert latest_run(filled, "s", "gpu") is None
    assert latest_run(filled, "other") is None


def test_runs(filled: Engine) -> None:
    frame = runs(filled)
    assert frame["variant"].tolist() == [None, None, "w"]
    assert str(frame["created"].dtype) == "datetime64[us, UTC]"
    assert runs(filled, "other").empty


def test_evaluations_of_all_runs_with_the_configuration(filled: Engine) -> None:
    frame = evaluations(filled, "s", "cpu")
    assert list(frame.columns) == [*RESULT_COLUMNS, "attributes"]
    arms = frame.groupby(["arm", "seed"], sort=False).size()
    assert arms.to_dict() == {("base", 1): 2, ("other", 1): 2, ("base", 0): 2}  # newest run first, each once
    values = frame.set_index(["arm", "seed", "step"])["value"]
    assert values["base", 1, 0] == values["other", 1, 0] == 40  # a shared measurement stands under each arm
    assert pd.isna(values["base", 1, 20])
    assert frame["attributes"].tolist() == [{"v_epochs": 5}] * 6
    assert frame["variant"].tolist() == [None] * 6
    assert frame["control"].tolist() == [False] * 6


def test_evaluations_of_other_configurations(builder, filled: Engine) -> None:
    assert evaluations(filled, "s", "cpu", "w")["seed"].tolist() == [7, 7]
    builder.run("20261123T000000-dddddd", config_hash="hash-9", arms=[builder.arm(seed=0, steps=(0,))])
    ingest(filled, builder.home)
    assert evaluations(filled, "s", "cpu")["seed"].tolist() == [0]
    assert evaluations(filled, "s", "cpu", config_hash="hash-1")["seed"].tolist() == [1, 1, 1, 1, 0, 0]
    assert evaluations(filled, "s", "cpu", config_hash="nothing").empty


def test_empty_frames_have_the_same_types(filled: Engine, new_store: Callable[[], Engine]) -> None:
    empty = new_store()
    for query in (runs, attempts, verdicts):
        assert query(empty).empty
        assert query(empty).dtypes.equals(query(filled).dtypes)
    for query in (evaluations, results_table):
        assert query(empty, "s", "cpu").dtypes.equals(query(filled, "s", "cpu").dtypes)
    assert results_table(empty, "s").dtypes.equals(results_table(filled, "s").dtypes)
    assert training_metrics(empty, ["t0"]).dtypes.equals(training_metrics(filled, ["t0"]).dtypes)


def test_results_table(builder, filled: Engine) -> None:
    builder.run("20261124T000000-eeeeee", scale="a-scale", arms=[builder.arm(seed=0)])
    ingest(filled, builder.home)
    table = results_table(filled, "s")
    assert list(table.columns) == [*RESULT_COLUMNS, *PROTOCOL_COLUMNS]
    assert table[["scale", "arm", "seed", "step"]].to_numpy().tolist() == [
        ["a-scale", "base", 0, 0], ["a-scale", "base", 0, 20],
        ["cpu", "base", 0, 0], ["cpu", "base", 0, 20], ["cpu", "base", 1, 0], ["cpu", "other", 1, 0],
    ]  # fmt: skip
    assert results_table(filled, "s", "gpu").empty
    assert results_table(filled, "s", "cpu", "w").empty


def test_training_metrics(filled: Engine) -> None:
    frame = training_metrics(filled, ["t1", "t0"], ["loss"])
    assert frame["trajectory"].tolist() == ["t0"] * 4 + ["t1"] * 4
    assert frame["step"].tolist() == [0, 5, 10, 15] * 2
    assert frame["value"].tolist()[:2] == [1 / 3, 1 / 8]
    assert set(training_metrics(filled, ["t0"])["name"]) == {"loss", "v_mse"}
    assert training_metrics(filled, []).empty
    assert training_metrics(filled, ["t0"], []).empty


def test_attempts(filled: Engine) -> None:
    frame = attempts(filled).set_index(["trajectory", "attempt"])
    assert frame["status"].tolist() == ["unfinished", "preempted", "done", "done"]
    assert frame["start_step"].tolist() == [0, 5, 0, 0]
    lost = frame.loc[("t0", 1)]
    assert pd.isna(lost["seconds"]) and pd.isna(lost["ended"]) and lost["host"] is None
    assert frame.loc[("t0", 3), "started"] == pd.Timestamp("2026-11-20T12:05:02Z")


def test_steps_shared_by_several_processes_count_for_each(builder, store: Engine) -> None:
    builder.trajectory("t")
    for number, ranks in ((1, {}), (2, {"ranks": 1}), (3, {"ranks": 4})):
        done = builder.attempt("t", number, []) / "DONE.json"
        done.write_text(json.dumps(json.loads(done.read_text()) | ranks))
    ingest(store, builder.home)
    assert sorted(seconds for _, _, seconds in step_times(store)) == pytest.approx([0.45, 0.45, 1.8])
    assert [None if pd.isna(one) else one for one in attempts(store)["ranks"]] == [None, 1, 4]


def test_keys_protocols_verdicts(builder, filled: Engine) -> None:
    assert evaluated_keys(filled) == {"e-t0-0", "e-t0-20", "e-t1-0"}
    builder.run("20261125T000000-ffffff", label="renamed")
    builder.run("20261001T000000-000000", label="older")
    ingest(filled, builder.home)
    assert protocols(filled) == {"p1": {"metric": "fid", "nfe": 1, "label": "renamed"}}
    assert verdicts(filled)["claim"].tolist() == ["c1", "c2"]
    assert verdicts(filled, variant=None)["claim"].tolist() == ["c1"]
    assert verdicts(filled, "s", "cpu", "w")["verdict"].tolist() == ["undecided"]
    assert verdicts(filled)["interval_low"].tolist()[0] == -2.0


def test_dump_is_sorted_and_tells_nothing_of_attempts(filled: Engine) -> None:
    lines = list(canonical_dump(filled))
    assert lines == sorted(set(lines))
    kinds = {json.loads(line)[0] for line in lines}
    assert kinds == {"arm", "evaluation", "metric", "point", "protocol", "stage", "trajectory", "verdict"}
    whole = "\n".join(lines)
    for hidden in ("2026", "c0ffee", "unfinished", "aaaaaa", "torch"):
        assert hidden not in whole


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"key": ["12e3", "a_b|c"], "value": [1 / 3, float("nan")], "what": [{"b": 1}, None], "n": [1, 2]}
    )


def test_csv_keeps_every_digit(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_table(frame, "csv", tmp_path / "t.csv")
    text = (tmp_path / "t.csv").read_bytes().decode()
    assert text == 'key,value,what,n\n12e3,0.3333333333333333,"{""b"": 1}",1\na_b|c,,,2\n'
    assert pd.read_csv(io.StringIO(text))["value"][0] == 1 / 3


def test_missing_whole_numbers_stay_whole(tmp_path: Path) -> None:
    frame = pd.DataFrame({"nfe": pd.array([1, None], dtype="Int64"), "panel": ["a", None]})
    write_table(frame, "csv", tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "nfe,panel\n1,a\n,\n"
    write_table(frame, "md", tmp_path / "t.md")
    assert "| 1 " in (tmp_path / "t.md").read_text()


def test_markdown_and_latex(frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(frame, "md", None)
    markdown = capsys.readouterr().out
    assert "| 12e3" in markdown and "0.333333 " in markdown and "a_b\\|c" in markdown and "nan" not in markdown
    write_table(frame, "latex", None)
    latex = capsys.readouterr().out
    assert r"\toprule" in latex and r"a\_b|c" in latex and r"\{" in latex


def test_parquet(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_table(frame, "parquet", tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["value"][0] == 1 / 3
    with pytest.raises(StoreError, match="needs a file"):
        write_table(frame, "parquet", None)


@pytest.mark.parametrize("fmt", ["csv", "md", "latex", "parquet"])
def test_unwritable_path_and_empty_frame(fmt: str, tmp_path: Path, filled: Engine) -> None:
    table = results_table(filled, "nothing")
    write_table(table, fmt, tmp_path / "t")
    with pytest.raises(StoreError, match=r"cannot be written"):
        write_table(table, fmt, tmp_path / "no" / "folder")


def test_artefacts_lie_in_the_attempt_that_counts(builder, store: Engine) -> None:
    home = builder.standard()
    ingest(store, home)
    places = artefacts(store, home, ["e-t0-0", "e-t0-20", "e-t1-20", "unknown"])
    folder = home.trajectory("t0")
    assert places == {
        "e-t0-0": folder.attempt(1) / "fid-e-t0-0.npy",
        "e-t0-20": folder.attempt(3) / "fid-e-t0-20.npy",
    }
    assert artefacts(store, home, []) == {}
