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
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from studies.errors import StudyError

Loc = tuple[str | int, ...]

DEEPEST = 60  # levels of a file; a study has about ten


class _Bounded(Composer):
    """Gives up where nesting is too deep, long before Python does: the parser's time grows with its square."""

    _depth = 0

    def compose_node(self, parent: Any, index: int) -> Any:
        self._depth += 1
        try:
            if self._depth > DEEPEST:
                raise RecursionError
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def plain(node: Any) -> Any:
    """Round-trip nodes → plain dicts, lists and scalars."""
    if isinstance(node, Mapping):
        return {str(k): plain(v) for k, v in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [plain(v) for v in node]
    if isinstance(node, ScalarBoolean):  # a boolean with an anchor; to isinstance, an integer
        return bool(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


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
            if isinstance(node, CommentedMap) and part in node:
                line = _line_of(node, part) + 1
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
                line = node.lc.item(part)[0] + 1
            else:
                break
            node, depth = node[part], depth + 1
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
        yaml.Composer = _Bounded
        return yaml.load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        said = str(error.problem).split(" with value")[0]
        raise StudyError(f"{where}:{line}: {said}; each key may stand once") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise StudyError(f"{where}:{line}: not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise StudyError(f"{where}: not valid YAML: {error}") from None
    except RecursionError:
        raise StudyError(f"{where}: not valid YAML for us: nested too deeply") from None


def read_yaml(path: Path) -> YamlFile:
    """Read a YAML file whose top level is a mapping. Raises: StudyError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot read {path}: {error}") from None
    nodes = parse(text, str(path))
    if not isinstance(nodes, CommentedMap):
        raise StudyError(f"{path}: a study file is a mapping of keys to values")
    return YamlFile(path, plain(nodes), nodes)


def parse_value(text: str, where: str) -> Any:
    """Parse the right side of ``-o key=value`` as YAML."""
    return plain(parse(text, where))
