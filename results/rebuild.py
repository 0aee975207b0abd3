"""Makes the store again from the run directories."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, delete

from results.ingest import Ingest, IngestReport
from results.layout import Home
from results.models import Base
from results.store import (
    BUSY_SECONDS,
    StoreError,
    explain,
    explained,
    open_store,
    parse_url,
    sqlite_file,
    writing,
)


def rebuild(engine_url: str, home: Home) -> IngestReport:
    """Replaces the store by one read from the home's files alone, also where the old one is damaged or newer.

    Other processes see the old store or the new one, nothing between. Raises `StoreError` as `open_store` and
    `ingest` do; after malformed files the new store holds all that could be read.
    """
    url = parse_url(engine_url)
    if url.get_backend_name() == "postgresql":
        work = _in_place(engine_url, home)
    elif (file := sqlite_file(url)) is not None:
        work = _beside(url, file, home)
    else:
        raise StoreError("A store in memory cannot be rebuilt; open it again instead.")
    work.raise_problems()
    return work.report


def _in_place(url: str, home: Home) -> Ingest:
    engine = open_store(url)
    try:
        with writing(engine) as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(delete(table))
            work = Ingest(home, lambda: _savepoint(connection), {})
            work.everything()
    finally:
        engine.dispose()
    return work


@contextmanager
def _savepoint(connection: Connection) -> Iterator[Connection]:
    with connection.begin_nested():
        yield connection


def _beside(url: URL, file: Path, home: Home) -> Ingest:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".rebuild-", dir=file.parent)
    except OSError as error:
        raise StoreError(f"A new store cannot be made in {file.parent}: {error.strerror}.") from error
    with scratch as folder:
        fresh = Path(folder) / file.name
        engine = open_store(f"sqlite:///{fresh}", scratch=True)
        try:
            work = Ingest(home, lambda: writing(engine), {})
            work.everything()
        finally:
            engine.dispose()
        with explained(url):
            _swap(fresh, file, url)
    return work


def _swap(fresh: Path, file: Path, url: URL) -> None:
    """Puts a new database in place of an old one, as one transaction where the old one still works.

    A rename under a database that others have open would leave them writing its -wal file, which the new
    database would then take for its own. A file that is no database can be open nowhere.
    """
    deadline = time.monotonic() + BUSY_SECONDS

    def give_up(status: int, _remaining: int, _total: int) -> None:
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} and time.monotonic() > deadline:
            raise explain(url, sqlite3.OperationalError("database is locked"))

    try:
        with (
            closing(sqlite3.connect(fresh)) as new,
            closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as old,
        ):
            new.backup(old, progress=give_up)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in {
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_CORRUPT,
        }:
            raise
        for suffix in ("-wal", "-shm"):  # first: they belong to the old file
            Path(f"{file}{suffix}").unlink(missing_ok=True)
        os.replace(fresh, file)  # noqa: PTH105  (the atomic one, said plainly)
