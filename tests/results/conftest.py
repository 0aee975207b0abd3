"""A small home in the documented formats, and stores on SQLite and PostgreSQL to read it into."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from results.layout import Home
from results.store import open_store

BACKENDS = [pytest.param("sqlite"), pytest.param("postgres", marks=pytest.mark.postgres)]


class HomeBuilder:
    """Writes the files of a home; `standard` writes a whole one."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        root.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, *entries: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return path

    def append(self, path: Path, *entries: Any) -> None:
        with path.open("a") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)

    def run(self, name: str, *, arms: list[dict[str, Any]] | None = None, label: str = "fid", **fields: Any) -> None:
        folder = self.home.run(name)
        run = {
            "format": 1, "run": name, "created": "2026-11-20T12:05:01.5+00:00", "command": ["study", "run"],
            "study": "s", "scale": "cpu", "variant": None, "seeds": [0, 1], "config_hash": "hash-1",
            "config": {"a": [1, {"b": None}]}, "provenance": {"commit": "c0ffee", "dirty": True},
        } | fields  # fmt: skip
        arms = [self.arm(seed=0), self.arm(seed=1)] if arms is None else arms
        who = {key: run[key] for key in ("study", "scale", "variant")}
        self.write(folder / "arms.jsonl", *(who | arm for arm in arms))
        self.write(folder / "protocols.json", {"p1": {"metric": "fid", "nfe": 1, "label": label}})
        self.write(folder / "run.json", run)

    def arm(self, name: str = "base", seed: int = 0, steps: tuple[int, ...] = (0, 20), **fields: Any) -> dict[str, Any]:
        trajectory = f"t{seed}"
        points = [
            {"stage": "v", "stage_epoch": i, "epoch": i, "step": step, "trajectory": trajectory,
             "evaluation": f"e-{trajectory}-{step}", "protocol": "p1", "metric": "fid", "nfe": 1}
            for i, step in enumerate(steps)
        ]  # fmt: skip
        stage = {"name": "v", "trajectory": trajectory, "start_step": 0, "stop_step": 20, "start_epoch": 0,
                 "stop_epoch": 1}  # fmt: skip
        return {"panel": "left", "arm": name, "seed": seed, "control": False, "attributes": {"v_epochs": 5},
                "stages": [stage], "points": points} | fields  # fmt: skip

    def trajectory(self, key: str, parent: dict[str, Any] | None = None, seed: int = 0) -> None:
        self.write(
            self.home.trajectory(key).description,
            {"format": 1, "trajectory": key, "parent": parent, "seed": seed, "horizon_steps": None,
             "dynamics": {"network": "mlp", "lr": 1e-3}},
        )  # fmt: skip

    def metrics_line(self, step: int, scale: float = 1.0) -> dict[str, Any]:
        return {"type": "metrics", "step": step, "values": {"loss": scale / (step + 3), "v_mse": 2 * scale}}

    def evaluation_line(self, trajectory: str, step: int, **fields: Any) -> dict[str, Any]:
        return {
            "type": "evaluation", "evaluation": f"e-{trajectory}-{step}", "step": step, "weights": "ema",
            "protocol": "p1", "metric": "fid", "nfe": 1, "value": 40 + step / 7, "seconds": 0.4,
        } | fields  # fmt: skip

    def attempt(
        self, trajectory: str, number: int, lines: list[Any], status: str | None = "done", start: int = 0
    ) -> Path:
        folder = self.home.trajectory(trajectory).attempt(number)
        self.write(
            folder / "segment.json",
            {"format": 1, "kind": "train", "trajectory": trajectory, "attempt": number, "start_step": start,
             "stop_step": 20, "device": "cpu", "threads": 1, "evaluations": [], "observers": []},
        )  # fmt: skip
        self.write(folder / "metrics.jsonl", *lines)
        if status:
            self.done(folder, status, start)
        return folder

    def done(self, folder: Path, status: str = "done", start: int = 0) -> None:
        self.write(
            folder / "DONE.json",
            {"format": 1, "status": status, "reason": None, "kind": "train", "start_step": start,
             "stop_step": 20, "steps": 20 - start, "seconds": 9.1, "seconds_per_step": 0.45,
             "started": "2026-11-20T12:05:02Z", "ended": "2026-11-20T12:05:11Z",
             "host": "h", "device": "cpu", "threads": 1, "versions": {"torch": "2.9"}},
        )  # fmt: skip

    def verdict(self, **fields: Any) -> None:
        line = {
            "study": "s", "scale": "cpu", "variant": None, "claim": "c1", "claim_hash": "ch",
            "protocol": "p1", "metric": "fid", "verdict": "supported", "direction": "less", "effect": -1.5,
            "interval": [-2.0, -1.0], "n": 2, "planned_n": 5, "time": "2026-11-20T13:00:00Z",
        }  # fmt: skip
        self.append(self.home.verdicts, line | fields)

    def standard(self, interrupted: bool = True) -> Home:
        """Three runs, one trajectory with overlapping attempts (the first one lost), one without."""
        self.run("20261120T120501-aaaaaa")
        self.run("20261121T120501-bbbbbb", seeds=[1], arms=[self.arm(seed=1), self.arm("other", seed=1)])
        self.run("20261122T120501-cccccc", variant="w", config_hash="hash-2", arms=[self.arm(seed=7)])
        self.trajectory("t0")
        self.trajectory("t1", parent={"trajectory": "t0", "step": 20}, seed=1)
        steps = [self.metrics_line(step) for step in range(0, 20, 5)]
        evaluations = [self.evaluation_line("t0", step) for step in (0, 20)]
        if interrupted:
            self.attempt("t0", 1, [evaluations[0], *steps[:3]], status=None)
            self.attempt("t0", 2, [evaluations[0], *steps[1:]], status="preempted", start=5)
            self.attempt("t0", 3, evaluations)
        else:
            self.attempt("t0", 1, [evaluations[0], *steps, evaluations[1]])
        self.attempt("t1", 1, [*steps, self.evaluation_line("t1", 0)])
        self.verdict()
        self.verdict(claim="c2", variant="w", verdict="undecided", effect=None, interval=None, direction=None)
        return self.home


