"""From a study's name or file to a `ResolvedStudy`: find, extend, merge a scale, override, validate."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from meanflow_core.config import Dynamics
from studies.consistency import problems
from studies.errors import StudyError
from studies.schema import ResolvedStudy, Stage, fill
from studies.strict import Attribute
from studies.yamlfile import Loc, YamlFile, parse_value, read_yaml

BUILTIN = Path(__file__).parent
SCALES = "scales"
NOT_STUDIES = {"implications", "paper_values"}  # other declarations beside the built-in studies


def merge(base: Any, over: Any) -> Any:
    """``over`` laid over ``base``: mappings merge key by key, all else is replaced.

    A component named differently replaces the old one whole, since its parameters are not the other's.
    """
    if not isinstance(base, dict) or not isinstance(over, dict):
        return copy.deepcopy(over)
    if "name" in base and "name" in over and base["name"] != over["name"]:
        return copy.deepcopy(over)
    merged = {k: copy.deepcopy(v) for k, v in base.items()}
    for key, value in over.items():
        merged[key] = merge(merged[key], value) if key in merged else copy.deepcopy(value)
    return merged


def builtin_names() -> list[str]:
    """Names of the studies that come with the package. Files that begin with ``_`` are only there to be extended."""
    return sorted(p.stem for p in BUILTIN.glob("[!_]*.yaml") if p.stem not in NOT_STUDIES)


@dataclass(frozen=True)
class StudySource:
    """A study as written: its merged content and the files it comes from (itself first, then what it extends)."""

    name: str
    data: dict[str, Any]
    files: tuple[YamlFile, ...]

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

    def locate(self, scale: str, loc: Loc) -> str:
        """``file:line`` of the deepest part of a key that some file holds, in the scale or outside of it."""
        best = (0, 1, self.files[0].path)
        for prefix in ((SCALES, scale), ()):
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
    close = difflib.get_close_matches(name, builtin_names(), 1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise StudyError(
        f"unknown study '{name}'{hint} (there is: {', '.join(builtin_names())}; a file of your own is given "
        "by its path, ./mine.yaml)"
    )


def load_source(name: str) -> StudySource:
    """Read a study and what it extends. Raises: StudyError."""
    files: list[YamlFile] = []
    path = _path_of(name)
    while True:
        if any(file.path.resolve() == path.resolve() for file in files):
            raise StudyError(f"{files[-1].path}: 'extends' goes round in a circle")
        file = read_yaml(path)
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
    source = StudySource(str(data.get("study")), data, tuple(files))
    _check_top(source)
    return source


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
        parsed.append((parts, parse_value(value, f"-o {item}")))
    return parsed


def _apply(data: dict[str, Any], path: Loc, value: Any) -> None:
    node: Any = data
    said = ".".join(map(str, path))
    for depth, part in enumerate(path):
        if isinstance(node, list) and not (isinstance(part, int) and part < len(node)):
            raise StudyError(f"-o {said}: '{part}' is not one of the {len(node)} entries, counted from 0")
        if not isinstance(node, dict | list):
            raise StudyError(f"-o {said}: '{path[depth - 1]}' has no parts")
        if depth == len(path) - 1:
            node[part] = value  # type: ignore[index]
        elif isinstance(node, dict):
            current = node.get(str(part))
            node[part] = {"name": current} if isinstance(current, str) else (current if current is not None else {})
            node = node[part]
        else:
            node = node[int(part)]


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

    Raises: StudyError for a scale that is not there, or an override that cannot be laid over.
    """
    if scale not in source.scales:
        raise StudyError(f"study '{source.name}' has no scale '{scale}' (it has: {', '.join(source.scales)})")
    data = merge({k: v for k, v in source.data.items() if k != SCALES}, source.data[SCALES][scale])
    data["scale"] = scale
    paths = parse_overrides(overrides)
    for path, value in paths:
        if path[0] in {"scale", "study", "seeds"}:
            raise StudyError(f"-o {path[0]}=...: use the option or the file for that, not an override")
        _apply(data, path, value)
    if seeds is not None:
        data["seeds"] = list(seeds)
    return data, {path for path, _ in paths}


