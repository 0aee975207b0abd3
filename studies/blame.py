"""Where a study says what is wrong in it: the override, or the file and line. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from meanflow_core.words import refusal, there_is
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
    locs = [_written(tuple(item["loc"])) for item in error.errors()]
    for item, loc in zip(error.errors(), locs, strict=True):
        if item["type"] == "too_short" and any(other[: len(loc)] == loc != other for other in locs):
            continue  # it lacks only what is wrong in itself, which has a message of its own
        at = where(loc, source, scale, overridden)
        key = ".".join(str(p) for p in loc if p != "[key]") or "(the study)"
        keys = there_is(loc[-1], keys_at(ResolvedStudy, item["loc"])) if item["type"] == "extra_forbidden" else ""
        yield f"{at}: {key}: {refusal(item)}{keys}"


def _written(loc: Loc) -> Loc:
    """Without the kind of figure, which pydantic names as if it were a key."""
    return loc[:1] + loc[2:] if loc[:1] == ("figure",) and len(loc) > 2 else loc


def keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that a model knows where the last part of ``loc`` stands."""
    kinds: list[Any] = [model]
    for part in loc[:-1]:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return list(dict.fromkeys(name for kind in kinds for one in _models(kind) for name in one.model_fields))


def _inside(kind: Any, part: str | int) -> Iterator[Any]:
    """The types that a part of a type may have: of a union, that which is named so."""
    if get_origin(kind) in (dict, list, tuple):
        yield get_args(kind)[get_origin(kind) is dict]
    elif get_origin(kind) in (Annotated, Union, UnionType):
        for one in get_args(kind):
            yield from _inside(one, part)
    else:
        for one in _models(kind):
            if isinstance(part, str) and part in one.model_fields:
                yield one.model_fields[part].annotation
            elif "kind" in one.model_fields and part in get_args(one.model_fields["kind"].annotation):
                yield one


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if get_origin(kind) in (Annotated, Union, UnionType):
        for one in get_args(kind):
            yield from _models(one)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
