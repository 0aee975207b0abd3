"""Components of your own: a class in a Python file, or in an installed package.

A study file says ``use: ./my.py:CosineGap``, and the component is then called ``CosineGap@<hash of the file>``. Under
that name it stands in keys and records, so another text is another component. The text travels with the study and its
jobs (`Source`); so what a job does depends on no file that may have been edited or moved meanwhile.

A package names its components as entry points of the group ``meanflow_study.components``; in a study they are called
``<distribution>.<entry point>``, and their version tells one from another.
"""

from __future__ import annotations

import hashlib
import linecache
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from meanflow_core.registry import FAILURES, Component, ComponentError, Params
from meanflow_core.words import there_is

GROUP = "meanflow_study.components"
HASH_LENGTH = 20  # hex digits, as of keys
_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN = re.compile(rf"({_CLASS.pattern})@([0-9a-f]{{{HASH_LENGTH}}})")


class Source(BaseModel):
    """A Python file as it was: its name, for messages, and its text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    text: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:HASH_LENGTH]


_SOURCES: dict[str, Source] = {}


def use(reference: str, folder: Path) -> str:
    """The name of the component that ``use: reference`` means in a file that lies in ``folder``; a source file is read
    and executed for it.

    Raises: ComponentError.
    """
    file, colon, attribute = reference.rpartition(":")
    if not colon and "/" not in reference and not reference.endswith(".py"):
        return reference  # an entry point's name is what it is called
    if not file.endswith(".py") or not _CLASS.fullmatch(attribute):
        raise ComponentError(
            f"'{reference}' is neither a class in a file (./my.py:MyClass) nor an entry point (package.name)"
        )
    path = folder / Path(file).expanduser()
    try:
        source = Source(file=str(path), text=path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        said = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ComponentError(f"cannot read {path}: {said}") from None
    _SOURCES[source.hash] = source
    name = f"{attribute}@{source.hash}"
    found(name)
    return name


def remember(sources: Mapping[str, Any]) -> None:
    """Take in the sources that came with a study or a job. Nothing is executed before a component of them is asked for.

    Raises: ValueError where a text is not the one that its hash names.
    """
    if not isinstance(sources, Mapping):
        raise ValueError("the sources of a study are found, not written: leave 'sources' out")
    for key, given in sources.items():
        source = Source.model_validate(given)
        if source.hash != key:
            raise ValueError(f"the source {source.file} is not the one that was meant: its hash is not {key}")
        _SOURCES.setdefault(key, source)


def with_sources(given: Any) -> Any:
    """What a study or a job is made of, after its ``sources`` were taken in: its components are looked up in them.

    Raises: ValueError as `remember`.
    """
    if isinstance(given, dict):
        remember(given.get("sources") or {})
    return given


def source_of(name: str) -> Source | None:
    """The source of a component of your own, by its name; None of any other name."""
    own = _OWN.fullmatch(name)
    return _SOURCES.get(own[2]) if own else None


def sources_in(value: Any) -> dict[str, Source]:
    """The sources of all components that are named in a study or a job as plain data."""
    return {key: _SOURCES[key] for key in dict.fromkeys(_hashes_in(value)) if key in _SOURCES}


def _hashes_in(value: Any) -> Iterator[str]:
    if isinstance(value, str) and (own := _OWN.fullmatch(value)):
        yield own[2]
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _hashes_in(part)


def found(name: str) -> Component | None:
    """The component of your own that is called ``name``; None where the name is not of that form.

    Raises: ComponentError with file and line where its source is missing or fails.
    """
    if own := _OWN.fullmatch(name):
        if own[2] not in _SOURCES:
            raise ComponentError(f"the source of {name} is not here: load the study that uses it from its file")
        source = _SOURCES[own[2]]
        return _component(name, getattr(_module(source), own[1], None), f"{source.file}:{own[1]}")
    if "." in name:
        return _of_package(name)
    return None


def _of_package(name: str) -> Component:
    there = {f"{e.dist.name}.{e.name}": e for e in entry_points(group=GROUP) if e.dist is not None}
    if name not in there:
        raise ComponentError(f"no installed package has the component '{name}'{there_is(name, sorted(there))}")
    try:
        return _component(name, there[name].load(), there[name].value)
    except ComponentError:
        raise
    except FAILURES as error:  # whatever importing somebody's package may raise
        raise ComponentError(f"{there[name].value} cannot be imported: {type(error).__name__}: {error}") from None


def _component(name: str, params: Any, where: str) -> Component:
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise ComponentError(f"{where} is no class of parameters (a subclass of meanflow_core.registry.Params)")
    if params.declared is None:
        raise ComponentError(f"{where} does not say what it is: put @component(kind, version=1) above the class")
    if not callable(getattr(params, "build", None)):
        raise ComponentError(f"{where} has no method build(self, context) that returns its implementation")
    kind, version, uses_horizon = params.declared
    return Component(kind, name, version, params, None, uses_horizon)


def _module(source: Source) -> ModuleType:
    """The module that a source makes, executed once a process."""
    name = f"meanflow_study_own_{source.hash}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = source.file
    lines = source.text.splitlines(keepends=True)
    linecache.cache[source.file] = (len(source.text), None, lines, source.file)  # so that tracebacks show its lines
    sys.modules[name] = module
    try:
        exec(compile(source.text, source.file, "exec", dont_inherit=True), module.__dict__)
    except FAILURES as error:  # whatever somebody's file may raise
        del sys.modules[name]
        raise ComponentError(f"{source.file}:{_line(error, source.file)}: {type(error).__name__}: {error}") from None
    return module


def _line(error: BaseException, file: str) -> int:
    """The last line of a file on the way to an error."""
    if isinstance(error, SyntaxError):
        return error.lineno or 1
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return (lines and lines[-1]) or 1
