"""In what two arms are configured differently, stage by stage."""

from __future__ import annotations

from typing import Any

from studies.arms import Arm, StageRun
from sweeps.compare import ABSENT, PRESENT, Difference, differences, keyed, take_apart


def arm_differences(a: Arm, b: Arm) -> list[Difference]:
    """The parts in which b differs from a; stages are told apart by their names: ``stage v_pretrain``,
    ``u_finetune.epochs``, ``u_finetune.transforms.dtd``."""
    mine, theirs = _stages(a), _stages(b)
    found = []
    for name in dict.fromkeys([*mine, *theirs]):
        if name not in theirs:
            found.append(Difference(f"stage {name}", PRESENT, ABSENT))
        elif name not in mine:
            found.append(Difference(f"stage {name}", ABSENT, PRESENT))
        else:
            told = differences(mine[name], theirs[name])
            found += [Difference(f"{name}.{one.part}", one.there, one.wanted) for one in told]
    return found


def _stages(arm: Arm) -> dict[str, dict[str, Any]]:
    """The stages of an arm as flat parts, by name; of several that are called alike, the later ones by number too."""
    stages: dict[str, dict[str, Any]] = {}
    for stage in arm.stages:
        again = sum(name.partition("#")[0] == stage.name for name in stages)
        stages[f"{stage.name}#{again + 1}" if again else stage.name] = _parts(stage)
    return stages


def _parts(stage: StageRun) -> dict[str, Any]:
    return {"epochs": stage.stop_epoch - stage.start_epoch, **take_apart(keyed(stage.trajectory.dynamics))}
