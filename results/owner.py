"""Whose results a store holds. Two homes in one store would be mixed, so a home has an id in a file, and a store notes
the id of its home and refuses another's.

Where the store of a home cannot lie in it, since the home is read-only, it lies in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import URL, Connection, Engine, delete, insert, select

from results import models
from results.files import folders, look, read_document
from results.layout import FORMAT, Home
from results.store import StoreError, parse_url, reading, sqlite_file, writing

STORE = "STUDY_STORE"


class OwnerError(StoreError):
    """A store is another home's."""


class HomeFile(BaseModel):
    """home.json."""

    model_config = ConfigDict(extra="ignore")

    format: Literal[1]
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]  # it also names a folder


def home_id(home: Home) -> str | None:
    """The id of a home; None where it has none yet. Raises: FileError."""
    return None if look(home.ident) is None else read_document(home.ident, HomeFile).id


def make_home_id(home: Home) -> str:
    """The id of a home that may be written to, made where it has none. Raises: StoreError."""
    if found := home_id(home):
        return found
    made = uuid.uuid4().hex
    aside = home.ident.with_name(f".{home.ident.name}.{made}")
    try:
        home.root.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps({"format": FORMAT, "id": made}) + "\n")
        os.link(aside, home.ident)
    except FileExistsError:  # another process was faster
        pass
    except OSError as error:
        raise StoreError(f"{home.ident} cannot be written: {error.strerror}.") from error
    finally:
        aside.unlink(missing_ok=True)
    return read_document(home.ident, HomeFile).id


def is_writable(home: Home) -> bool:
    """Whether this user may write in a home, or could make it."""
    if not home.root.exists():
        return True
    return _takes_files(home.root)


def _takes_files(path: Path) -> bool:
    # root passes every test of permissions, so the mount's own flag is asked, too
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK) and not os.statvfs(path).f_flag & os.ST_RDONLY


def store_url(home: Home) -> URL:
    """``$STUDY_STORE`` (a SQLAlchemy URL), or the SQLite file in the home, or, of a home that is read-only, one in the
    user's cache, named by the home's id and its path: two copies of a home have one id, and may differ.

    Raises: StoreError.
    """
    if address := os.environ.get(STORE):
        return parse_url(address)
    if is_writable(home):
        return _file(home.store)
    path = hashlib.sha256(os.fsencode(home.root.resolve())).hexdigest()[:8]
    folder = user_cache_path("meanflow-study", appauthor=False) / f"{home_id(home) or 'home'}-{path}"
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not _takes_files(there):
        raise StoreError(
            f"{home.root} is read-only, so its store is made in the user's cache, but {there} is no folder that can be "
            f"written to. Set XDG_CACHE_HOME to one that can, or {STORE} to a URL such as "
            "sqlite:////a/writable/store.sqlite."
        )
    return _file(folder / "store.sqlite")


def _file(path: Path) -> URL:
    """Not as text: a path may hold what means something in a URL. Raises: StoreError."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise StoreError(f"{path}: its name is not UTF-8, which SQLite needs: give a home of another name.") from None
    return URL.create("sqlite", database=str(path))


def is_own_file(url: URL, home: Home) -> bool:
    """Whether the store is the file in the home itself, which can be nobody else's."""
    file = sqlite_file(url)
    return file is not None and file.resolve() == home.store.resolve()


def claim(engine: Engine, home: Home) -> None:
    """Note in a store that it is the home's. One without a note is adopted where all that it holds is in the home.

    Raises: OwnerError where the store is another home's.
    """
    ident = home_id(home)
    with reading(engine) as connection:
        if ident is not None and _owner(connection) == ident:
            return
    if ident is None:
        with reading(engine) as connection:
            check_owner(connection, home)
        return
    with writing(engine) as connection:
        check_owner(connection, home)
        note_owner(connection, ident)


def note_owner(connection: Connection, ident: str) -> None:
    """Note that a store is of the home with this id."""
    connection.execute(delete(models.Owner))
    connection.execute(insert(models.Owner).values(home=ident))


def check_owner(connection: Connection, home: Home) -> None:
    """Raises: OwnerError where a store is not this home's."""
    ident, owner = home_id(home), _owner(connection)
    if ident is not None and owner is not None:
        if ident == owner:
            return
        said = "holds the results of another home"
    elif foreign := _foreign(connection, home):
        said = f"holds {foreign}, which is not in {home.root}, so it seems to be another home's"
    else:
        return
    url = connection.engine.url
    remedy = (
        "Run `study db rebuild` to make it again from this home."
        if is_own_file(url, home)
        else f"Give each home a store of its own: set {STORE} to another address, or unset it to keep the store in the "
        "home. (If it was this home's: `study db rebuild --replace` empties it and makes it again from this home.)"
    )
    raise OwnerError(f"The store {url.render_as_string(hide_password=True)} {said}, and would mix them. {remedy}")


def _owner(connection: Connection) -> str | None:
    return connection.scalar(select(models.Owner.home))


def _foreign(connection: Connection, home: Home) -> str | None:
    """A run, or else a trajectory, that a store holds and a home does not. The names of runs are unique, those of
    trajectories are not: two homes may have trained the same one."""
    for what, column, place in (
        ("run", models.Run.run, home.runs),
        ("trajectory", models.Trajectory.trajectory, home.trajectories),
    ):
        here = {folder.name for folder in folders(place)}
        for name in connection.scalars(select(column).order_by(column)):
            if name not in here:
                return f"{what} {name}"
    return None
