"""Where a study says what is wrong in it: the override, or the file and line. Torch-free."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from studies.schema import ResolvedStudy
from studies.yamlfile import Loc

if TYPE_CHECKING:
    from studies.loader import StudySource


def _override_of(loc: Loc, overridden: Collection[Loc]) -> str | None:
    """The override that set a part of a study."""
    found = (path for path in overridden if loc[: len(path)] == path or path[: len(loc)] == loc)
    return next((f"-o {'.'.join(map(str, path))}" for path in found), None)


def where(loc: Loc, source: StudySource, scale: str, overridden: Collection[Loc]) -> str:
    """The override that set a part of a study, or else the file and line."""
    return _override_of(loc, overridden) or source.locate(scale, loc)


def blamed(locs: Sequence[Loc], source: StudySource, scale: str, overridden: Collection[Loc]) -> str:
    """The override that set one of several parts, or else the file and line of the first."""
    given = (said for loc in locs if (said := _override_of(loc, overridden)))
    return next(given, None) or source.locate(scale, locs[0])


def messages(error: ValidationError, source: StudySource, scale: str, overridden: Collection[Loc]) -> Iterator[str]:
    """One line for each thing that the schema refuses."""
    locs = [tuple(item["loc"]) for item in error.errors()]
    for item in error.errors():
        loc: Loc = tuple(item["loc"])
        if item["type"] == "too_short" and any(other[: len(loc)] == loc != other for other in locs):
            continue  # it lacks only what is wrong in itself, which has a message of its own
        at = where(loc, source, scale, overridden)
        key = ".".join(str(p) for p in loc) or "(the study)"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key"
            close = difflib.get_close_matches(str(loc[-1]), list(ResolvedStudy.model_fields), 1)
            message += f"; did you mean '{close[0]}'?" if close and len(loc) == 1 else ""
        yield f"{at}: {key}: {message}"
