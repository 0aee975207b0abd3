"""The floors of a study's distances, in the home: computed once, by whoever runs the study."""

from __future__ import annotations

from collections.abc import Iterable

from meanflow_core.config import Protocol
from results.formats import FloorFile
from results.layout import FORMAT, Home
from sweeps.attempt import write_atomically


def complete_floors(home: Home, protocols: Iterable[Protocol]) -> list[str]:
    """Write the floors that a home lacks, of the protocols that have one here (`meanflow_core.evaluation.floor`).
    Returns: why some could not be measured, a phrase each."""
    missing = {p.key: p for p in protocols if p.has_floor and not home.floor(p.key).exists()}
    if not missing:
        return []
    from meanflow_core.evaluation.floor import DRAWS, floor

    problems = []
    for key, protocol in missing.items():
        try:
            value = floor(protocol)
        except (
            Exception
        ) as error:  # a metric of the user's own may raise anything; what was trained does not depend on it
            problems.append(f"no floor of {protocol.metric_label}: {error}")
            continue
        if value is not None:
            known = FloorFile(format=FORMAT, protocol=key, metric=protocol.metric_label, value=value, draws=DRAWS)
            home.floors.mkdir(parents=True, exist_ok=True)
            write_atomically(home.floor(key), known.model_dump_json(indent=1))
    return problems
