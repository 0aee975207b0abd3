"""From a study's name or file to a `ResolvedStudy`: find, extend, merge a scale, override, validate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from meanflow_core.own import sources_in
from meanflow_core.strict import written_by_hand
from meanflow_core.words import there_is
from studies.blame import blamed, messages, where
from studies.consistency import problems
from studies.dynamics import stage_problems
from studies.errors import StudyError, UnknownStudy
from studies.merging import merge
from studies.schema import ResolvedStudy
from studies.using import USE, named, with_components
from studies.yamlfile import Loc, YamlFile, parse_value, read_yaml

BUILTIN = Path(__file__).parent
SCALES = "scales"
NOT_STUDIES = {"implications", "paper_values"}  # other declarations beside the built-in studies
OF_PAPER = ("as_in_paper", "paper_values")  # what ties a study to the paper's numbers
RUN_ONLY = {"device", "threads", "log_every_steps", "checkpoint_every_epochs", "keep_every_epochs", "divergence"}
REMOVABLE = ("panels", "controls")  # null leaves out one that is inherited
MORE_POINTS = {("sweep", key) for key in ("space", "strategy", "points", "seed", "drawn")}


def builtin_names() -> list[str]:
    """Names of the studies that come with the package. Files that begin with ``_`` are only there to be extended."""
    return sorted(p.stem for p in BUILTIN.glob("[!_]*.yaml") if p.stem not in NOT_STUDIES)


@dataclass(frozen=True)
class StudySource:
    """A study as written: its merged content and the files it comes from (itself first, then what it extends).

    ``bases`` holds, for each scale, the scale that it extends, then the one that this extends, and so on.
    """

    name: str
    data: dict[str, Any]
    files: tuple[YamlFile, ...]
    bases: dict[str, tuple[str, ...]]

    @property
    def scales(self) -> list[str]:
        return list(self.data.get(SCALES, {}))

    def paper(self, kind: str) -> list[int]:
        """The ``figures`` or ``tables`` of the paper that the study makes, at whatever scale."""
        bodies = [self.data, *self.data.get(SCALES, {}).values()]
        return sorted({int(n) for body in bodies for n in (body.get("paper") or {}).get(kind, [])})

    def only_scale_with(self, kind: str, number: int) -> str | None:
        """The scale that alone makes a figure or table, or None where it is the study's at any scale."""
        if number in (self.data.get("paper") or {}).get(kind, []):
            return None
        bodies: dict[str, dict[str, Any]] = self.data.get(SCALES, {})
        return next(scale for scale, body in bodies.items() if number in (body.get("paper") or {}).get(kind, []))

    @property
    def extends_builtin(self) -> bool:
        """Whether it is a user's file on top of one that comes with the package."""
        return 0 < len(self._own) < len(self.files)

    @property
    def _own(self) -> list[YamlFile]:
        return [file for file in self.files if file.path.resolve().parent != BUILTIN.resolve()]

    def own(self, scale: str, key: str, default: Any) -> Any:
        """What the user's files say of a key, at a scale or else at all of them."""
        said = [(file.data.get(SCALES) or {}) for file in self._own]
        bodies = [scales.get(name) or {} for name in (scale, *self.bases[scale]) for scales in said]
        return next((body[key] for body in [*bodies, *(file.data for file in self._own)] if key in body), default)

    def locate(self, scale: str, loc: Loc) -> str:
        """``file:line`` of the deepest part of a key that some file holds, in the scale or outside of it."""
        best = (0, 1, self.files[0].path)
        for prefix in (*((SCALES, name) for name in (scale, *self.bases.get(scale, ()))), ()):
            for file in self.files:
                depth, line = file.find((*prefix, *loc))
                if depth - len(prefix) > best[0]:
                    best = (depth - len(prefix), line, file.path)
        return f"{best[2]}:{best[1]}"


def _path_of(name: str, beside: Path | None = None) -> Path:
    looks_like_file = name.endswith((".yaml", ".yml")) or "/" in name
    if looks_like_file:
        path = Path(name).expanduser()
        return path if path.is_absolute() or beside is None else beside / path
    if name in builtin_names():
        return BUILTIN / f"{name}.yaml"
    raise UnknownStudy(
        f"unknown study '{name}'{there_is(name, builtin_names(), shown=20)}; a file of your own is given by its path, "
        "./mine.yaml"
    )


