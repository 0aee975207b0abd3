"""Files that are no YAML of ours, or would become enormous, are refused at once, with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.errors import StudyError
from studies.yamlfile import DEEPEST, LARGEST, parse_value, read_yaml

ANCHORED = "a: &a [1, 2]\n"


def tenfold(levels: int) -> str:
    """Aliases of aliases: 10 to the power of ``levels`` values."""
    lists = (f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, levels + 1))
    return "a0: &a0 x\n" + "".join(lists)


def doubled(levels: int) -> str:
    maps = (f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n  k{i}: 1\n" for i in range(1, levels + 1))
    return "a0: &a0 {x: 1}\n" + "".join(maps)


REFUSED: dict[str, tuple[str | bytes, int | None, str]] = {
    # name: (content, the line named, words)
    "brackets": ("a: 1\nb: " + "[" * 3000, 2, "nested too deeply"),
    "braces": ("a: " + "{a: " * 3000, 1, "nested too deeply"),
    "blocks": ("".join("  " * i + "a:\n" for i in range(500)), DEEPEST, "nested too deeply"),
    "dashes": ("a:\n  " + "- " * 500 + "x\n", 2, "nested too deeply"),
    "aliases that multiply": (tenfold(9), 6, "aliases stand for more than 20,000 values"),
    "merges that multiply": (doubled(40), 33, "aliases stand for more than"),
    "an alias of itself": ("a: &a [*a]\n", 1, "an alias inside of what it stands for"),
    "a merge with itself": ("a: 1\nb: &b {<<: *b}\n", 2, "an alias inside of what it stands for"),
    "a merge with a list": (ANCHORED + "b: {<<: [*a]}\n", 1, "expected a mapping"),
    "an alias of nothing": ("b: *nope\n", 1, "undefined alias 'nope'"),
    "a tag": ("a: 1\nb: !!python/object:os.system x\n", 2, "the tag tag:yaml.org,2002:python/object:os.system"),
    "a set": ("b: !!set {x, y}\n", 1, "means nothing here"),
    "a key twice": ("a: 1\na: 2\n", 2, 'duplicate key "a"; each key may stand once'),
    "a number and a text as keys": ('b: 1\na:\n  1: x\n  "1": y\n', 3, 'duplicate key "1"; each key may stand once'),
    "null as a key": ("a: 1\nb:\n  c: 1\n  null: 2\n", 4, "null is no key: a key is a text"),
    "nothing as a key": ("a: 1\n: 2\n", 2, "null is no key"),
    "true as a key": ("a: {b: 1,\n  true: 2}\n", 2, "true is no key"),
    "an anchored true as a key": ("a: 1\n&x false: 2\n", 2, "false is no key"),
    "a list as a key": ("a: 1\n? [b, c]\n: 2\n", 2, "a list is no key"),
    "a mapping as a key": ("a:\n- b: 1\n  ? {b: c}\n  : 2\n", 3, "a mapping is no key"),
    "null as a key that is merged in": ("a: &a\n  null: 1\nb: {<<: *a}\n", 2, "null is no key"),
    "two documents": ("a: 1\n---\nb: 2\n", 2, "another document"),
    "a tab": ("a:\n\tb: 1\n", 2, "'\\t'"),
    "5000 digits": ("a: 1\nb: " + "9" * 5000, 2, "Exceeds the limit"),
    "5000 hexadecimal digits": ("a: 1\nb: 0x" + "f" * 5000, 2, "more than 64 bits"),
    "a surrogate": ('a: "\\ud800"\n', 1, "surrogate"),
    "no character": ('a: "\\U0011ffff"\n', None, "not valid YAML"),
    "a null byte": (b"a: 1\nb: \0\n", 2, "U+0000"),
    "binary": (b"a: 1\n\xff\xfe", None, "no text in UTF-8 (byte 5)"),
    "UTF-16": ("a: 1\n".encode("utf-16"), None, "no text in UTF-8"),
    "huge": (b"# " + b"x" * LARGEST, None, "larger than 1 MiB"),
    "empty": ("# nothing\n", None, "it is empty"),
    "a list": ("- a\n", None, "its top level is a list"),
    "a word": ("abc\n", None, "its top level is a single value"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_where(name: str, tmp_path: Path) -> None:
    content, line, words = REFUSED[name]
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StudyError) as refused:
        read_yaml(path)
    assert words in str(refused.value)
    assert (f"{path}:{line}: " if line else str(path)) in str(refused.value)


def test_no_file_at_all(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "director"), (tmp_path / "x", "no file"), (Path("/dev/zero"), "larger")):
        with pytest.raises(StudyError, match=words):
            read_yaml(path)


@pytest.mark.parametrize(
    ("content", "data"),
    [
        (b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        (b"a: 1\rb: 2\r", {"a": 1, "b": 2}),
        (b"a: &a 1\nb: &a 2\nc: [*a, *a]\n", {"a": 1, "b": 2, "c": [2, 2]}),
        (b"a: &a {x: 1}\nb: {<<: *a, y: 2}\n", {"a": {"x": 1}, "b": {"y": 2, "x": 1}}),
        (b'a: !!int "12"\nb: !!float 0\nc: !!seq [x]\n', {"a": 12, "b": 0.0, "c": ["x"]}),
        (b'a: "\\ud83d\\ude00"\n', {"a": "\U0001f600"}),
        (b"a: 2026-01-31\nb: 2026-01-31T00:00:00Z\n", {"a": "2026-01-31", "b": "2026-01-31T00:00:00Z"}),
    ],
)
def test_what_editors_write_is_read(
    content: bytes, data: object, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert read_yaml(tmp_path / "mine.yaml").data == data
    assert not list(recwarn)


def test_what_a_number_as_a_key_holds_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("a:\n  x: 1\n  1: 2\n  0.5:\n    b: [3,\n4]\n")
    file = read_yaml(tmp_path / "mine.yaml")
    assert file.data == {"a": {"x": 1, "1": 2, "0.5": {"b": [3, 4]}}}
    assert [file.find(loc) for loc in (("a", "1"), ("a", "0.5", "b", 1), ("a", "2"))] == [(2, 3), (4, 6), (1, 1)]


def test_an_override_is_read_as_strictly() -> None:
    with pytest.raises(StudyError, match="-o x:1: not valid YAML: nested too deeply"):
        parse_value("[" * 3000, "-o x")
