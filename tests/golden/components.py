"""Names, versions, defaults and keys of all components, as they were when results were first made with them.

    python -m tests.golden.components           says what has changed
    python -m tests.golden.components --write   takes note of new components, options and versions

It refuses to take note of a broken promise: there is no option for that, give the component a new version.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from meanflow_core.config import DYNAMICS_VERSION, PROTOCOL_VERSION, Dynamics, Guidance, Protocol, key_of
from meanflow_core.registry import Component, Spec, components

PATH = Path(__file__).with_suffix(".json")
REQUIRED = "(required)"

# The least that a component with required parameters is given, for its key.
MINIMAL: dict[str, dict[str, Any]] = {
    "data/stored": {"dataset": "mine", "fingerprint": "0" * 20},
    "network/dit": {"size": "nano/4"},
    "transform/gap_restriction": {"lo": 0.1, "hi": 0.3},
    "transform/target_corruption": {"relative_noise": 1.0},
    "metric/reported": {"key": "loss"},
    "metric/task_affinity": {"lo": 0.1, "hi": 0.3},
}

# Defaults that stand outside components, with the version that guards them.
CONFIGS: dict[str, tuple[type[BaseModel], int]] = {
    "config/dynamics": (Dynamics, DYNAMICS_VERSION),
    "config/guidance": (Guidance, DYNAMICS_VERSION),
    "config/protocol": (Protocol, PROTOCOL_VERSION),
}

Golden = dict[str, dict[str, Any]]


def built_in() -> list[Component]:
    """The components that come with the package."""
    return [c for c in components() if (c.impl or "").startswith("meanflow_core.")]


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Every field's default, JSON-ready; a component's is its canonical form."""
    out: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        value = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        value = value.canonical() if isinstance(value, Spec) else value
        out[name] = json.loads(json.dumps(value))
    return out


def describe(found: Iterable[Component]) -> Golden:
    """``kind/name`` → version, defaults and key; with the configuration's own defaults."""
    out: Golden = {
        title: {"version": version, "defaults": defaults(model), "key": ""}
        for title, (model, version) in CONFIGS.items()
    }
    for c in found:
        title = f"{c.kind}/{c.name}"
        spec = Spec(c, c.params.model_validate(MINIMAL.get(title, {})))
        out[title] = {"version": c.version, "defaults": defaults(c.params), "key": key_of(spec.canonical())}
    return out


def broken_promises(golden: Golden, now: Golden) -> list[str]:
    """Changes that would give old results a new meaning or a new key."""
    out = []
    for title, old in golden.items():
        new = now.get(title)
        if new is None:
            out.append(f"{title} is gone, and results were made with it")
        elif new["version"] < old["version"]:
            out.append(f"{title} went back from version {old['version']} to {new['version']}")
        elif new["version"] == old["version"]:
            for name, value in old["defaults"].items():
                if name not in new["defaults"]:
                    out.append(f"{title} lost its parameter '{name}' without a new version")
                elif new["defaults"][name] != value:
                    out.append(
                        f"{title}: the default of '{name}' went from {value} to {new['defaults'][name]} without a "
                        "new version"
                    )
            out += [
                f"{title}: the new parameter '{name}' has no default, so old files cannot be read"
                for name, value in new["defaults"].items()
                if name not in old["defaults"] and value == REQUIRED
            ]
            if new["key"] != old["key"]:
                out.append(f"{title}: its key moved without a new version")
    return out


def news(golden: Golden, now: Golden) -> list[str]:
    """Components, options and versions that the golden file does not know yet."""
    out = [f"{title} is new" for title in now if title not in golden]
    for title in sorted(set(golden) & set(now)):
        old, new = golden[title], now[title]
        if new["version"] > old["version"]:
            out.append(f"{title} has a new version {new['version']}")
        out += [f"{title} has a new parameter '{n}'" for n in new["defaults"] if n not in old["defaults"]]
    return out


def load() -> Golden:
    golden: Golden = json.loads(PATH.read_text())
    return golden


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help=f"write {PATH.name} anew")
    write = parser.parse_args().write
    now, golden = describe(built_in()), load() if PATH.exists() else {}
    broken, new = broken_promises(golden, now), news(golden, now)
    print("\n".join([*(f"BROKEN  {line}" for line in broken), *(f"new     {line}" for line in new)]) or "no change")
    if write and not broken:
        PATH.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
