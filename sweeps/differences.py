"""In what two arms are configured differently, stage by stage."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from studies.arms import Arm, StageRun
from sweeps.compare import ABSENT, PRESENT, Difference, differences, take_apart


def arm_differences(a: Arm, b: Arm) -> list[Difference]:
    """The parts in which b's stages, taken in order, differ from a's: ``train.epochs``, ``train.fm_ratio``."""
    found = []
    for mine, theirs in zip_longest(a.stages, b.stages):
        name = (mine or theirs).name
        if mine is None or theirs is None:
            there, wanted = (ABSENT, PRESENT) if mine is None else (PRESENT, ABSENT)
            found.append(Difference(f"stage {name}", there, wanted))
            continue
        found += [
            Difference(f"{name}.{one.part}", one.there, one.wanted) for one in differences(_parts(mine), _parts(theirs))
        ]
    return found


def _parts(stage: StageRun) -> dict[str, Any]:
    own = {"name": stage.name, "epochs": stage.stop_epoch - stage.start_epoch}
    return own | take_apart(stage.trajectory.dynamics.dump())
