"""A store that the first release left: schema 0001, made by its own code from the tiny study.

STUDY_HOME=h study run tests/assets/tiny.yaml --workers 1
cp h/store.sqlite tests/assets/store_0001.sqlite     # then: PRAGMA journal_mode = DELETE; VACUUM
study results --study tests/assets/tiny.yaml --home h --format csv > tests/assets/store_0001.csv
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from results import models
from results import store as module
from results.dump import canonical_dump
from results.export import write_table
from results.ingest import ingest
from results.queries import RESULT_COLUMNS, results_table
from results.store import HEAD, StoreError, alembic_config, open_store, reading

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

ASSETS = Path(__file__).parents[1] / "assets"
NEXT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "next", "{head}", None, None
def upgrade():
    with op.batch_alter_table("evaluation") as table:
        table.add_column(sa.Column("note", sa.String(), server_default="none", nullable=False))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(ASSETS / "store_0001.sqlite", tmp_path / "store.sqlite"))


def version(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM study_schema").fetchone()[0])


def results_of(path: Path, tmp_path: Path) -> str:
    """In the columns that the first release had, which come first."""
    engine = open_store(f"sqlite:///{path}")
    table = results_table(engine, "tiny", "cpu")
    assert tuple(table.columns[: len(RESULT_COLUMNS)]) == RESULT_COLUMNS
    write_table(table[list(RESULT_COLUMNS)], "csv", tmp_path / "results.csv")
    engine.dispose()
    return (tmp_path / "results.csv").read_text()


def test_it_is_migrated_and_gives_the_same_results(builder, path: Path, tmp_path: Path) -> None:
    assert version(path) == "0001"
    assert results_of(path, tmp_path) == (ASSETS / "store_0001.csv").read_text()
    assert version(path) == HEAD
    engine = open_store(f"sqlite:///{path}")
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": "study_schema"})
        assert compare_metadata(context, models.Base.metadata) == []
    before = set(canonical_dump(engine))
    with reading(engine) as connection:  # adopted, since all that it holds is in the home
        for name in connection.scalars(text("SELECT run FROM run")):
            builder.home.run(name).mkdir(parents=True)
        for name in connection.scalars(text("SELECT trajectory FROM trajectory")):
            builder.home.trajectory(name).root.mkdir(parents=True)
    builder.attempt("t", 1, [builder.metrics_line(0), builder.evaluation_line("t", 0)])
    ingest(engine, builder.home)  # it goes on being filled
    assert len(set(canonical_dump(engine)) - before) == 3
    assert before < set(canonical_dump(engine))
    engine.dispose()


def test_a_migration_keeps_what_is_there_and_older_programs_refuse_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the next migration will be, this is the way it goes: here, one that makes a table anew."""
    (tmp_path / "next.py").write_text(NEXT.format(head=HEAD))

    def with_next(connection: Connection) -> Config:
        config = alembic_config(connection)
        ours = Path(module.__file__).parent / "migrations" / "versions"
        config.set_main_option("version_locations", f"{ours}:{tmp_path}")
        return config

    with monkeypatch.context() as patch:
        patch.setattr(module, "HEAD", "next")
        patch.setattr(module, "alembic_config", with_next)
        assert results_of(path, tmp_path) == (ASSETS / "store_0001.csv").read_text()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT DISTINCT note FROM evaluation").fetchall() == [("none",)]
    content = path.read_bytes()
    with pytest.raises(StoreError, match=r"has schema next, which is newer than this program .*Update meanflow-study"):
        open_store(f"sqlite:///{path}")
    assert path.read_bytes() == content
