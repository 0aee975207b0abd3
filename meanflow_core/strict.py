"""The base of all that a study file says: what is not understood is refused, and nothing is read as something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

_WRITTEN: ContextVar[bool] = ContextVar("_WRITTEN", default=False)


@contextmanager
def written_by_hand() -> Iterator[None]:
    """Inside, true and false are no numbers. Records of runs are read outside:
    earlier versions took them for 1 and 0."""
    before = _WRITTEN.set(True)
    try:
        yield
    finally:
        _WRITTEN.reset(before)


class Strict(BaseModel):
    """Unknown keys are errors, and so are infinities; in what is `written_by_hand`, true or false for a number, too."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, given: Any) -> Any:
        """Leave true and false as words where they would be taken for 1 and 0, so that each is refused at its place."""
        if (
            not _WRITTEN.get()
            or not isinstance(given, dict)
            or not any(_has_boolean(value) for value in given.values())
        ):
            return given
        return {
            key: _as_word(value) if _has_boolean(value) and _wants_number(cls, key) else value
            for key, value in given.items()
        }


def _has_boolean(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(isinstance(one, bool) for one in value))


def _as_word(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_word(one) for one in value]
    return str(value).lower() if isinstance(value, bool) else value


@cache
def _wants_number(model: type[BaseModel], field: str) -> bool:
    """Whether a field takes numbers, and nothing that true or false could be meant for, nor texts."""
    kinds = set(_kinds(model.model_fields[field].annotation)) if field in model.model_fields else set()
    return bool(kinds & {int, float}) and not kinds & {bool, str, Any}


def _kinds(annotation: Any) -> list[Any]:
    parts = get_args(annotation)
    return [kind for part in parts for kind in _kinds(part)] if parts else [annotation]
