"""Homes written by hand, as finished runs leave them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pandas as pd

from results.layout import Home

from .synthetic import Case, FakeRun

POINT = ["stage", "stage_epoch", "epoch", "step", "trajectory", "evaluation", "protocol", "metric", "nfe"]
LINE = ["evaluation", "step", "protocol", "metric", "nfe", "value"]


def run_of(case: Case, **fields: Any) -> FakeRun:
    """A run of a case's study at its scale."""
    study, config = case[0], case[0].model_dump(mode="json")
    own: dict[str, Any] = {"study": study.study, "scale": study.scale, "seeds": list(study.seeds), "config": config}
    return replace(FakeRun(), **{**own, **fields})


def write_home(home: Home, case: Case, run: FakeRun | None = None, command: str = "study run") -> None:
    """Add a run to a home, with every point of the case that has a value measured."""
    _, frame, protocols = case
    run = run or run_of(case)
    folder = home.run(run.run)
    folder.mkdir(parents=True)
    described = {"format": 1, "run": run.run, "created": run.created.isoformat(), "command": command.split()}
    described |= {"study": run.study, "scale": run.scale, "variant": run.variant, "seeds": run.seeds}
    described |= {"config": run.config, "config_hash": run.config_hash, "provenance": {}}
    (folder / "run.json").write_text(json.dumps(described))
    (folder / "protocols.json").write_text(json.dumps(protocols))
    arms = []
    for (panel, arm, seed), rows in frame.groupby(["panel", "arm", "seed"], sort=False):
        head = {"panel": panel, "arm": arm, "seed": seed, "control": bool(rows["control"].iloc[0])}
        rest = {"attributes": rows["attributes"].iloc[0], "stages": [], "points": rows[POINT].to_dict("records")}
        arms.append(json.dumps({**head, **rest}))
    (folder / "arms.jsonl").write_text("\n".join(arms) + "\n")
    _write_trajectories(home, frame[frame["value"].notna()].drop_duplicates("evaluation"))


def _write_trajectories(home: Home, measured: pd.DataFrame) -> None:
    """One more attempt a trajectory, which measured all of it."""
    for key, rows in measured.groupby("trajectory"):
        trajectory = home.trajectory(str(key))
        attempt = trajectory.attempt(1 + len(list(trajectory.attempts.glob("*"))))
        attempt.mkdir(parents=True)
        identity = {"format": 1, "trajectory": key, "parent": None, "seed": 0, "horizon_steps": None, "dynamics": {}}
        trajectory.description.write_text(json.dumps(identity))
        (attempt / "segment.json").write_text(json.dumps({"format": 1, "kind": "evaluate"}))
        lines = [{"type": "evaluation", "weights": "ema", **row} for row in rows[LINE].to_dict("records")]
        (attempt / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
