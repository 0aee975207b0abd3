"""Whose results a store holds: ids of homes, stores that are another home's, and homes that are read-only."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from results.dump import canonical_dump
from results.ingest import IngestReport, ingest
from results.layout import Home
from results.owner import OwnerError, home_id, make_home_id
from results.rebuild import rebuild
from results.store import StoreError, open_store
from tests.results.conftest import HomeBuilder

NOTHING_NEW = IngestReport()


def taken(home: Home, url: str | None = None) -> tuple[IngestReport, list[str]]:
    """What is new in a home, and all that its store holds then."""
    engine = open_store(url or home.store_url)
    try:
        return ingest(engine, home), list(canonical_dump(engine))
    finally:
        engine.dispose()


@pytest.fixture
def other(builder, tmp_path: Path) -> Home:
    """Another home, with a run of its own; the trajectory of its arm is in both."""
    there = HomeBuilder(tmp_path / "other")
    there.run("20261123T120501-dddddd")
    there.trajectory("t0")
    there.attempt("t0", 1, [there.evaluation_line("t0", 0, value=-1.0)])
    return there.home


@pytest.mark.parametrize("ids", [True, False])
def test_a_store_takes_one_home(builder, other: Home, new_url: Callable[[], str], ids: bool) -> None:
    home, url = builder.standard(), new_url()
    if ids:
        assert make_home_id(home) != make_home_id(other)
    _, before = taken(home, url)
    for refused in (taken, lambda home, url: rebuild(url, home)):
        with pytest.raises(OwnerError, match=r"another home('s)?, and would mix them.*STUDY_STORE"):
            refused(other, url)
        assert taken(home, url) == (NOTHING_NEW, before)
    assert rebuild(url, home).runs == 3
    assert rebuild(url, other, replace=True).runs == 1
    if ids:  # a store that is emptied is another's at once
        with pytest.raises(OwnerError):
            taken(home, url)


def test_a_store_without_a_note_is_adopted_by_its_home_alone(builder, other: Home, new_url: Callable[[], str]) -> None:
    home, url = builder.standard(), new_url()
    _, before = taken(home, url)  # by readers alone, so without an id
    make_home_id(other)
    with pytest.raises(OwnerError, match=r"holds run 20261120T120501-aaaaaa, which is not in .*other"):
        taken(other, url)
    make_home_id(home)
    assert taken(home, url) == (NOTHING_NEW, before)
    shutil.rmtree(home.run("20261120T120501-aaaaaa"))  # from now on the note decides
    assert taken(home, url) == (NOTHING_NEW, before)


def test_a_moved_home_keeps_its_store(builder, tmp_path: Path, new_url: Callable[[], str]) -> None:
    home, url = builder.standard(), new_url()
    made = make_home_id(home)
    _, before = taken(home, url)
    moved = Home(home.root.rename(tmp_path / "elsewhere"))
    assert home_id(moved) == make_home_id(moved) == made
    assert taken(moved, url) == (NOTHING_NEW, before)


def test_processes_that_make_an_id_at_once_make_one(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make_home_id, [home] * 32))) == 1
    assert [path.name for path in home.root.iterdir()] == ["home.json"]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"format": 2, "id": "a"}', '{"format": 1}', '{"format": 1, "id": "../x"}', "a pipe"]
)
def test_a_damaged_id_is_named(builder, content: str) -> None:
    home = builder.standard()
    if content == "a pipe":
        os.mkfifo(home.ident)
    else:
        home.ident.write_text(content)
    with pytest.raises(StoreError, match=r"home.json"):
        taken(home)


@pytest.mark.parametrize("name", ["a?b=c", "a#b", "50%20 %h", "file:x", "ü &;'\"", ":memory:"])
def test_a_store_lies_in_its_home_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    home = HomeBuilder(tmp_path / name).standard()
    assert taken(home)[0].runs == 3
    assert taken(home)[0] == NOTHING_NEW
    assert rebuild(home.store_url, home).runs == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in home.root.glob("store*")} >= {"store.sqlite"}


def test_a_home_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not UTF-8"):
        _ = Home(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))).store_url


def test_a_file_outside_the_home_is_replaced_only_where_it_is_the_homes(builder, tmp_path: Path) -> None:
    home, thesis, contacts = builder.standard(), tmp_path / "thesis.pdf", tmp_path / "contacts.sqlite"
    thesis.write_bytes(b"%PDF 1.7 of three years")
    with closing(sqlite3.connect(contacts)) as connection:
        connection.execute("CREATE TABLE person (name TEXT)")
    with pytest.raises(StoreError, match=r"is not a SQLite database[^$]*not replaced unasked.*--replace"):
        rebuild(f"sqlite:///{thesis}", home)
    for replace in (False, True):
        with pytest.raises(StoreError, match=r"has tables that are not the store's \(person\)"):
            rebuild(f"sqlite:///{contacts}", home, replace=replace)
    assert thesis.read_bytes() == b"%PDF 1.7 of three years"
    assert rebuild(f"sqlite:///{thesis}", home, replace=True).runs == 3


@pytest.mark.parametrize("cache", ["file", "file/below"])
def test_a_cache_that_takes_no_store_is_told_with_a_remedy(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
    monkeypatch.setattr("results.owner.is_writable", lambda home: False)
    with pytest.raises(StoreError, match=r"file is no folder that can .* Set XDG_CACHE_HOME.*or STUDY_STORE"):
        _ = Home(tmp_path / "home").store_url


def test_a_read_only_home_has_its_store_in_the_cache(
    builder, tmp_path: Path, tmpfs: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmpfs("size=8m")
    shutil.copytree(builder.standard().root, folder / "home")
    home = Home(folder / "home")
    made = make_home_id(home)
    _, expected = taken(home)
    old = home.store_url
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    assert home.store_url != old and str(home.store_url.database).startswith(str(tmp_path / "cache"))
    first, held = taken(home)
    assert (first.runs, held) == (3, expected)
    assert taken(home) == (NOTHING_NEW, expected)  # it is used again
    assert [made in path.name for path in (tmp_path / "cache" / "meanflow-study").iterdir()] == [True]
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    os.utime(home.verdicts)
    assert home.store_url == old and home_id(home) == made
