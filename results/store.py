"""Opening the store: its engine, its schema, and what is said when it cannot be opened."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import URL, Connection, Engine, create_engine, func, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from results.filesystem import filesystem_of
from results.sqlitefile import prepare

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0004"  # the newest revision in results/migrations/versions
VERSION_TABLE = "study_schema"  # not Alembic's usual name: a shared PostgreSQL may hold that of another program
BUSY_SECONDS = 60.0  # how long a writer waits for another one
WRITER_LOCK = 0x6D66737464  # "mfstd": the PostgreSQL advisory lock that all writers of the store take
LEAST_FREE_BYTES = 1 << 20
CACHE = "the store is only a cache of the run directories"


class StoreError(Exception):
    """The store, or a file that it reads, cannot be used; the message says what, where and what to do."""


# What the database says -> (what it means, what to do). The first match counts.
_KNOWN_FAILURES = (
    ("file is not a database", "is not a SQLite database", "Run `study db rebuild` to make it again."),
    ("malformed", "is damaged", "Run `study db rebuild` to make it again."),
    ("disk is full", "cannot grow: the disk is full", "Free some space and repeat the command."),
    (
        "no space left on device",
        "cannot grow: its server's disk is full",
        "Free some space there and repeat.",
    ),
    (
        "unable to open database file",
        "cannot be opened",
        "Check that its folder is there and writable, give another home with --home, or set STUDY_STORE to a URL "
        "such as sqlite:////a/writable/store.sqlite.",
    ),
    (
        "readonly database",
        "cannot be written to: it or its folder is read-only",
        "Make both writable, give another home with --home, or set STUDY_STORE to a URL such as "
        "sqlite:////a/writable/store.sqlite.",
    ),
    (
        "locked",
        f"has been locked by another process for over {BUSY_SECONDS:.0f} s",
        "Wait for that process (or stop it) and repeat the command.",
    ),
)


def explain(url: URL, error: Exception) -> StoreError:
    """What a database error means to a user."""
    detail = str(getattr(error, "orig", None) or error).strip()
    where = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and "disk I/O error" in detail and _disk_is_full(url):
        detail = "database or disk is full"  # what SQLite would say had its shared memory not failed first
    for sign, meaning, advice in _KNOWN_FAILURES:
        if sign in detail.lower():
            return StoreError(f"The store {where} {meaning} ({detail}). {advice} Nothing is lost: {CACHE}.")
    return StoreError(
        f"The store {where} failed: {detail.removesuffix('.')}. Check the address (STUDY_STORE) and the database, then "
        f"run the same command again. Nothing is lost: {CACHE}."
    )


def _disk_is_full(url: URL) -> bool:
    return bool(url.database) and shutil.disk_usage(Path(str(url.database)).parent).free < LEAST_FREE_BYTES


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turns database errors in its body into `StoreError`."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        raise explain(url, error) from error


def parse_url(url: str | URL) -> URL:
    """Checks a SQLAlchemy URL; `StoreError` unless it names a SQLite file or a PostgreSQL database.

    One of SQLite has no options: how a file is opened is the store's affair.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # the address is not repeated: it may hold a password
        raise StoreError(
            "The address of the store is not a database URL. Set STUDY_STORE to something like "
            "sqlite:////home/me/store.sqlite or postgresql://user@host/database."
        ) from error
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise StoreError(
            f"The store {parsed.render_as_string()} is neither SQLite nor PostgreSQL; set STUDY_STORE to one of them."
        )
    if parsed.get_backend_name() == "sqlite" and parsed.query:
        raise StoreError(
            f"The store {parsed.render_as_string()} has options ({', '.join(parsed.query)}), and one in SQLite takes "
            "none: leave out what follows the '?' in STUDY_STORE."
        )
    return parsed


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL; None for PostgreSQL and for a database in memory."""
    in_file = url.get_backend_name() == "sqlite" and url.database not in {None, "", ":memory:"}
    return Path(str(url.database)) if in_file else None


def open_store(url: str | URL, *, scratch: bool = False) -> Engine:
    """Opens the store at a SQLAlchemy URL, making it (and a SQLite file's folder) and migrating it as needed.

    Where SQLite must do without WAL that is said in the log as the store is made, but for a ``scratch`` file.

    Raises `StoreError` where that is impossible or where a newer version of this program made the store.
    Dispose of the engine after use. Any number of processes may open one store at once.
    """
    parsed = parse_url(url)
    engine = _engine(parsed, scratch)
    try:
        with reading(engine) as connection:
            version = _version(connection)
        if version != HEAD:
            _migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for queries, with database errors explained."""
    with explained(engine.url), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write: one at a time, so upserts cannot deadlock; readers do not wait."""
    writer = engine.execution_options(study_writes=True)
    with explained(engine.url), writer.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))
        yield connection


def _engine(url: URL, scratch: bool) -> Engine:
    where = url.render_as_string(hide_password=True)
    sqlite = url.get_backend_name() == "sqlite"
    # NaN and infinities are not JSON: PostgreSQL refuses them, so SQLite must not take them either.
    options: dict[str, Any] = {"json_serializer": partial(json.dumps, allow_nan=False)}
    if sqlite:
        options["connect_args"] = {"timeout": BUSY_SECONDS}
    try:
        if file := sqlite_file(url):
            file.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, **options)
    except (ImportError, NoSuchModuleError) as error:
        raise StoreError(
            f"The store {where} needs a database driver that is not installed ({error}). For PostgreSQL: "
            "pip install 'meanflow-study[postgresql]'"
        ) from error
    except OSError as error:
        raise StoreError(
            f"The folder of the store {where} cannot be made: {error}. Give another home with --home, or set "
            "STUDY_STORE to a URL such as sqlite:////a/writable/store.sqlite."
        ) from error
    except (SQLAlchemyError, TypeError, ValueError) as error:
        raise StoreError(f"The store {where} cannot be opened: {error}. Check the address (STUDY_STORE).") from error
    if engine.dialect.is_async:
        raise StoreError(f"The store {where} names an asynchronous driver; leave the driver out of the address.")
    if sqlite:
        prepare(engine, "" if scratch else where, filesystem_of(file) if file else "", BUSY_SECONDS)
    return engine


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return cast("str | None", connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for this package's migrations over an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    with writing(engine) as connection:
        version = _version(connection)  # again: another process may have migrated while this one waited
        config = alembic_config(connection)
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if version is not None and version not in known:
            raise StoreError(
                f"The store {engine.url.render_as_string()} has schema {version}, which is newer than this "
                f"program (it knows up to {HEAD}). Update meanflow-study, or set STUDY_STORE to another "
                f"place. Nothing is lost: {CACHE}."
            )
        command.upgrade(config, HEAD)