@pytest.fixture
def builder(tmp_path: Path) -> HomeBuilder:
    return HomeBuilder(tmp_path / "home")


@pytest.fixture(params=BACKENDS)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Makes addresses of empty stores: SQLite files, or schemas in the database STUDY_TEST_POSTGRES."""
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path / uuid.uuid4().hex}.sqlite"
        return
    server = os.environ.get("STUDY_TEST_POSTGRES")
    if not server:
        pytest.skip("postgres: STUDY_TEST_POSTGRES (a SQLAlchemy URL) is not set")
    url = make_url(server)
    url = url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
    admin = create_engine(url)
    schemas: list[str] = []

    def new() -> str:
        schemas.append(f"study_{uuid.uuid4().hex}")
        with admin.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schemas[-1]}"))
        there = url.update_query_dict({"options": f"-csearch_path={schemas[-1]}"})
        return there.render_as_string(hide_password=False)

    yield new
    with admin.begin() as connection:
        for schema in schemas:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    admin.dispose()


@cache
def _empty_store() -> bytes:
    """A SQLite file as `open_store` makes it, with all migrations, which take longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sqlite"
        open_store(f"sqlite:///{path}").dispose()
        return path.read_bytes()


def sqlite_store(path: Path) -> Engine:
    """Opens the store in a file, which is made where it is missing: a copy of one that was made before."""
    if not path.exists():
        path.write_bytes(_empty_store())
    return open_store(f"sqlite:///{path}")


@pytest.fixture
def new_store(new_url: Callable[[], str]) -> Iterator[Callable[[], Engine]]:
    """Opens empty stores."""
    engines: list[Engine] = []

    def new() -> Engine:
        url = make_url(new_url())
        in_file = url.get_backend_name() == "sqlite"
        engines.append(
            sqlite_store(Path(str(url.database))) if in_file else open_store(url.render_as_string(hide_password=False))
        )
        return engines[-1]

    yield new
    for engine in engines:
        engine.dispose()


@pytest.fixture
def store(new_store: Callable[[], Engine]) -> Engine:
    return new_store()