def validated(data: dict[str, Any], source: StudySource, overridden: set[Loc]) -> ResolvedStudy:
    """The study that merged data describe. Raises: StudyError naming file, line and key of whatever is wrong."""
    scale = data["scale"]
    try:
        study = ResolvedStudy.model_validate(data)
    except ValidationError as error:
        raise StudyError(_say(error, source, scale, overridden)) from None
    _check_stages(study, source, overridden)
    for loc, message in problems(study):
        raise StudyError(f"{_where(loc, source, scale, overridden)}: {'.'.join(map(str, loc))}: {message}")
    return study


def _check_stages(study: ResolvedStudy, source: StudySource, overridden: set[Loc]) -> None:
    """Raises: StudyError if a stage's dynamics are not valid for some arm."""
    arms = [attributes for panel in study.panels for _, attributes in study.arms_of(panel)]
    chains: list[tuple[Loc, Sequence[Stage], list[dict[str, Attribute]]]] = [(("stages",), study.stages, arms)]
    for name, control in study.controls.items():
        own_stages: Loc = ("controls", name, "stages") if control.stages else ("stages",)
        chains.append((own_stages, study.stages_of(name), [control.attributes]))
    for path, stages, each in chains:
        for i, stage in enumerate(stages):
            try:
                for attributes in each:
                    stage_dynamics(study, stage, attributes)
            except ValidationError as error:
                first = error.errors()[0]
                loc: Loc = tuple(first["loc"])
                own = not loc or loc[0] in stage.overrides  # else it is the study's, or a setting's
                where = _where((*path, i, *loc) if own else ("dynamics", *loc), source, study.scale, overridden)
                message = first["msg"].removeprefix("Value error, ")
                if first["type"] == "extra_forbidden":
                    known = f"; there is: {', '.join(Dynamics.model_fields)}"
                    message = "unknown key" + (known if len(loc) == 1 else "")
                key = ".".join(str(p) for p in loc) or "dynamics"
                raise StudyError(f"{where}: stage '{stage.name}': {key}: {message}") from None
            except ValueError as error:
                where = _where((*path, i), source, study.scale, overridden)
                raise StudyError(f"{where}: stage '{stage.name}': {error}") from None


def stage_dynamics(study: ResolvedStudy, stage: Stage, attributes: Mapping[str, Attribute]) -> Dynamics:
    """The study's dynamics, overlaid with the settings of the arm's attributes, overlaid with the stage's keys.

    Raises: ValueError (pydantic's ValidationError is one), never once `resolve` has passed.
    """
    dynamics: Any = study.dynamics
    for name, value in attributes.items():
        dynamics = merge(dynamics, _setting(study, name, value))
    return Dynamics.model_validate(fill(merge(dynamics, stage.overrides), {**study.constants, **attributes}))


def _setting(study: ResolvedStudy, name: str, value: Attribute) -> dict[str, Any]:
    """What an attribute's value stands for. Raises: ValueError where its other values stand for something."""
    levels = study.settings.get(name, {})
    if levels and str(value) not in levels:
        raise ValueError(f"settings.{name} does not say what '{value}' stands for (it has: {', '.join(levels)})")
    return levels.get(str(value), {})


def _where(loc: Loc, source: StudySource, scale: str, overridden: set[Loc]) -> str:
    """The override that set a part of a study, or else the file and line."""
    for path in overridden:
        if loc[: len(path)] == path or path[: len(loc)] == loc:
            return f"-o {'.'.join(map(str, path))}"
    return source.locate(scale, loc)


def _say(error: ValidationError, source: StudySource, scale: str, overridden: set[Loc]) -> str:
    return "\n".join(_messages(error, source, scale, overridden))


def _messages(error: ValidationError, source: StudySource, scale: str, overridden: set[Loc]) -> Iterator[str]:
    locs = [tuple(item["loc"]) for item in error.errors()]
    for item in error.errors():
        loc: Loc = tuple(item["loc"])
        if item["type"] == "too_short" and any(other[: len(loc)] == loc != other for other in locs):
            continue  # it lacks only what is wrong in itself, which has a message of its own
        where = _where(loc, source, scale, overridden)
        key = ".".join(str(p) for p in loc) or "(the study)"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key"
            close = difflib.get_close_matches(str(loc[-1]), list(ResolvedStudy.model_fields), 1)
            message += f"; did you mean '{close[0]}'?" if close and len(loc) == 1 else ""
        yield f"{where}: {key}: {message}"


def validate(source: StudySource) -> None:
    """Resolve every scale, so that an error in any of them is found. Raises: StudyError."""
    for scale in source.scales:
        resolve(source, scale)
