"""Opening the store from a command, with what is new in the home ingested first."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from meanflow_core.words import there_is
from results.layout import Home
from studies.cli.choose import home_exists, source_of
from studies.errors import StudyError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from sweeps.cost import Rates


@contextmanager
def opened(home: Home) -> Iterator[Engine]:
    """The store of a home, up to date. Nothing else of the home is written.

    Raises: StudyError if there is no such home, StoreError if it cannot be read.
    """
    if not home_exists(home.root):
        raise StudyError(f"nothing is stored in {home.root}; run a study first, or give another folder with --home")
    engine = _up_to_date(home)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def reported(home: Path, data: Path | None, studies: Collection[str] | None = None) -> Iterator[tuple[Engine, Home]]:
    """What reports are made from: the store of a home, or the results committed in ``data`` (of some ``studies``, or
    of all) instead of one.

    Raises: StudyError if there is no such home, StoreError if one of them cannot be read.
    """
    if data is None:
        place = Home(home)
        with opened(place) as engine:
            yield engine, place
        return
    from results.committed import as_store, read

    engine = as_store(read(data, studies))
    try:
        yield engine, Home(data if data.is_dir() else data.parent)
    finally:
        engine.dispose()


def named_in(study: str, home: Path, data: Path | None) -> str:
    """`stored_name` in a home; where results are read from ``data``, a name that is no built-in's is taken as it is."""
    if data is None:
        return stored_name(study, home)
    try:
        return source_of(study).name
    except StudyError:
        if _path_like(study):
            raise
        return study


def stored_name(study: str, home: Path) -> str:
    """What records call a study that is asked for by its name, by its file, or, of another's or one whose file is gone,
    by the name under which it was run in this home.

    Raises: StudyError.
    """
    try:
        return source_of(study).name
    except StudyError:
        if _path_like(study) or not home_exists(home):
            raise
        from results.queries import ANY, latest_run
        from results.stored import stored_runs
        from studies.loader import builtin_names

        with opened(Home(home)) as engine:
            if latest_run(engine, study=study, variant=ANY) is None:
                known = dict.fromkeys([*(run.study for run in stored_runs(engine)), *builtin_names()])
                raise StudyError(
                    f"unknown study '{study}'{there_is(study, list(known), shown=20)}; a file of your own is given by "
                    "its path, ./mine.yaml"
                ) from None
        return study


def _path_like(study: str) -> bool:
    return "/" in study or study.endswith((".yaml", ".yml"))


@contextmanager
def created(home: Home) -> Iterator[Engine]:
    """The same for what writes in the home: makes it where there is none, and gives it its id."""
    from results.owner import make_home_id

    make_home_id(home)
    engine = _up_to_date(home)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def new_or_nothing(home: Home) -> Iterator[None]:
    """Where its body fails before anything is stored, a home that was not there is not there afterwards."""
    new = not home.root.exists()
    try:
        yield
    except BaseException:
        if new and home.root.is_dir() and all(path == home.ident for path in home.root.iterdir()):
            home.ident.unlink(missing_ok=True)
            home.root.rmdir()
        raise


def take_store(home: Home) -> None:
    """Give a home its id, and its store to it. Raises: StoreError where the store is another home's."""
    from results.owner import claim, make_home_id
    from results.store import open_store

    make_home_id(home)
    engine = open_store(home.store_url)
    try:
        claim(engine, home)
    finally:
        engine.dispose()


def ingest_new(home: Home) -> None:
    """Bring the store of a home that was written in up to date."""
    with created(home):
        pass


def _up_to_date(home: Home) -> Engine:
    from results.ingest import ingest
    from results.store import open_store

    engine = open_store(home.store_url)
    try:
        ingest(engine, home)
    except BaseException:
        engine.dispose()
        raise
    return engine


def evaluated_in(root: Path) -> set[str]:
    """Evaluation keys that a home holds; empty, and nothing is made, where there is no home."""
    if not home_exists(root):
        return set()
    from results.queries import evaluated_keys

    with opened(Home(root)) as engine:
        return evaluated_keys(engine)


def rates_of(root: Path) -> Rates:
    """Calibration and what the store has learned, for estimating hours."""
    from sweeps.cost import Rates, load_rates

    if home_exists(root):
        with opened(Home(root)) as engine:
            return rates_in(engine, Home(root))
    return load_rates(Home(root)) if Home(root).calibration.is_file() else Rates()


def rates_in(engine: Engine, home: Home) -> Rates:
    """The same with the store open."""
    from results.queries import evaluation_seconds, step_times
    from sweeps.cost import learn, load_rates

    rates = learn(load_rates(home), step_times(engine))
    rates.seconds_per_evaluation = evaluation_seconds(engine)
    return rates