def load_source(name: str) -> StudySource:
    """Read a study and what it extends. Raises: StudyError."""
    files: list[YamlFile] = []
    path = _path_of(name)
    while True:
        if any(file.path.resolve() == path.resolve() for file in files):
            raise StudyError(f"{files[-1].path}: 'extends' goes round in a circle")
        file = with_components(read_yaml(path))
        files.append(file)
        extends = file.data.get("extends")
        if extends is None:
            break
        if not isinstance(extends, str):
            raise StudyError(f"{path}: 'extends' takes the name or the path of one study")
        path = _path_of(extends, path.parent)
    data: dict[str, Any] = {}
    for file in reversed(files):
        data = merge(data, {k: v for k, v in file.data.items() if k != "extends"})
    if isinstance(data.get(SCALES), dict):  # null removes a scale of what is extended
        data[SCALES] = {scale: body for scale, body in data[SCALES].items() if body is not None}
    name = str(data.get("study"))
    _check_top(StudySource(name, data, tuple(files), {}))
    scales = data[SCALES]
    bases = {scale: _bases(scale, scales, files) for scale in scales}
    data[SCALES] = {scale: _laid(scales, (scale, *bases[scale])) for scale in scales}
    return StudySource(name, data, tuple(files), bases)


def _bases(scale: str, scales: dict[str, Any], files: Sequence[YamlFile]) -> tuple[str, ...]:
    """The scales that a scale extends, the nearest first. Raises: StudyError where one is none, or the scale itself."""
    line = [scale]
    while (base := scales[line[-1]].get("extends")) is not None:
        if not isinstance(base, str) or base in line or base not in scales:
            at, found = next((f.path, f.find((SCALES, line[-1], "extends"))) for f in files if _says(f, line[-1]))
            what = (
                "goes round in a circle" if base in line else f"there is no scale '{base}'{there_is(str(base), scales)}"
            )
            raise StudyError(f"{at}:{found[1]}: scale '{line[-1]}' extends '{base}': {what}")
        line.append(base)
    return tuple(line[1:])


def _says(file: YamlFile, scale: str) -> bool:
    return "extends" in ((file.data.get(SCALES) or {}).get(scale) or {})


def _laid(scales: dict[str, Any], line: Sequence[str]) -> dict[str, Any]:
    """The scales of a line laid over one another, the first on top."""
    laid: dict[str, Any] = {}
    for name in reversed(line):
        laid = merge(laid, {key: value for key, value in scales[name].items() if key != "extends"})
    return laid


def _check_top(source: StudySource) -> None:
    data, first = source.data, source.files[0].path
    if len(source.files) > 1 and "study" not in source.files[0].data:
        raise StudyError(f"{first}: give your study a name of its own ('study: my_name')")
    if not isinstance(data.get(SCALES), dict) or not data[SCALES]:
        raise StudyError(f"{first}: a study needs 'scales', a mapping with at least one scale")
    for scale, body in data[SCALES].items():
        if not isinstance(body, dict):
            raise StudyError(f"{first}: scale '{scale}' is not a mapping")


def parse_overrides(items: Sequence[str]) -> list[tuple[Loc, Any]]:
    """``["dynamics.network.width=64"]`` → [(path, value)]. Raises: StudyError."""
    parsed = []
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise StudyError(f"-o {item}: an override is written key=value, e.g. -o steps_per_epoch=80")
        parts: Loc = tuple(int(p) if p.isdecimal() else p for p in key.strip().split("."))
        given = parse_value(value, f"-o {item}")
        if parts[-1] == USE and len(parts) > 1:
            parts, given = parts[:-1], {USE: given}
        parsed.append((parts, named(given, Path(), partial(_said, key.strip()), parts)))
    return parsed


def _said(key: str, _: Loc) -> str:
    return f"-o {key}"


def _apply(data: dict[str, Any], path: Loc, value: Any) -> None:
    node: Any = data
    said = ".".join(map(str, path))
    for depth, part in enumerate(path):
        if isinstance(node, list) and not (isinstance(part, int) and part < len(node)):
            raise StudyError(f"-o {said}: '{part}' is not one of the {len(node)} entries, counted from 0")
        if not isinstance(node, dict | list):
            raise StudyError(f"-o {said}: '{path[depth - 1]}' has no parts")
        key: Any = str(part) if isinstance(node, dict) else part
        if depth == len(path) - 1:
            node[key] = value
        elif isinstance(node, dict):
            current = node.get(key)
            node[key] = {"name": current} if isinstance(current, str) else (current if current is not None else {})
            node = node[key]
        else:
            node = node[key]


