"""The files through which a trainer of your own is told what to do, and says what it has done. Torch-free.

docs/worker-protocol.md describes them; their JSON schemas in docs/schemas are made of these models.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, NonNegativeInt, PositiveInt

Steps = tuple[NonNegativeInt, ...]
CHECKPOINT = re.compile(r"\d{9}")  # what a finished checkpoint folder is called: its step


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[Literal[1], Field(description="Of this protocol; refuse another.")] = 1


def _said(text: str, **more: Any) -> Any:
    return Field(description=text, **more)


class SegmentFile(_File):
    """What a trainer is to do: train the steps (start_step, stop_step] of one trajectory."""

    trajectory: str = _said("Key of the trajectory: a name for what is trained here.")
    seed: int = _said("All randomness is a function of it and of the step.")
    dynamics: dict[str, JsonValue] = _said("What the study says of a training step, every field resolved.")
    options: dict[str, JsonValue] = _said("The trainer's own options, as the study gives them.")
    start_step: NonNegativeInt = _said("The step of the state to start from; 0 is the initialisation.")
    stop_step: NonNegativeInt = _said("The step to end at. Steps count from the root of the arm.")
    horizon_steps: PositiveInt | None = _said("T, the length of the whole arm, where something says that it uses it.")
    resume_from: str | None = _said("Folder with the state at start_step, as it was saved; null for an initialisation.")
    branch: bool = _said("resume_from belongs to the parent trajectory: these dynamics begin here.")
    save_steps: Steps = _said("Save a checkpoint at each of these, also at start_step if it is among them.")
    checkpoint_every_steps: PositiveInt | None = _said("Save at its multiples too, to resume from; null: no need.")
    log_every_steps: PositiveInt = _said("Write a line of metrics at its multiples.")
    report: dict[str, Steps] = _said("Numbers that the study wants, by name, and the steps at which.")
    checkpoints: str = _said("Folder for checkpoints. Write each aside, then rename it to its step in nine digits.")
    metrics: str = _said("File to append metrics to, one JSON object a line.")
    device: Literal["auto", "cpu", "cuda"] = _said("Where to train.")
    threads: PositiveInt = _said("Threads a process may use on a CPU.")


class MetricsLine(BaseModel):
    """A line of the metrics file: numbers of one step. One step may have several lines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: NonNegativeInt = _said("After how many steps from the root of the arm.")
    values: dict[str, FiniteFloat] = _said("Numbers by name.")


class RequestFile(_File):
    """What a sampler is to do: draw samples from one checkpoint."""

    checkpoint: str = _said("Folder with the state, as the trainer saved it. It is shared: write nothing there.")
    trajectory: str = _said("Key of the trajectory that it belongs to.")
    step: NonNegativeInt = _said("Its step from the root of the arm.")
    seed: int = _said("The seed of the training.")
    dynamics: dict[str, JsonValue] = _said("The dynamics that it was trained with.")
    options: dict[str, JsonValue] = _said("The trainer's own options.")
    weights: Literal["ema", "online"] = _said("Which weights to use.")
    solver: Literal["jump", "euler"] = _said("jump: jumps of u; euler: Euler steps on v.")
    nfe: PositiveInt = _said("Function evaluations a sample.")
    samples: PositiveInt = _said("How many.")
    latents: str = _said(
        "An .npz with z (samples, *shape) float32, the noise at t = 1, and, of data with classes, y (samples,) int64."
    )
    output: str = _said("The .npz to write: x (samples, *shape), floating-point, made of z and y row by row.")
    device: Literal["auto", "cpu", "cuda"] = _said("Where to sample.")
    threads: PositiveInt = _said("Threads a process may use on a CPU.")


FILES: dict[str, type[BaseModel]] = {"segment": SegmentFile, "metrics-line": MetricsLine, "request": RequestFile}


def checkpoint_name(step: int) -> str:
    return f"{step:09d}"


def write_file(path: Path, content: BaseModel) -> None:
    path.write_text(content.model_dump_json(indent=1), encoding="utf-8")
