"""A study with overrides, its sweep's among them: names for new points, and without what its arms no longer fit.
Torch-free."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from string import Formatter
from typing import Any

from pydantic import ValidationError

from meanflow_core.words import refusal, there_is
from studies.consistency import problems
from studies.errors import StudyError
from studies.loader import SCALES, StudySource, builtin_names, load_source, merged, validated
from studies.schema import ResolvedStudy, names_in
from studies.yamlfile import Loc

OWN_KEYS = {
    "base",
    "space",
    "strategy",
    "points",
    "seed",
    "drawn",
}  # of a sweep and of no study: they need no 'sweep.' before

Data = dict[str, Any]


def resolve_fitted(
    source: StudySource,
    scale: str,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    panel: str | None = None,
) -> tuple[ResolvedStudy, list[str]]:
    """The study at one scale, and in words what of it is left out since its arms no longer fit: claims, table and
    figure that speak of points which an override of the sweep has removed. ``panel`` alone is kept, if given.

    Raises: StudyError naming file, line and key of whatever is wrong.
    """
    data, overridden = merged(source, scale, [in_sweep(item) for item in overrides], seeds)
    if panel is not None:
        _keep_panel(data, panel)
    of_sweep = [path for path in overridden if path[0] == "sweep"]
    if not of_sweep:
        return validated(data, source, overridden), []
    _check_has_sweep(source, scale, of_sweep)
    if isinstance(data["sweep"], dict) and ("sweep", "arm_name") not in overridden:
        data["sweep"]["arm_name"] = name_of_points(data)
    left_out = leave_out_misfits(data, {str(path[0]) for path in overridden})
    said = [f"left out, since {why}: {', '.join(names)}" for why, names in left_out.items()]
    return validated(data, source, overridden), said


def _keep_panel(data: Data, panel: str) -> None:
    """Remove all panels of a merged study but one, the controls beside them, and what settings and constants say for
    these alone. Raises: StudyError."""
    if panel not in _parts(data.get("panels")):
        raise StudyError(f"--panel {panel}: there is no such panel{there_is(panel, _parts(data.get('panels')))}")
    before, used_before = _given(data), _used(data)
    controls = _parts(data.get("controls"))
    data["panels"] = {panel: data["panels"][panel]}
    data["controls"] = {name: control for name, control in controls.items() if _parts(control).get("panel") == panel}
    for part, gone in (("settings", before - _given(data)), ("constants", used_before - _used(data))):
        data[part] = {name: value for name, value in _parts(data.get(part)).items() if name not in gone}


def _given(data: Data) -> set[str]:
    """The attributes that the arms of a merged study have."""
    sweep = _parts(data.get("sweep"))
    arms = [_parts(_parts(panel).get("arms")) for panel in _parts(data.get("panels")).values()]
    arms += [_parts(_parts(control).get("attributes")) for control in _parts(data.get("controls")).values()]
    return {name for one in (*arms, _parts(sweep.get("base")), _parts(sweep.get("space"))) for name in one}


def _used(data: Data) -> set[str]:
    """The names that stages and those settings refer to whose attributes its arms have."""
    settings = _parts(data.get("settings"))
    applied = [value for name, value in settings.items() if name in _given(data)]
    return names_in([applied, data.get("stages"), data.get("controls")])


def in_sweep(override: str) -> str:
    """``space.k=[1]`` → ``sweep.space.k=[1]``; other overrides stay as they are."""
    key = override.partition("=")[0].partition(".")[0].strip()
    return f"sweep.{override.strip()}" if key in OWN_KEYS else override


def _check_has_sweep(source: StudySource, scale: str, of_sweep: Sequence[Loc]) -> None:
    """Raises: StudyError where part of a sweep is overridden that the study lacks; a whole one may be given."""
    if ("sweep",) not in of_sweep and {**source.data, **source.data[SCALES][scale]}.get("sweep") is None:
        said = ".".join(map(str, of_sweep[0]))
        raise StudyError(f"-o {said}: study '{source.name}' has no sweep (there is one in: {', '.join(with_sweep())})")


def with_sweep() -> list[str]:
    """The built-in studies that have a sweep."""
    return [name for name in builtin_names() if load_source(name).data.get("sweep")]


def name_of_points(data: Data) -> str:
    """The format string of the sweep's arms, with all attributes of its space in it; made anew where it names one that
    the arms no longer have."""
    sweep, pattern = data["sweep"], str(data["sweep"].get("arm_name", ""))
    space = list(_parts(sweep.get("space")))
    shared = {name for panel in _parts(data.get("panels")).values() for name in _parts(_parts(panel).get("arms"))}
    try:
        fields = {field for _, field, _, _ in Formatter().parse(pattern) if field}
    except ValueError:
        return pattern  # validation says what is wrong with it
    if fields - {*space, *shared, *_parts(sweep.get("base"))}:
        pattern, fields = "", set()
    return "_".join([*filter(None, [pattern]), *(f"{name}{{{name}}}" for name in space if name not in fields)])


def _parts(value: Any) -> Data:
    """A mapping as it is; validation says what is wrong with anything else."""
    return value if isinstance(value, dict) else {}


def leave_out_misfits(data: Data, kept: Collection[str] = ()) -> dict[str, list[str]]:
    """Remove from a merged study its claims, its table and its figure where they speak of arms or attributes that it
    lacks. Those ``kept`` stay, and so does everything where the study is wrong even without them: validation says of
    both what is wrong.

    Returns: what was removed (``table``, ``figure``, ids of claims), by the reason.
    """
    bare: Data = {**data, "claims": [], "table": None, "figure": None}
    removed: dict[str, list[str]] = {}
    if misfit(bare):
        return removed
    for part in ("table", "figure"):
        if part not in kept and data.get(part) is not None:
            if why := misfit({**bare, part: data[part]}):
                removed.setdefault(why, []).append(part)
                data[part] = None
            bare[part] = data[part]  # a figure may name a column of the table
    if "claims" not in kept and isinstance(data.get("claims"), list):
        wrong = [(claim, why) for claim in data["claims"] if (why := misfit({**bare, "claims": [claim]}))]
        for claim, why in wrong:
            removed.setdefault(why, []).append(f"claim {claim.get('id')}")
        data["claims"] = [claim for claim in data["claims"] if all(claim is not other for other, _ in wrong)]
    return removed


def misfit(data: Data) -> str:
    """The first thing that is wrong with a merged study, without a list of what it has; empty where nothing is."""
    try:
        study = ResolvedStudy.model_validate(data)
    except ValidationError as error:
        return refusal(error.errors()[0])
    return next((re.split(r" \((?:did you mean|available:)", message)[0] for _, message in problems(study)), "")