def resolve(
    source: StudySource, scale: str, overrides: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> ResolvedStudy:
    """The study at one scale. Raises: StudyError naming file, line and key of whatever is wrong."""
    data, overridden = merged(source, scale, overrides, seeds)
    return validated(data, source, overridden)


def merged(
    source: StudySource, scale: str, overrides: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> tuple[dict[str, Any], set[Loc]]:
    """A scale laid over the study, overrides laid over both, not validated yet; and what was overridden.

    A study is tied to the paper's numbers (`OF_PAPER`) no longer where a file of your own extends it, or an override
    changes more than how it is run and which points a sweep has; unless the file or an override says that it is.

    Raises: StudyError for a scale that is not there, or an override that cannot be laid over.
    """
    if scale not in source.scales:
        raise StudyError(f"study '{source.name}' has no scale '{scale}'{there_is(scale, source.scales)}")
    _check_hidden(source, scale)
    data = merge({k: v for k, v in source.data.items() if k != SCALES}, source.data[SCALES][scale])
    data["scale"] = scale
    titled = next((file.data for file in source.files if {"title", "heading"} & file.data.keys()), {})
    if "heading" not in titled:  # one that is inherited is of another title
        data.pop("heading", None)
    for key in REMOVABLE:
        if isinstance(data.get(key), dict):
            data[key] = {name: part for name, part in data[key].items() if part is not None}
    if source.extends_builtin:
        data |= {key: source.own(scale, key, False) for key in OF_PAPER}
    paths = parse_overrides(overrides)
    if any(_changes(path) for path, _ in paths):
        data |= dict.fromkeys(OF_PAPER, False)
    for path, value in paths:
        if path[0] in {"scale", "study", "seeds"}:
            raise StudyError(f"-o {path[0]}=...: use the option or the file for that, not an override")
        _apply(data, path, value)
    if seeds is not None:
        data["seeds"] = list(seeds)
    if "sources" in data:
        raise StudyError(f"{source.files[0].path}: the sources of a study are found, not written: leave 'sources' out")
    if sources := sources_in(data):
        data["sources"] = {key: source.model_dump() for key, source in sources.items()}
    return data, {path for path, _ in paths}


def _changes(path: Loc) -> bool:
    """Whether an override may change what an arm of some name is, or how it is measured."""
    return path[0] not in {*RUN_ONLY, *OF_PAPER, "claims"} and path[:2] not in MORE_POINTS


def _check_hidden(source: StudySource, scale: str) -> None:
    """Raises: StudyError for what a file says of all scales where the scale of a file that it extends lays a mapping
    over it: half of that mapping would be left, and errors would point there."""
    for key, value in source.data.items():
        if isinstance(value, dict) or not isinstance(source.data[SCALES][scale].get(key), dict):
            continue
        said = next(i for i, file in enumerate(source.files) if key in file.data)
        at = [(SCALES, name, key) for name in (scale, *source.bases[scale])]
        hiding, loc = next((i, loc) for i, f in enumerate(source.files) for loc in at if f.find(loc)[0] == 3)
        if said < hiding:
            here, there = source.files[said], source.files[hiding]
            raise StudyError(
                f"{here.path}:{here.find((key,))[1]}: {key}: scale '{scale}' has a mapping there "
                f"({there.path}:{there.find(loc)[1]}), which is laid over this; say it of the scale: "
                f"scales: {{{scale}: {{{key}: ...}}}}"
            )


def validated(data: dict[str, Any], source: StudySource, overridden: set[Loc]) -> ResolvedStudy:
    """The study that merged data describe. Raises: StudyError naming file, line and key of whatever is wrong."""
    study, found = faults(data, overridden, source)
    if study is None:
        raise StudyError("\n".join(found))
    if found:
        raise StudyError(found[0])
    return study


def faults(data: dict[str, Any], overridden: set[Loc], source: StudySource) -> tuple[ResolvedStudy | None, list[str]]:
    """The study that merged data describe, if the schema takes it, and all that is wrong, with file, line and key."""
    with written_by_hand():
        return _faults(data, overridden, source)


def _faults(data: dict[str, Any], overridden: set[Loc], source: StudySource) -> tuple[ResolvedStudy | None, list[str]]:
    scale = data["scale"]
    try:
        study = ResolvedStudy.model_validate(data)
    except ValidationError as error:
        return None, list(messages(error, source, scale, overridden))
    of_stages = [f"{blamed(locs, source, scale, overridden)}: {what}" for locs, what in stage_problems(study)]
    if of_stages:  # what is unknown may follow from them
        return study, list(dict.fromkeys(of_stages))
    return study, [
        f"{where(loc, source, scale, overridden)}: {'.'.join(map(str, loc))}: {what}" for loc, what in problems(study)
    ]


def validate(source: StudySource) -> None:
    """Resolve every scale, so that an error in any of them is found. Raises: StudyError."""
    for scale in source.scales:
        resolve(source, scale)
