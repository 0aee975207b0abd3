"""Which parts of two keys differ: resolved dynamics or protocols, taken apart into named parts.

A component is its name, its version and its parameters. Stored records hold no versions: where a stored key is not the
one that the program makes of the same record today, the versions that did make it are searched for.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from meanflow_core.config import Dynamics, key_of

MOST_VERSIONS = 4096  # combinations tried
ABSENT, PRESENT, ORDER = "absent", "present", "order of "


@dataclass(frozen=True)
class Difference:
    """One part of a key: what a home holds, and what is wanted."""

    part: str
    there: Any
    wanted: Any

    def in_words(self) -> str:
        return f"{self.part} {said(self.there)} → {said(self.wanted)}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def said(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def take_apart(record: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """A resolved record (`Dynamics.dump`, `Protocol.dump`) as flat parts: ``optimiser`` is a component's name and
    ``optimiser.lr`` a parameter of it, ``optimiser.source`` the hash of the user's file that it comes from; of
    several (transforms, each of which stands once) ``transforms.dtd`` says that
    there is one, and ``order of transforms`` tells their order. What is empty is no part."""
    parts: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{at}{key}"
        if _is_component(value):
            parts |= {name: _short(value), **take_apart(_parameters(value), f"{name}.")}
        elif isinstance(value, Mapping):
            parts |= {name: PRESENT, **take_apart(value, f"{name}.")}
        elif isinstance(value, list | tuple) and value and all(map(_is_component, value)):
            for one in value:
                there = f"{name}.{_short(one)}"
                parts |= {there: PRESENT, **take_apart(_parameters(one), f"{there}.")}
            parts[f"{ORDER}{name}"] = [_short(one) for one in value]
        elif value not in ([], ()):
            parts[name] = value
    return parts


def keyed(dynamics: Dynamics) -> dict[str, Any]:
    """Resolved dynamics with that of a trainer of the user's own which stands in the key: no paths, and not how its
    processes are started."""
    record = dynamics.dump()
    return record if dynamics.trainer is None else {**record, "trainer": dynamics.trainer.canonical()}


def _is_component(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("name"), str)


def _short(component: Mapping[str, Any]) -> str:
    """The name of a component without its source."""
    return str(component["name"]).partition("@")[0]


def _parameters(component: Mapping[str, Any]) -> dict[str, Any]:
    """What else a component is made of; of one's own also the hash of its source (`meanflow_core.own`)."""
    source = component["name"].partition("@")[2]
    given = {key: value for key, value in component.items() if key != "name"}
    return {"source": source, **given} if source else given


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Difference]:
    """The parts in which two records that were taken apart differ. The parameters of a component that is another one,
    or absent, are not told apart."""
    found: dict[str, Difference] = {}
    for part in dict.fromkeys([*wanted, *there]):
        a, b = there.get(part, ABSENT), wanted.get(part, ABSENT)
        if a == b or any(part.startswith(f"{above}.") for above in found):
            continue
        if part.startswith(ORDER) and set(there.get(part, ())) != set(wanted.get(part, ())):
            continue  # members were told
        found[part] = Difference(part, a, b)
    return list(found.values())


Finish = Callable[[Mapping[str, Any]], Any]  # from the canonical form of a record to what is hashed


def older_versions(canonical: Mapping[str, Any], key: str, finish: Finish) -> list[Difference] | None:
    """Which versions have been raised since a key was made of a record, the rest being equal; None if none explain it.

    Args:
        canonical: of the record, as the program makes it today.
    """
    places = list(_versions(canonical))
    choices = [range(now, 0, -1) for *_, now in places]
    for chosen in itertools.islice(itertools.product(*choices), MOST_VERSIONS):
        then = copy.deepcopy(dict(canonical))
        for (path, _, _), version in zip(places, chosen, strict=True):
            _put(then, path, version)
        if key_of(finish(then)) == key:
            return [
                Difference(f"{name} version", version, now)
                for (_, name, now), version in zip(places, chosen, strict=True)
                if version != now
            ]
    return None


Path = tuple[str | int, ...]


def _versions(canonical: Mapping[str, Any]) -> Iterator[tuple[Path, str, int]]:
    """Where the versions of a canonical form stand: (path, what has that version, the version)."""
    for key, value in canonical.items():
        if key == "version":
            yield (key,), "key format", value
        elif _is_canonical(value):
            yield (key, 1), f"{key} {value[0]}", value[1]
        elif isinstance(value, list):
            for i, one in enumerate(value):
                if _is_canonical(one):
                    yield (key, i, 1), f"{key}.{one[0]}", one[1]


def _is_canonical(value: Any) -> bool:
    """Whether this is ``[name, version, parameters]`` of a component."""
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and isinstance(value[2], dict)


def _put(record: Any, path: Path, value: int) -> None:
    for part in path[:-1]:
        record = record[part]
    record[path[-1]] = value
