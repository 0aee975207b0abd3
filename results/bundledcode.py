"""The code that runs bring along, of components of users' own, which reports and runs execute; and the commands of
their trainers, which runs execute. A bundle that brings what a home does not have is taken only where that is trusted.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from results.bundle import BundleError, refused
from results.files import folders, look, read_document
from results.formats import RunFile
from results.layout import Home
from results.store import StoreError
from results.unbundling import unpack

HASH_LENGTH = 20


class Code(NamedTuple):
    """A text and the hash by which it is named."""

    key: str
    text: str


Codes = dict[Code, str]  # with the name of a file that it came from, or of a trainer's command
COMMANDS = ("command", "sampler", "launch")


def code_of(home: Home, *, attempts: bool = False) -> Codes:
    """The code of a home's runs and, if asked for, of what its attempts were told to do.

    Raises: StoreError where what should be code is none.
    """
    found: Codes = {}
    for where, record in _records(home, attempts):
        found |= dict(_commands(record))
        sources = record.get("sources") or {}
        try:
            given = {Code(key, source["text"]): str(source["file"]) for key, source in sources.items()}
            wrong = [one.key for one in given if not _is_hash(one)]
        except (AttributeError, KeyError, TypeError):
            raise StoreError(f"{where}: its sources are no files") from None
        if wrong:
            raise StoreError(f"{where}: the source {wrong[0]!r} is not the text that its hash names")
        found |= given
    return found


def _commands(record: Any) -> Iterator[tuple[Code, str]]:
    """The words of every trainer's commands in a study or a job, as a text; lists are replaced whole where one record
    is laid over another, so they are the same in both."""
    for value in record.values() if isinstance(record, dict) else record:
        if isinstance(value, dict | list):
            yield from _commands(value)
    for name in COMMANDS if isinstance(record, dict) and isinstance(record.get("trainer"), dict) else ():
        if isinstance(words := record["trainer"].get(name), list):
            text = shlex.join(str(word.get("file") if isinstance(word, dict) else word) for word in words)
            yield Code(hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:HASH_LENGTH], text), f"a {name}"


def _records(home: Home, attempts: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    for folder in folders(home.runs):
        if look(folder / "run.json") is not None:
            yield folder / "run.json", read_document(folder / "run.json", RunFile).config
    for path in sorted(home.trajectories.glob("*/attempts/*/segment.json")) if attempts else ():
        try:
            segment = json.loads(path.read_bytes())
        except ValueError:
            continue  # whether there may be such a file is checked elsewhere
        yield path, segment if isinstance(segment, dict) else {}


def _is_hash(code: Code) -> bool:
    digest = hashlib.sha256(code.text.encode(errors="surrogatepass")).hexdigest()
    return code.key == digest[:HASH_LENGTH]


def code_in(bundle: Path) -> Codes:
    """The code of a bundle. Raises: BundleError."""
    with tempfile.TemporaryDirectory() as folder:
        staged = Home(Path(folder) / "home")
        unpack(bundle, staged.root)
        return code_brought(bundle, staged)


def code_brought(bundle: Path, staged: Home) -> Codes:
    """The same of one that is unpacked."""
    try:
        return code_of(staged, attempts=True)
    except StoreError as error:
        raise refused(bundle, str(error).replace(f"{staged.root}/", "")) from None


def check_code(bundle: Path, brought: Codes, home: Home) -> None:
    """Raises: BundleError for code that the home does not have, text by text; StoreError where a run of the home cannot
    be read."""
    unknown = {code: file for code, file in brought.items() if code not in code_of(home)} if brought else {}
    if unknown:
        listed = ", ".join(f"{printable(Path(file).name)} ({code.key[:8]})" for code, file in unknown.items())
        raise BundleError(
            f"{bundle} brings code or commands, which reports and runs of its studies execute: {listed}. Read them "
            f"first: `study db import {bundle} --show-code`; then add --trust-code"
        )


def printable(text: str) -> str:
    """A text with everything escaped that would not be seen as it is: control characters and those that turn the
    direction of writing."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
