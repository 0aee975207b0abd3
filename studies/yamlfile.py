"""Reading YAML strictly: YAML 1.2, duplicate keys refused, and the line of every value remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import DuplicateKeyError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scanner import RoundTripScanner

from studies.errors import StudyError

Loc = tuple[str | int, ...]

DEEPEST = 60  # levels of a file; a study has about ten
MOST_REPEATED = 20_000  # values that aliases (*name) may stand for; each is copied when scales and studies are merged
TAGS = {"!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))}
LARGEST = 2**20  # bytes of a file; reading takes a second for every 30 KiB, and a study has 20


class _Scanner(RoundTripScanner):
    """Gives up where brackets are nested too deeply, before it looks for the end of each: its time grows with their
    square."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        if len(self.flow_context) >= DEEPEST:
            raise _refused("nested too deeply", self.reader.get_mark())
        super().fetch_flow_collection_start(TokenClass, to_push)


class _Resolver(VersionedResolver):
    """Reads 2026-01-31 as a text, as YAML 1.2 does."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        return self.DEFAULT_SCALAR_TAG if str(tag) == "tag:yaml.org,2002:timestamp" else tag


class _Composer(Composer):
    """Gives up where nesting is too deep, long before Python does, and where aliases multiply; takes no tags."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False  # YAML allows it
        self._depth = self._values = self._repeated = 0
        self._sizes: dict[int, int] = {}  # of nodes, in values, with all that aliases in them stand for

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent):
            node = super().compose_node(parent, index)
            self._repeat(node, event.start_mark)
            return node
        if event.tag is not None and str(event.tag) not in TAGS:
            raise _refused(f"the tag {event.tag} means nothing here", event.start_mark)
        if self._depth >= DEEPEST:
            raise _refused("nested too deeply", event.start_mark)
        before, self._values = self._values, self._values + 1
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._values - before
        return node

    def _repeat(self, node: Any, mark: Any) -> None:
        if id(node) not in self._sizes:
            raise _refused("an alias inside of what it stands for", mark)
        self._values += self._sizes[id(node)]
        self._repeated += self._sizes[id(node)]
        if self._repeated > MOST_REPEATED:
            raise _refused(f"aliases stand for more than {MOST_REPEATED:,} values", mark)


class _Constructor(RoundTripConstructor):
    """Says where a value stands that Python cannot hold."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            made = super().construct_object(node, deep)
        except ValueError as error:
            raise _refused(str(error).partition(";")[0], node.start_mark) from None
        if isinstance(made, str) and not made.isascii():
            try:  # JSON writes characters beyond U+FFFF as two escapes
                made = made.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise _refused("half of a surrogate pair is no character", node.start_mark) from None
        if isinstance(made, int) and abs(made) >= 2**64:
            raise _refused("a whole number of more than 64 bits (a text of digits stands in quotes)", node.start_mark)
        return made


def _refused(problem: str, mark: Any) -> MarkedYAMLError:
    return MarkedYAMLError(problem=problem, problem_mark=mark)


def plain(node: Any, where: str) -> Any:
    """Round-trip nodes → plain dicts, lists and scalars.

    Raises: StudyError where a key is no text, nor a number, and where two keys are the same text.
    """
    if isinstance(node, Mapping):
        for key in node:
            if (odd := _odd_key(key)) is not None:
                line = _line_of(node, key) + 1 if isinstance(node, CommentedMap) else "?"
                raise StudyError(f"{where}:{line}: {odd} is no key: a key is a text")
        made = {str(k): plain(v, where) for k, v in node.items()}
        if len(made) < len(node):
            names = [str(k) for k in node]
            twice = next(name for name in names if names.count(name) > 1)
            line = node.lc.line + 1 if isinstance(node, CommentedMap) else "?"
            raise StudyError(f'{where}:{line}: found duplicate key "{twice}"; each key may stand once')
        return made
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [plain(v, where) for v in node]
    if isinstance(node, ScalarBoolean):  # a boolean with an anchor; to isinstance, an integer
        return bool(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _odd_key(key: Any) -> str | None:
    """What to call a key that is no text, nor a number; None for one that is."""
    if key is None:
        return "null"
    if isinstance(key, bool | ScalarBoolean):
        return str(bool(key)).lower()
    return None if isinstance(key, str | int | float) else "a mapping" if isinstance(key, Mapping) else "a list"


@dataclass(frozen=True)
class YamlFile:
    """One parsed file: its plain content, and where each part of it stands."""

    path: Path
    data: dict[str, Any]
    nodes: CommentedMap

    def find(self, loc: Loc) -> tuple[int, int]:
        """(how many leading parts of ``loc`` exist here, line number of the deepest of them, from 1)."""
        node, line, depth = self.nodes, 1, 0
        for part in loc:
            at: Any = part
            if isinstance(node, CommentedMap):  # as in `plain`, a number there is its text here
                at = next((key for key in node if str(key) == str(part)), None)
                if at is None:
                    break
                line = _line_of(node, at) + 1
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
                line = node.lc.item(part)[0] + 1
            else:
                break
            node, depth = node[at], depth + 1
        return depth, line


def _line_of(node: CommentedMap, key: Any) -> int:
    """Where a key stands, from 0: for one that is merged in (<<: *anchor), where the anchor's mapping has it."""
    if key in (node.lc.data or {}):
        return int(node.lc.key(key)[0])
    return next(_line_of(merged, key) for merged in node.merge if key in merged)


@lru_cache(maxsize=64)  # studies share the files that they extend, and parsing is most of what reading them takes
def parse(text: str, where: str) -> Any:
    """Parse YAML text, to nodes that nobody may change. Raises: StudyError with file, line and what is wrong."""
    try:
        yaml = YAML(typ="rt", pure=True)
        yaml.Scanner, yaml.Resolver, yaml.Composer, yaml.Constructor = _Scanner, _Resolver, _Composer, _Constructor
        return yaml.load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        said = str(error.problem).split(" with value")[0]
        raise StudyError(f"{where}:{line}: {said}; each key may stand once") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise StudyError(f"{where}:{line}: not valid YAML: {error.problem}") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise StudyError(f"{where}:{line}: not valid YAML: it has the character U+{error.character:04X}") from None
    except (YAMLError, ValueError) as error:
        raise StudyError(f"{where}: not valid YAML: {error}") from None


def read_yaml(path: Path) -> YamlFile:
    """Read a YAML file whose top level is a mapping. Raises: StudyError."""
    try:
        with path.open("rb") as file:  # not all at once: it may be a device
            content = file.read(LARGEST + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise StudyError(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"cannot read {path}: it is no text in UTF-8 (byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > LARGEST:
        raise StudyError(f"cannot read {path}: it is larger than {LARGEST >> 20} MiB")
    nodes = parse(text.replace("\r\n", "\n").replace("\r", "\n"), str(path))
    if not isinstance(nodes, CommentedMap):
        found = "it is empty" if nodes is None else f"its top level is {_kind(nodes)}"
        raise StudyError(f"{path}: a mapping of keys to values is expected, and {found}")
    return YamlFile(path, plain(nodes, str(path)), nodes)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, Sequence) and not isinstance(value, str) else "a single value"


def parse_value(text: str, where: str) -> Any:
    """Parse the right side of ``-o key=value`` as YAML."""
    return plain(parse(text, where), where)
