"""Takes what is new in a home into the store.

Every write is an upsert whose outcome does not depend on the order, and each run, trajectory and attempt is
one transaction that also notes how far its files were read. So ingest may be killed, repeated, or run twice
at once; files are read under the writers' lock, so that whoever writes last has read last. Files that vanish
are not noticed; `results.rebuild` starts afresh.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Executable, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from results import formats, models, rows
from results.files import (
    FileError,
    Lines,
    Mark,
    folders,
    look,
    read_document,
    read_protocols,
    read_whole_lines,
)
from results.layout import Home, TrajectoryDir
from results.owner import claim
from results.rows import Row
from results.store import StoreError, reading, writing

Begin = Callable[[], AbstractContextManager[Connection]]
SHOWN_PROBLEMS = 5


@dataclass
class IngestReport:
    """How much was read by one ingest: new or changed files' runs, trajectories, attempts and lines."""

    runs: int = 0
    trajectories: int = 0
    attempts: int = 0
    metrics: int = 0
    evaluations: int = 0
    verdicts: int = 0


def ingest(engine: Engine, home: Home, only: Collection[str] | None = None) -> IngestReport:
    """Reads the files of a home that are new, have grown or have changed since the last time; of trajectories,
    ``only`` these, where they are given.

    Raises `StoreError` where the store is another home's, and, naming file and line, where one is malformed or of a
    foreign format, after all else has been stored.
    """
    claim(engine, home)
    with reading(engine) as connection:
        known = _marks(connection)
    work = Ingest(home, lambda: writing(engine), known)
    work.everything(only)
    work.raise_problems()
    return work.report


def upsert(connection: Connection, model: type[models.Base], entries: Sequence[Row], *, lowest: str = "") -> None:
    """Inserts or replaces rows; with ``lowest``, replaces only where the new row has less in that column.

    Of rows with the same key the last counts; with ``lowest``, the first of those that have least.
    """
    if entries:
        dialect = connection.dialect.name
        rows = entries if dialect == "sqlite" else _columns(model, _one_a_key(model, entries, lowest))
        connection.execute(_upsert(dialect, model, lowest), rows)


@cache
def _upsert(dialect: str, model: type[models.Base], lowest: str) -> Executable:
    table: Any = model.__table__
    if dialect == "sqlite":
        insert: Any = sqlite.insert(table)
    else:  # psycopg sends many rows one by one, so they go as one array a column
        arrays = (
            func.unnest(bindparam(f"all_{c.name}", type_=postgresql.ARRAY(c.type, dimensions=1))) for c in table.columns
        )
        insert = postgresql.insert(table).from_select(table.columns.keys(), select(*arrays))
    values = {c.name: insert.excluded[c.name] for c in table.columns if not c.primary_key}
    where = insert.excluded[lowest] < table.c[lowest] if lowest else None
    statement: Executable = insert.on_conflict_do_update(index_elements=table.primary_key, set_=values, where=where)
    return statement


def _columns(model: type[models.Base], entries: Sequence[Row]) -> dict[str, list[Any]]:
    return {f"all_{name}": [entry[name] for entry in entries] for name in model.__table__.c.keys()}  # noqa: SIM118


def _one_a_key(model: type[models.Base], entries: Sequence[Row], lowest: str) -> list[Row]:
    """What rows inserted one after another would leave: PostgreSQL touches no row twice in one statement."""
    key = itemgetter(*(c.name for c in model.__table__.primary_key))
    left: dict[Any, Row] = {}
    for entry in entries:
        before = left.get(key(entry))
        if not lowest or before is None or entry[lowest] < before[lowest]:
            left[key(entry)] = entry
    return list(left.values())


