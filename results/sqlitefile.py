"""How connections to a SQLite file are set up: its journal, its transactions."""

from __future__ import annotations

import logging
import sqlite3
import time
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, event

from results.filesystem import is_network


def prepare(engine: Engine, name: str, fstype: str, busy_s: float) -> None:
    """Set up every connection of an engine.

    Args:
        name: what the store is called where it is said that WAL is not used; empty to say nothing.
        fstype: the type of the file system that it lies on.
        busy_s: how long to wait for another process.
    """

    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun by _begin, also those with DDL
        connection.execute("PRAGMA foreign_keys = ON")
        if is_network(fstype):
            # WAL is safe only where all who use the file share memory, so on one machine.
            if name and (_pragma(connection, "journal_mode") == "wal" or _pragma(connection, "schema_version") == 0):
                _tell_of_network(name, fstype)
            _set_journal(connection, "DELETE", busy_s)
            connection.execute("PRAGMA synchronous = FULL")
        else:
            connection.execute("PRAGMA synchronous = NORMAL")  # safe with WAL, and spares a disk flush a transaction
            _set_journal(connection, "WAL", busy_s)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", _begin)


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _set_journal(connection: sqlite3.Connection, mode: str, busy_s: float) -> None:
    deadline = time.monotonic() + busy_s
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            return
        except sqlite3.OperationalError as error:
            # Where two processes make the file at once, SQLite refuses this at once instead of waiting.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@cache
def _tell_of_network(name: str, fstype: str) -> None:
    """Once: as the store is made, or found to have come from a local disk."""
    logging.getLogger(__name__).warning(
        "The store %s lies on a network file system (%s), where SQLite's WAL mode would be unsafe. A rollback journal "
        "is used instead: it is slower, readers and writers wait for each other, and it is as good as that file "
        "system's locks. With several machines at work, keep the store on a local disk or in PostgreSQL (STUDY_STORE).",
        name,
        fstype,
    )


def _begin(connection: Connection) -> None:
    # A writer takes its lock at once: a reader that turns writer later could only fail, not wait.
    immediate = connection.get_execution_options().get("study_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
