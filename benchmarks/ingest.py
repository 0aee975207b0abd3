"""Time of taking 1000 attempts of 1000 metric rows each into the store, and of a second pass that finds nothing new.

    python benchmarks/ingest.py
    python benchmarks/ingest.py --url postgresql://study@127.0.0.1:5432/postgres

Attempts are written as the trainer writes them: lines of four metrics each, and ten evaluations. A PostgreSQL database
is filled in a schema of its own, which is dropped in the end. Beside it stands what reading and checking the files
takes alone, which no database can save. On a busy machine the CPU time says more than the time passed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

from sqlalchemy import create_engine, text

from results.files import Lines, Mark
from results.formats import ATTEMPT_LINE
from results.ingest import ingest
from results.layout import Home
from results.rows import of_lines
from results.store import open_store, parse_url

METRICS = ("loss", "u_mse", "v_loss", "v_mse")
EVALUATIONS = 10


def make(home: Home, attempts: int, rows: int) -> None:
    """Attempts, each on a trajectory of its own."""
    for number in range(attempts):
        key = f"{number:020x}"
        folder = home.trajectory(key)
        attempt = folder.attempt(1)
        attempt.mkdir(parents=True)
        trajectory = {"format": 1, "trajectory": key, "parent": None, "seed": number, "horizon_steps": None}
        folder.description.write_text(json.dumps({**trajectory, "dynamics": {"network": {"name": "mlp"}}}))
        (attempt / "segment.json").write_text(json.dumps({"format": 1, "kind": "train", "start_step": 0}))
        (attempt / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(key, rows)))
        (attempt / "DONE.json").write_text(json.dumps({"format": 1, "status": "done", "kind": "train", "steps": rows}))


def lines(key: str, rows: int) -> Iterator[dict[str, object]]:
    for i in range(rows // len(METRICS)):
        values = {name: (i + 1.5) / (j + 7) for j, name in enumerate(METRICS)}
        yield {"type": "metrics", "step": 40 * i, "values": values}
    for i in range(EVALUATIONS):
        yield {
            "type": "evaluation",
            "evaluation": f"{key[-8:]}{i:012x}",
            "step": 40 * i,
            "weights": "ema",
            "protocol": "p" * 20,
            "metric": "frechet_pixel",
            "nfe": 1,
            "value": 1.0 / (i + 1),
            "seconds": 0.1,
        }


@contextmanager
def empty_store(url: str | None, folder: Path) -> Iterator[str]:
    """The address of a store that is there only inside."""
    if url is None:
        yield f"sqlite:///{folder / 'store.sqlite'}"
        return
    parsed, schema = parse_url(url), f"ingest_{uuid.uuid4().hex}"
    admin = create_engine(parsed)
    with admin.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    try:
        there = parsed.update_query_dict({"options": f"-csearch_path={schema}"})
        yield there.render_as_string(hide_password=False)
    finally:
        with admin.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        admin.dispose()


def reading_alone(home: Home) -> float:
    """CPU seconds."""
    began = process_time()
    for path in home.trajectories.glob("*/attempts/*/metrics.jsonl"):
        for batch in Lines(path, Mark(), ATTEMPT_LINE).batches():
            of_lines({"trajectory": "t", "attempt": 1}, (entry for _, entry in batch))
    return process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of ingesting many attempts.")
    parser.add_argument("--attempts", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1000, help="metric rows of each")
    parser.add_argument("--url", help="of a PostgreSQL database; by default, SQLite in a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        home = Home(Path(place) / "home")
        make(home, args.attempts, args.rows)
        alone = reading_alone(home)
        with empty_store(args.url, Path(place)) as url:
            engine = open_store(url)
            seconds, cpu, reports = [], [], []
            for _ in range(2):
                began, cpu_began = perf_counter(), process_time()
                reports.append(ingest(engine, home))
                seconds.append(perf_counter() - began)
                cpu.append(process_time() - cpu_began)
            engine.dispose()
    first, second = reports
    assert (first.attempts, first.metrics) == (
        args.attempts,
        args.attempts * (args.rows // len(METRICS) * len(METRICS)),
    )
    assert not any(vars(second).values()), "the second pass found something new"
    print(
        f"{engine.dialect.name}, {args.attempts} attempts of {args.rows} metric rows, load {os.getloadavg()[0]:.1f}: "
        f"{seconds[0]:.1f} s ({first.metrics / seconds[0]:,.0f} rows/s); CPU of this process {cpu[0]:.1f} s, of which "
        f"reading and checking the files {alone:.1f} s; second pass {seconds[1]:.2f} s, CPU {cpu[1]:.2f} s"
    )


if __name__ == "__main__":
    main()
