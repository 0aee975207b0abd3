"""The plain records that commands look at, and reading only some trajectories of a home."""

from __future__ import annotations

from sqlalchemy import Engine

from results.ingest import ingest
from results.queries import attempts, evaluated_keys
from results.stored import (
    AT_ONCE,
    attempt_records,
    evaluated_keys_of,
    measured_protocols,
    newest_run,
    stored_runs,
    stored_trajectories,
)


def test_the_latest_run_counts_with_the_seeds_of_its_configuration(builder, store: Engine) -> None:
    assert (stored_runs(store), newest_run(store)) == ([], None)
    builder.standard()
    builder.run("20261119T120501-dddddd", config_hash="hash-0", seeds=[9])
    ingest(store, builder.home)
    itself, variant = stored_runs(store)
    assert (itself.run, itself.variant, itself.seeds) == ("20261121T120501-bbbbbb", None, (0, 1))
    assert itself.config == {"a": [1, {"b": None}]}
    assert (variant.variant, variant.seeds, variant.config_hash) == ("w", (0, 1), "hash-2")
    assert newest_run(store) == variant.run


def test_attempts_and_evaluations_of_some_trajectories(builder, store: Engine) -> None:
    ingest(store, builder.standard())
    records = attempt_records(store)
    frame = attempts(store)
    assert [(one.trajectory, one.attempt, one.status) for one in records] == list(
        zip(frame["trajectory"], frame["attempt"], frame["status"], strict=True)
    )
    many = ["t1", *(f"none{i}" for i in range(AT_ONCE))]
    assert attempt_records(store, many) == [one for one in records if one.trajectory == "t1"]
    assert attempt_records(store, []) == []
    assert evaluated_keys_of(store) == evaluated_keys(store) == {"e-t0-0", "e-t0-20", "e-t1-0"}
    assert evaluated_keys_of(store, many) == {"e-t1-0"}
    assert measured_protocols(store, {"t0"}) == {("t0", 0): {"p1"}, ("t0", 20): {"p1"}}


def test_trajectories_with_their_parents(builder, store: Engine) -> None:
    ingest(store, builder.standard())
    root, child = stored_trajectories(store)
    assert (root.trajectory, root.parent, root.seed) == ("t0", None, 0)
    assert (child.trajectory, child.parent, child.seed) == ("t1", ("t0", 20), 1)
    assert child.dynamics == {"network": "mlp", "lr": 1e-3}


def test_taking_in_only_some_trajectories(builder, store: Engine) -> None:
    home = builder.standard()
    assert ingest(store, home, only=["t1", "not there"]).attempts == 1
    assert {one.trajectory for one in attempt_records(store)} == {"t1"}
    assert len(stored_runs(store)) == 2, "runs are always taken in"
    assert ingest(store, home).attempts == 3
    assert ingest(store, home, only=["t0", "t1"]).attempts == 0
