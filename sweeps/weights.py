"""The weights that a home keeps of an arm, and a network with them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meanflow_core.config import Checkpoint, Weights
from meanflow_core.words import listed
from results.layout import Home, TrajectoryDir
from studies.arms import Arm, StageRun
from studies.errors import StudyError

if TYPE_CHECKING:
    import torch

    from meanflow_core.data.base import DataSet
    from meanflow_core.samplers import Solver


@dataclass(frozen=True)
class Kept:
    """Weights of an arm after a step: EMA weights alone (a snapshot), or a full state, which has the others too.

    Of a step at which two stages meet, ``stage`` is the one that ends there.
    """

    home: Home
    arm: Arm
    stage: StageRun
    step: int
    full: bool

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.stage.trajectory.key, self.step)

    @property
    def epoch(self) -> float:
        """Epochs from the root of the arm."""
        begun, stage = self.step - self.stage.start_step, self.stage
        return stage.start_epoch + begun * (stage.stop_epoch - stage.start_epoch) / (stage.stop_step - stage.start_step)


def kept_weights(home: Home, arm: Arm, weights: Weights = "ema") -> list[Kept]:
    """Every step of an arm of which the weights are there, in order."""
    found: dict[int, Kept] = {}
    for stage in arm.stages:
        folder = home.trajectory(stage.trajectory.key)
        full, ema = _steps(folder.checkpoints), _steps(folder.snapshots)
        whole = stage.trajectory.dynamics.trainer is not None  # whatever it saves has all weights that there are
        for step in full if weights == "online" and not whole else full | ema:
            if stage.start_step <= step <= stage.stop_step:
                found.setdefault(step, Kept(home, arm, stage, step, step in full))
    return [found[step] for step in sorted(found)]


def _steps(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.glob("[0-9]*")}


def kept_at(home: Home, arm: Arm, epoch: float | None, weights: Weights = "ema") -> Kept:
    """The weights at an epoch, by default the latest. Raises: StudyError that lists what there is."""
    there = kept_weights(home, arm, weights)
    name = f"{arm.study}/{arm.panel}/{arm.name}, seed {arm.seed}"
    if not there:
        raise StudyError(
            f"no {weights} weights of {name} are in {home.root}: run it first, or, of a bundle, `--weights`"
        )
    if epoch is None:
        return there[-1]
    for one in there:
        if abs(one.epoch - epoch) < 1e-9:
            return one
    epochs = listed(f"{one.epoch:g}" for one in there)
    raise StudyError(f"no {weights} weights of {name} are kept at epoch {epoch:g} (available: {epochs})")


def load_weights(
    network: torch.nn.Module, folder: TrajectoryDir, at: Checkpoint, part: Weights, device: torch.device | str
) -> None:
    """Put the weights of a checkpoint, or of a snapshot where EMA weights are asked for, into a network.

    Raises: CheckpointError where they are missing, damaged, another's, or do not fit.
    """
    from meanflow_core.checkpoint import CheckpointError, load_checkpoint
    from meanflow_core.state import load_state

    place = folder.snapshot(at.step)
    if part != "ema" or not place.is_dir():
        place = folder.checkpoint(at.step)
    expect = {"trajectory": at.trajectory, "step": at.step}
    state = load_checkpoint(place, [part], device, expect).parts[part]
    try:
        load_state(network, state)
    except ValueError as error:
        raise CheckpointError(f"{place} does not fit the network: {error}") from error


def load_network(kept: Kept, weights: Weights = "ema", device: str = "cpu") -> torch.nn.Module:
    """The network of an arm with the weights that are kept, ready to be sampled from.

    Raises: CheckpointError; DataError where its data, which give its shape, are not here; StudyError where it is inside
    a trainer of the user's own.
    """
    from meanflow_core.trainer import build_network

    dynamics = kept.stage.trajectory.dynamics
    if dynamics.trainer is not None:
        raise StudyError(
            f"the network is inside the trainer {dynamics.trainer.name}, and only that opens its checkpoints"
        )
    network = build_network(dynamics, dynamics.data.build(), kept.arm.seed, device).eval()
    folder = kept.home.trajectory(kept.checkpoint.trajectory)
    load_weights(network, folder, kept.checkpoint, weights, device)
    return network


def sample_arm(
    kept: Kept,
    n: int,
    nfe: int = 1,
    solver: Solver = "jump",
    seed: int = 0,
    weights: Weights = "ema",
    device: str = "cpu",
) -> torch.Tensor:
    """n samples x (n, *shape) float32 on the CPU. Latents and labels depend on ``seed`` and n alone, so they are the
    same for every arm of the same data, as they are when arms are measured.

    Raises: EvaluationError if some are not finite; what `load_network` raises.
    """
    from meanflow_core.evaluation.context import EvaluationContext

    data = kept.stage.trajectory.dynamics.data.build()
    if kept.stage.trajectory.dynamics.trainer is not None:
        return _program_samples(kept, n, nfe, solver, seed, weights, data, device)
    return EvaluationContext(load_network(kept, weights, device), data, device).drawn(n, nfe, solver, seed)


def _program_samples(
    kept: Kept, n: int, nfe: int, solver: Solver, seed: int, weights: Weights, data: DataSet, device: str
) -> torch.Tensor:
    """The same by the sampler of a trainer of your own. Raises: StudyError in its last words where it fails."""
    from sweeps.program.process import ProgramError
    from sweeps.program.sampling import ProgramContext

    dynamics = kept.stage.trajectory.dynamics
    with tempfile.NamedTemporaryFile(prefix="study-sampler-", suffix=".log") as log:
        try:
            context = ProgramContext(
                kept.home, kept.checkpoint, dynamics, kept.arm.seed, weights, data, Path(log.name), device
            )
            return context.drawn(n, nfe, solver, seed)
        except ProgramError as error:
            raise StudyError(str(error)) from None
