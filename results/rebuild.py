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
from results.owner import OwnerError, check_owner, home_id, is_own_file, note_owner
from results.store import (
    BUSY_SECONDS,
    VERSION_TABLE,
    StoreError,
    explain,
    explained,
    open_store,
    parse_url,
    reading,
    sqlite_file,
    writing,
)


def rebuild(store: str | URL, home: Home, *, replace: bool = False) -> IngestReport:
    """Replaces the store by one read from the home's files alone, also where the old one is damaged or newer.

    Other processes see the old store or the new one, nothing between. A store outside of the home is only replaced
    where it is known to be this home's, unless ``replace``. Raises `StoreError` as `open_store` and `ingest` do; after
    malformed files the new store holds all that could be read.
    """
    url = parse_url(store)
    if url.get_backend_name() == "postgresql":
        work = _in_place(url, home, replace)
    elif (file := sqlite_file(url)) is not None:
        work = _beside(url, file, home, replace)
    else:
        raise StoreError("A store in memory cannot be rebuilt; open it again instead.")
    work.raise_problems()
    return work.report


def _in_place(url: URL, home: Home, replace: bool) -> Ingest:
    engine = open_store(url)
    try:
        with writing(engine) as connection:
            if not replace:
                check_owner(connection, home)
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(delete(table))
            _note(connection, home)
            work = Ingest(home, lambda: _savepoint(connection), {})
            work.everything()
    finally:
        engine.dispose()
    return work


def _note(connection: Connection, home: Home) -> None:
    if ident := home_id(home):
        note_owner(connection, ident)


def _refuse_foreign_tables(url: URL, file: Path) -> None:
    """Raises: OwnerError where a database holds what no store does, and would lose it. A file that is no database, or
    damaged, has no tables."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return
    ours = {*Base.metadata.tables, VERSION_TABLE} if VERSION_TABLE in names else set()
    if foreign := {name for name in names if not name.startswith("sqlite_")} - ours:
        raise OwnerError(
            f"The database {url.render_as_string()} has tables that are not the store's "
            f"({', '.join(sorted(foreign)[:3])}), which would be lost. Set STUDY_STORE to another file."
        )


def _check_file(url: URL, home: Home) -> None:
    """Raises: StoreError where a SQLite file is another home's, or no store at all."""
    try:
        engine = open_store(url)
        try:
            with reading(engine) as connection:
                check_owner(connection, home)
        finally:
            engine.dispose()
    except OwnerError:
        raise
    except StoreError as error:
        raise StoreError(
            f"{error}\nIt lies outside of the home, so it is not replaced unasked: if it is this home's store, "
            "`study db rebuild --replace` makes it again."
        ) from error


@contextmanager
def _savepoint(connection: Connection) -> Iterator[Connection]:
    with connection.begin_nested():
        yield connection


def _beside(url: URL, file: Path, home: Home, replace: bool) -> Ingest:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".rebuild-", dir=file.parent)
    except OSError as error:
        raise StoreError(f"A new store cannot be made in {file.parent}: {error.strerror}.") from error
    with scratch as folder:
        if file.is_file() and not is_own_file(url, home):
            _refuse_foreign_tables(url, file)
            if not replace:
                _check_file(url, home)
        fresh = Path(folder) / file.name
        engine = open_store(URL.create("sqlite", database=str(fresh)), scratch=True)
        try:
            with writing(engine) as connection:
                _note(connection, home)
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
