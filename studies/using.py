"""What of one's own a study file names by a path: components, and trainers.

``use: ./my.py:CosineGap`` becomes the name of the component that is meant (`meanflow_core.own`); a word ``./train.py``
of a trainer, the file's path and what it holds (`meanflow_core.components.ProgramFile`). Files stand beside the study
that names them, or, in an override, in the folder where the command is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from meanflow_core.own import source_of, use
from meanflow_core.registry import ComponentError
from meanflow_core.sha import file_sha256
from studies.errors import StudyError
from studies.yamlfile import Loc, YamlFile

USE = "use"
TRAINER, FILES, FILE = "trainer", "files", "file"
WORDS = ("command", "sampler", FILES)


def with_components(file: YamlFile) -> YamlFile:
    """A study file in which every ``use`` has become the ``name`` that it means. Raises: StudyError at its line."""

    def where(loc: Loc) -> str:
        return f"{file.path}:{file.find(loc)[1]}: {'.'.join(map(str, loc))}"

    return replace(file, data=named(file.data, file.path.parent, where))


def named(value: Any, folder: Path, where: Callable[[Loc], str], at: Loc = ()) -> Any:
    """``value`` with every ``use`` in it as a ``name``; ``where`` says what is to blame for a part of it."""
    if at[-2:-1] == (TRAINER,) and at[-1] in WORDS and isinstance(value, list):
        return [_word(word, folder, where((*at, i)), at[-1] == FILES) for i, word in enumerate(value)]
    if at[-3:-2] == (TRAINER,) and at[-2] in WORDS:
        return _word(value, folder, where(at), at[-2] == FILES)
    if isinstance(value, list):
        return [named(part, folder, where, (*at, i)) for i, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    rest = {key: named(part, folder, where, (*at, key)) for key, part in value.items() if key != USE}
    if USE not in value:
        return rest
    said = where((*at, USE))
    if "name" in value:
        raise StudyError(f"{said}: a component has either a 'name' or a 'use'")
    if not isinstance(value[USE], str):
        raise StudyError(f"{said}: write ./my.py:MyClass, or package.name")
    try:
        return {"name": use(value[USE], folder), **rest}
    except ComponentError as error:
        raise StudyError(f"{said}: {error}") from None


def _word(word: Any, folder: Path, said: str, always: bool) -> Any:
    """A word of a trainer: where it is the path of a file, what that file holds; ``always``, where it has to be one."""
    given = word.get(FILE) if isinstance(word, dict) and set(word) == {FILE} else word
    if not isinstance(given, str) or not (always or given is not word or given.startswith(("./", "../"))):
        return word
    path = Path(os.path.normpath(folder.absolute() / Path(given).expanduser()))
    try:
        return {FILE: str(path), "sha256": file_sha256(path)}
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise StudyError(f"{said}: cannot read {path}: {reason}") from None


def as_used(value: Any) -> Any:
    """``value`` with components and files of your own as a file may name them: by ``use`` or ``file``, and the whole
    path."""
    if isinstance(value, list):
        return [as_used(part) for part in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {FILE, "sha256"}:
        return {FILE: value[FILE]}
    rest = {key: as_used(part) for key, part in value.items()}
    if isinstance(name := rest.get("name"), str) and (source := source_of(name)) is not None:
        del rest["name"]
        return {USE: f"{Path(source.file).resolve()}:{name.partition('@')[0]}", **rest}
    return rest
