"""Every key of every built-in study, at every scale, for one seed.

    python -m tests.golden.keys           says what has changed
    python -m tests.golden.keys --write   and writes the file anew

What homes hold is found by these keys: where one moves, what is stored under it is trained or measured again. So write
the file anew only

- for a study, scale, arm or measure that came or went: nothing else in the file may change, but for the evaluations of
  arms that are now measured at more or fewer points;
- for a component, or `DYNAMICS_VERSION` or `PROTOCOL_VERSION`, whose version was raised because its numbers changed;
- for a study that is meant to train or measure something else than before;
- for a configuration whose words were changed. To reports and claims, runs of another configuration are other runs,
  whose seeds they no longer see: so never for an option that was added, or for a heading.

Say the latter two in the changelog. Never write it anew because keys moved by themselves. The other half, a key that
stays while what it stands for changes, is what `tests.golden.components` and `tests.golden.trajectory` are for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from meanflow_core.config import Protocol, key_of
from meanflow_core.registry import non_defaults
from studies.arms import Arm, expand_seed
from studies.loader import builtin_names, load_source, resolve
from studies.schema import ResolvedStudy
from sweeps.runs import config_hash

PATH = Path(__file__).with_suffix(".json")
SEED = 0

Keys = dict[str, str]  # what the key belongs to → the key
Golden = dict[str, dict[str, Keys]]  # study → scale → keys


def in_words(protocol: Protocol) -> str:
    """What tells the protocols of a study apart at one scale: ``frechet_pixel, 2-NFE jump, ema``."""
    guidance = getattr(protocol.metric.params, "guidance", None)
    guided = [f"{name} {value}" for name, value in non_defaults(guidance).items()] if guidance else []
    return ", ".join([protocol.metric_label, f"{protocol.nfe}-NFE {protocol.solver}", protocol.weights, *guided])


def named_keys(arm: Arm) -> Iterator[tuple[str, str]]:
    """An arm's keys, each with its name. Of its evaluations, which are many, there is one digest."""
    title = f"{arm.panel}/{arm.name}"
    for stage in arm.stages:
        yield f"trajectory of {title}/{stage.name}", stage.trajectory.key
    for point in arm.points:
        yield f"protocol of {in_words(point.protocol)}", point.protocol.key
    evaluations = sorted({point.evaluation for point in arm.points})
    yield f"evaluations of {title}", f"{len(evaluations)}, digest {key_of(evaluations)}"


def keys_of(study: ResolvedStudy) -> Keys:
    """All keys of a study at one scale. Raises: ValueError for two different keys of one name."""
    out: Keys = {"configuration": config_hash(study)}
    for arm in expand_seed(study, SEED):
        for name, key in named_keys(arm):
            if out.setdefault(name, key) != key:
                raise ValueError(f"{study.study} at {study.scale}: '{name}' names two keys; let `in_words` say more")
    return out


def of_study(name: str) -> dict[str, Keys]:
    """All keys of a built-in study, by scale."""
    source = load_source(name)
    return {scale: keys_of(resolve(source, scale)) for scale in source.scales}


def changes(study: str, golden: dict[str, Keys], now: dict[str, Keys]) -> list[str]:
    """What differs in a study's keys, a line each: causes (trajectories, protocols) before what follows from them."""
    then, today = _flat(golden), _flat(now)
    out = []
    for scale, name in sorted(then.keys() | today.keys(), key=lambda at: (at[1].startswith("evaluations"), at)):
        old, new = then.get((scale, name)), today.get((scale, name))
        if old != new:
            what = "is new" if old is None else "is gone" if new is None else f"moved from {old} to {new}"
            out.append(f"{study} at {scale}: {name} {what}")
    return out


def _flat(keys: dict[str, Keys]) -> dict[tuple[str, str], str]:
    return {(scale, name): key for scale, named in keys.items() for name, key in named.items()}


def load() -> Golden:
    golden: Golden = json.loads(PATH.read_text(encoding="utf-8"))
    return golden


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help=f"write {PATH.name} anew")
    write, golden = parser.parse_args().write, load() if PATH.exists() else {}
    now = {study: of_study(study) for study in builtin_names()}
    for study in sorted(golden.keys() | now.keys()):
        for line in changes(study, golden.get(study, {}), now.get(study, {})):
            print(line)
    if write:
        PATH.write_text(json.dumps(now, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
