"""Samples from a checkpoint of a trainer of your own, drawn by its sampler and measured by us."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from meanflow_core.arrays import ArrayFileError, read_npz
from meanflow_core.components import Program
from meanflow_core.components.program import REQUEST
from meanflow_core.config import Checkpoint, Dynamics, Weights
from meanflow_core.data.base import DataSet
from meanflow_core.evaluation.context import Draw, EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError
from results.layout import Home
from sweeps.jobs import ShouldStop
from sweeps.program.opaque import state_of
from sweeps.program.process import ProgramError, running, words_of
from sweeps.program.protocol import RequestFile, write_file
from sweeps.program.training import place_of, program_of, told_dynamics

LOOK_S = 0.1


class Interrupted(Exception):
    """We were asked to stop while a sampler was at work."""


class ProgramContext(EvaluationContext):
    """A checkpoint under measurement of which only samples can be had. Labels are given wherever the data have them."""

    def __init__(
        self,
        home: Home,
        at: Checkpoint,
        dynamics: Dynamics,
        seed: int,
        weights: Weights,
        dataset: DataSet,
        log: Path,
        device: str = "auto",
        threads: int = 1,
        should_stop: ShouldStop = lambda: False,
    ) -> None:
        super().__init__(_no_network, dataset)
        self.conditional = dataset.num_classes is not None
        self.program: Program = program_of(dynamics)
        self.state = state_of(place_of(home, at), at._asdict()).resolve()
        self.at, self.dynamics, self.seed, self.weights = at, dynamics, seed, weights
        self.log, self.kind, self.threads, self.should_stop = log, device, threads, should_stop

    def predict(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None) -> NoReturn:
        """Raises: EvaluationError, always."""
        raise EvaluationError(f"trainer {self.program.name} gives samples, not its network: this cannot be measured")

    def _sample(self, draw: Draw) -> Tensor:
        with tempfile.TemporaryDirectory(prefix="study-samples-") as folder:
            work = Path(folder).resolve()
            z, y = self.latents(draw)
            arrays: dict[str, Any] = {"z": z.numpy()} | ({} if y is None else {"y": y.numpy()})
            np.savez(work / "latents.npz", **arrays)
            self._run(draw, work)
            x = _read(work / "samples.npz", (draw.samples, *self.dataset.shape), self.program.name)
        return self.finite(x, draw)

    def _run(self, draw: Draw, work: Path) -> None:
        program = self.program
        if program.sampler is None:
            raise EvaluationError(f"trainer {program.name} has no 'sampler' that draws samples")
        request = RequestFile(
            checkpoint=str(self.state),
            trajectory=self.at.trajectory,
            step=self.at.step,
            seed=self.seed,
            dynamics=told_dynamics(self.dynamics),
            options=program.options,
            weights=self.weights,
            solver=draw.solver,
            nfe=draw.nfe,
            samples=draw.samples,
            latents=str(work / "latents.npz"),
            output=str(work / "samples.npz"),
            device=self.kind,
            threads=self.threads,
        )
        write_file(work / "request.json", request)
        words = words_of(program.sampler, {REQUEST: str(work / "request.json")})
        with running(words, program, work, self.log, self.threads) as process:
            while process.status() is None:
                if self.should_stop():
                    raise Interrupted
                time.sleep(LOOK_S)
            if process.status() != 0:
                if self.should_stop():  # the signal that told us has reached it too
                    raise Interrupted
                raise process.failed(f"the sampler of {program.name}")


def _no_network(*_: object) -> NoReturn:
    raise EvaluationError("a trainer of the user's own gives samples, not its network")


def _read(path: Path, shape: tuple[int, ...], name: str) -> Tensor:
    """The samples that a sampler wrote. Raises: ProgramError naming what is wrong with them."""
    said = f"the sampler of {name} ended well, but"
    if not path.exists():
        raise ProgramError(f"{said} wrote no samples ('output' of its request)")
    try:
        held, _ = read_npz(path, ["x"])
    except ArrayFileError as error:
        raise ProgramError(f"{said} what it wrote is not an .npz of arrays: {error.reason}") from None
    if "x" not in held:
        raise ProgramError(f"{said} its .npz has no 'x'")
    x = held["x"]
    if x.shape != shape or not np.issubdtype(x.dtype, np.floating):
        raise ProgramError(f"{said} 'x' is {x.dtype} {x.shape}, where floating-point {shape} was asked for")
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