class Ingest:
    """One pass over a home. ``begin`` opens the transaction of one run, trajectory or attempt."""

    def __init__(self, home: Home, begin: Begin, known: dict[str, Mark]) -> None:
        self.home, self.begin, self.known = home, begin, known
        self.report = IngestReport()
        self.problems: list[str] = []

    def everything(self, only: Collection[str] | None = None) -> None:
        for folder in folders(self.home.runs):
            with self._noting_problems():
                self._run(folder)
        every = folders(self.home.trajectories) if only is None else [self.home.trajectories / key for key in only]
        for folder in every:
            with self._noting_problems():
                self._trajectory(TrajectoryDir(folder))
            for attempt in folders(folder / "attempts"):
                if attempt.name.isdecimal():
                    with self._noting_problems():
                        self._attempt(attempt, folder.name)
        with self._noting_problems():
            self._verdicts(self.home.verdicts)

    def raise_problems(self) -> None:
        """`StoreError` with the first few problems, if there were any."""
        if self.problems:
            more = len(self.problems) - SHOWN_PROBLEMS
            tail = [f"... and {more} more files."] if more > 0 else []
            raise StoreError("\n".join([*self.problems[:SHOWN_PROBLEMS], *tail]))

    def _run(self, folder: Path) -> None:
        paths = [folder / name for name in ("run.json", "arms.jsonl", "protocols.json")]
        news = self._news(*paths)
        if not news or look(paths[0]) is None:  # without run.json it is not a published run
            return
        with self._transaction(folder) as connection:
            run = read_document(paths[0], formats.RunFile)
            _check_name(paths[0], run.run, folder)
            arms = read_whole_lines(paths[1], formats.ARM_LINE)
            protocols = read_protocols(paths[2])
            connection.execute(delete(models.Run).where(models.Run.run == run.run))  # and all that hangs on it
            for model, entries in rows.of_run(run, arms, protocols).items():
                upsert(connection, model, entries)
            upsert(connection, models.Source, news)
        self.report.runs += 1

    def _trajectory(self, folder: TrajectoryDir) -> None:
        news = self._news(folder.description)
        if not news:
            return
        with self._transaction(folder.description) as connection:
            described = read_document(folder.description, formats.TrajectoryFile)
            _check_name(folder.description, described.trajectory, folder.root)
            upsert(connection, models.Trajectory, [rows.of_trajectory(described)])
            upsert(connection, models.Source, news)
        self.report.trajectories += 1

    def _attempt(self, folder: Path, trajectory: str) -> None:
        metrics = folder / "metrics.jsonl"
        news = self._news(*(folder / name for name in rows.ATTEMPT_DOCUMENTS))
        grown = bool(self._news(metrics))
        if not news and not grown:
            return
        ident = {"trajectory": trajectory, "attempt": int(folder.name)}
        with self._transaction(folder) as connection:
            row, problems = rows.of_attempt(folder)
            self.problems.extend(problems)
            upsert(connection, models.Attempt, [row | ident])
            upsert(connection, models.Source, [] if problems else news)
            if grown:
                self._attempt_lines(connection, metrics, ident)
        self.report.attempts += 1

    def _attempt_lines(self, connection: Connection, path: Path, ident: Row) -> None:
        lines = Lines(path, self._mark(connection, path), formats.ATTEMPT_LINE)
        for batch in lines.batches():
            metrics, evaluations = rows.of_lines(ident, (entry for _, entry in batch))
            upsert(connection, models.Metric, metrics, lowest="attempt")
            upsert(connection, models.Evaluation, evaluations, lowest="attempt")
            self.report.metrics += len(metrics)
            self.report.evaluations += len(evaluations)
        self._finish(connection, lines)

    def _verdicts(self, path: Path) -> None:
        if not self._news(path):
            return
        with self._transaction(path) as connection:
            lines = Lines(path, self._mark(connection, path), formats.VERDICT_LINE)
            for batch in lines.batches():
                upsert(connection, models.Verdict, [rows.of_verdict(*pair) for pair in batch])
                self.report.verdicts += len(batch)
            self._finish(connection, lines)

    def _finish(self, connection: Connection, lines: Lines[Any]) -> None:
        upsert(connection, models.Source, [{"path": self._relative(lines.path), **asdict(lines.mark)}])
        if lines.problem:
            self.problems.append(lines.problem)

    def _news(self, *paths: Path) -> list[Row]:
        """The marks of those files that are not as they were; files that are not there are no news."""
        looks = [(self._relative(path), stat) for path in paths if (stat := look(path)) is not None]
        return [
            {"path": name, **asdict(Mark(stat.st_size, 0, stat.st_size, stat.st_mtime_ns))}
            for name, stat in looks
            if not self.known.get(name, Mark()).fits(stat)
        ]

    def _mark(self, connection: Connection, path: Path) -> Mark:
        # Not from `known`: another process may have read further, or rebuilt the store, since then.
        name = self._relative(path)
        return _marks(connection, models.Source.path == name).get(name, Mark())

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.home.root).as_posix()

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except FileError as error:
            self.problems.append(str(error))

    @contextmanager
    def _transaction(self, path: Path) -> Iterator[Connection]:
        with self.begin() as connection:
            try:
                yield connection
            except (StatementError, ValueError) as error:
                # What the database cannot hold is the file's fault; anything else is not.
                if isinstance(error, DBAPIError) and not isinstance(error, DataError | IntegrityError):
                    raise
                raise FileError(f"{path} holds what cannot be stored: {getattr(error, 'orig', error)}.") from error


def _marks(connection: Connection, *conditions: ColumnElement[bool]) -> dict[str, Mark]:
    sources = connection.execute(select(models.Source).where(*conditions))
    return {s.path: Mark(s.offset, s.lines, s.size, s.mtime_ns) for s in sources}


def _check_name(path: Path, name: str, folder: Path) -> None:
    if name != folder.name:
        raise FileError(f"{path} describes {name}, which belongs in a folder of that name.")
