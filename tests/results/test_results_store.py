"""Opening the store: schema, migrations, and every way in which it can fail."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, select, text

import results
from results import models
from results.dump import canonical_dump
from results.ingest import ingest
from results.layout import Home
from results.queries import evaluated_keys, runs
from results.rebuild import rebuild
from results.store import BUSY_SECONDS, HEAD, VERSION_TABLE, StoreError, alembic_config, open_store, reading, writing


def test_migrated_schema_is_that_of_the_models(store: Engine) -> None:
    assert_models_schema(store)


def test_head_is_the_newest_migration(store: Engine) -> None:
    with reading(store) as connection:
        assert ScriptDirectory.from_config(alembic_config(connection)).get_heads() == [HEAD]


def test_opening_again_does_not_migrate(new_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_url()
    open_store(url).dispose()
    migrated: list[object] = []
    monkeypatch.setattr("results.store._migrate", migrated.append)
    open_store(url).dispose()
    assert not migrated


def test_queries_import_neither_alembic_nor_pydantic() -> None:
    code = (
        "import sys, results.queries\nprint([name for name in ('alembic', 'pydantic', 'torch') if name in sys.modules])"
    )
    root = Path(results.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_newer_schema_is_refused(new_url: Callable[[], str]) -> None:
    url = new_url()
    engine = open_store(url)
    with writing(engine) as connection:
        connection.execute(text("UPDATE study_schema SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match=r"has schema 9999.*newer.*Update meanflow-study"):
        open_store(url)


def test_a_filled_store_of_any_release_is_migrated(
    store: Engine, new_url: Callable[[], str], builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(store, builder.standard())
    with reading(store) as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert (revisions[0], revisions[-1]) == (HEAD, "0001")
    for revision in revisions:
        url = new_url()
        with monkeypatch.context() as patch:
            patch.setattr("results.store.HEAD", revision)
            old = open_store(url)
        copy_rows(store, old)
        old.dispose()
        engine = open_store(url)
        assert list(canonical_dump(engine)) == list(canonical_dump(store))
        assert_models_schema(engine)
        ingest(engine, builder.home)  # what it has it does not take again
        assert list(canonical_dump(engine)) == list(canonical_dump(store))
        engine.dispose()


def copy_rows(source: Engine, older: Engine) -> None:
    """What an older schema can hold of a store."""
    tables = MetaData()
    tables.reflect(older)
    with reading(source) as reader, writing(older) as writer:
        for table in tables.sorted_tables:
            rows = reader.execute(select(table)).mappings().all() if table.name != VERSION_TABLE else []
            if rows:
                writer.execute(table.insert(), [dict(row) for row in rows])


def assert_models_schema(engine: Engine) -> None:
    with reading(engine) as connection:
        options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, models.Base.metadata) == []


def test_failed_migration_leaves_nothing(new_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_url()
    with monkeypatch.context() as patch:
        patch.setattr("alembic.command.upgrade", _half_a_migration)
        with pytest.raises(RuntimeError, match="killed"):
            open_store(url)
    engine = open_store(url)
    assert runs(engine).empty
    engine.dispose()


def _half_a_migration(config: object, _revision: str) -> None:
    config.attributes["connection"].execute(text("CREATE TABLE run (run TEXT)"))  # type: ignore[attr-defined]
    raise RuntimeError("killed")


def test_sqlite_connections_are_set_up(tmp_path: Path) -> None:
    engine = open_store(f"sqlite:///{tmp_path / 'new' / 'folder' / 'store.sqlite'}")
    with engine.connect() as connection:
        pragmas = {p: connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "foreign_keys")}
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 1000 * BUSY_SECONDS
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1}
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("no url at all", "not a database URL"),
        ("sqlite:///x?timeout=never", r"has options \(timeout\).*leave out what follows the '\?'"),
        ("sqlite:///x?mode=ro&foo=1", r"has options \(mode, foo\)"),
        ("sqlite:///file:x?uri=true", r"has options \(uri\)"),
        ("sqlite+nonsense:///x", "cannot be opened|not installed"),
        ("mysql://me:secret@host/db", "neither SQLite nor PostgreSQL"),
        ("postgresql+asyncpg://me:secret@host/db", "driver"),
        ("postgresql+pg8000://me:secret@127.0.0.1/db", r"driver that is not installed.*pip install"),
        ("postgresql+nonsense://me:secret@127.0.0.1/db", r"driver that is not installed.*pip install"),
        ("postgresql://me:secret@127.0.0.1:1/db", r"127.0.0.1:1/db failed"),
    ],
)
def test_bad_addresses(url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=message) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"this is a text file, and a long one" * 100)
    with pytest.raises(StoreError, match=r"store.sqlite is not a SQLite database.*study db rebuild"):
        open_store(f"sqlite:///{path}")


def test_damaged_database(builder) -> None:
    home = builder.standard()
    path = home.store
    url = f"sqlite:///{path}"
    engine = open_store(url)
    ingest(engine, home)
    expected = list(canonical_dump(engine))
    engine.dispose()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StoreError, match=r"store.sqlite is damaged.*study db rebuild"):
        list(canonical_dump(open_store(url)))
    rebuild(url, home)
    engine = open_store(url)
    assert list(canonical_dump(engine)) == expected
    engine.dispose()


def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path}")


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        open_store(f"sqlite:///{tmp_path / 'file' / 'store.sqlite'}")


def test_read_only_folder(builder, tmpfs: Callable[[str], Path]) -> None:
    home = builder.standard()
    folder = tmpfs("size=4m")
    url = f"sqlite:///{folder / 'store.sqlite'}"
    open_store(url).dispose()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(StoreError, match=r"store.sqlite cannot be (opened|written to).*writable"):
        ingest(open_store(url), home)
    with pytest.raises(StoreError, match=r"A new store cannot be made in .*mount0: Read-only"):
        rebuild(url, home)
    with pytest.raises(StoreError, match="writable"):
        open_store(f"sqlite:///{folder / 'other.sqlite'}")
    with pytest.raises(StoreError, match="Read-only"):
        open_store(f"sqlite:///{folder / 'new' / 'other.sqlite'}")


def test_full_disk(builder, tmpfs: Callable[[str], Path]) -> None:
    home = builder.standard()
    folder = tmpfs("size=2m")
    url = f"sqlite:///{folder / 'store.sqlite'}"
    ballast = folder / "ballast"
    ballast.write_bytes(b"x" * (2 << 20))
    with pytest.raises(StoreError, match=r"the disk is full.*Free some space"):
        open_store(url)
    ballast.unlink()
    engine = open_store(url)
    ingest(engine, home)
    before = list(canonical_dump(engine))
    builder.attempt("t2", 1, [builder.metrics_line(step) for step in range(40_000)])
    with pytest.raises(StoreError, match=r"the disk is full.*Free some space"):
        ingest(engine, home)
    with pytest.raises(StoreError, match=r"the disk is full.*Free some space"):
        rebuild(url, home)
    assert list(canonical_dump(engine)) == before
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    assert ingest(engine, home).metrics == 80_000
    engine.dispose()


def test_locked_store_is_waited_for_then_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.store.BUSY_SECONDS", 0.1)
    engine = open_store(f"sqlite:///{tmp_path / 'store.sqlite'}")
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"locked by another process"), writing(engine):
        pass
    assert runs(engine).empty  # readers do not wait
    other.close()
    engine.dispose()


def _open_and_ingest(url: str, root: Path, start: float) -> None:
    time.sleep(max(0.0, start - time.time()))
    engine = open_store(url)
    ingest(engine, Home(root))
    engine.dispose()


def test_processes_open_and_ingest_at_once(builder, new_url: Callable[[], str]) -> None:
    home, url = builder.standard(), new_url()
    for number in range(20):
        lines = [builder.metrics_line(step) for step in range(50)]
        builder.attempt("t0", 4 + number, lines, start=number)
    spawn, start = multiprocessing.get_context("spawn"), time.time() + 3
    workers = [spawn.Process(target=_open_and_ingest, args=(url, home.root, start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    engine = open_store(url)
    together = list(canonical_dump(engine))
    engine.dispose()
    rebuild(url, home)
    engine = open_store(url)
    assert list(canonical_dump(engine)) == together
    assert evaluated_keys(engine) == {"e-t0-0", "e-t0-20", "e-t1-0"}
    engine.dispose()


def test_rebuild_under_an_open_store(builder, new_url: Callable[[], str]) -> None:
    home, url = builder.standard(), new_url()
    engine = open_store(url)
    ingest(engine, home)
    expected = list(canonical_dump(engine))
    with reading(engine) as connection:  # a reader in the middle of something
        count = text("SELECT count(*) FROM metric")
        before = connection.scalar(count)
        if connection.dialect.name == "postgresql":
            connection.rollback()
        rebuild(url, home)
        assert connection.scalar(count) == before
    assert list(canonical_dump(engine)) == expected
    builder.attempt("t9", 1, [builder.metrics_line(0)])
    assert ingest(engine, home).attempts == 1
    engine.dispose()


@pytest.mark.parametrize("leftover", ["nothing", "text", "newer"])
def test_rebuild_replaces_whatever_is_there(builder, tmp_path: Path, leftover: str) -> None:
    home = builder.standard()
    path = home.store
    url = f"sqlite:///{path}"
    if leftover == "text":
        path.write_bytes(b"not a database, surely" * 1000)
        path.with_name("store.sqlite-wal").write_bytes(b"old")
    elif leftover == "newer":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE study_schema (version_num TEXT)")
            connection.execute("INSERT INTO study_schema VALUES ('9999')")
        connection.close()
    assert rebuild(url, home).runs == 3
    engine = open_store(url)
    assert len(runs(engine)) == 3
    assert ingest(engine, home).runs == 0
    engine.dispose()
    assert list(home.root.glob(".rebuild*")) == []
