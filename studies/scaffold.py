"""The text of a new study file on top of another study: what can be said in it, shown by what the other one says."""

from __future__ import annotations

import io
import textwrap
from typing import Any

from ruamel.yaml import YAML

from studies.loader import SCALES, StudySource
from studies.using import as_used

# What is worth changing, in the order of a study file, and what each means.
SECTIONS = {
    "arm_name": "How an arm is called, from its attributes.",
    "panels": "The arms, by panel. Lists zip, scalars repeat; a panel that is null is left out.",
    "sweep": "Arms that every panel has besides: every point of a space (`study sweep`).",
    "stages": "What an arm trains, one stage after the other. $NAME is an attribute; other keys override the dynamics.",
    "controls": "Arms of your own that stand apart from the comparison.",
    "table": "Rows and columns of the table.",
    "figure": "How the figure is drawn.",
    "claims": "What is claimed, each with one test, declared before any result is seen. A list replaces the list.",
    "assumptions": "What nobody says and you chose.",
}
OF_SCALE = ("seeds", "steps_per_epoch", "primary", "dynamics", "measure")
WIDTH = 110


def scaffold(name: str, source: StudySource, extends: str) -> str:
    """A study file that changes nothing yet. What it could change stands in comments, as ``source`` says it.

    Args:
        extends: the name or path of ``source``, as the new file is to give it.
    """
    parts, data = [_head(name, source, extends)], as_used(source.data)
    for key, meaning in SECTIONS.items():
        if key in data:
            parts.append(_comment(meaning) + _example({key: _short(data[key])}))
    scale = "cpu" if "cpu" in source.scales else source.scales[0]
    body: dict[str, Any] = data[SCALES][scale]
    shown = {key: body[key] for key in OF_SCALE if key in body}
    others = ", ".join(other for other in source.scales if other != scale) or "none"
    parts.append(
        _comment(f"Scales are laid over all that. There are also: {others}; null removes one, and others can be added.")
        + _example({SCALES: {scale: shown}})
    )
    return "\n".join(parts)


def _head(name: str, source: StudySource, extends: str) -> str:
    title = source.data.get("heading") or source.data.get("title", source.name)
    return (
        _comment(
            f"A study on top of {source.name}. What this file does not say is as it is there; mappings merge, lists "
            "and other values replace. Below, in comments, stands what it says there: take the # away and change it."
        )
        + "#\n"
        + f"#     study check ./{name}.yaml                 # every error at its line, and what would be trained\n"
        + f"#     study run ./{name}.yaml --scale {source.scales[0]}\n\n"
        + _dump({"study": name, "extends": extends, "title": f"{title} ({name})"})
    )


def _short(value: Any) -> Any:
    """The first of a long list, as an example."""
    return value[:1] if isinstance(value, list) and len(value) > 3 and isinstance(value[0], dict | str) else value


def _comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False) + "\n"


def _example(value: dict[str, Any]) -> str:
    return textwrap.indent(_dump(value), "# ")


def _dump(value: dict[str, Any]) -> str:
    yaml: Any = YAML(typ="safe")
    nested = any(isinstance(part, dict | list) for part in value.values())
    yaml.default_flow_style = None if nested else False  # None: the innermost lists and mappings in one line
    yaml.width, yaml.allow_unicode, yaml.sort_base_mapping_type_on_output = WIDTH, True, False
    out = io.StringIO()
    yaml.dump(value, out)
    return out.getvalue()
