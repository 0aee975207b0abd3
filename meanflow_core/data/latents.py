"""Pre-encoded VAE latents on disk, memory-mapped and resampled at every step.

A data set is a folder ``$STUDY_DATA/<dataset>/`` with

    moments.npy   float16 (N, F, 2·channels, side, side): the posterior's mean, then its std or log variance,
                  of the image (flip 0) and, where F = 2, of its mirror image. Only flip 0 is read: MeanFlow
                  trains on latents without flips.
    labels.npy    integers (N,), 0 … classes − 1; not needed where classes = 1
    meta.json     {"format": 1, "moments": "mean+std" | "mean+logvar", "scale": 0.18215, ...} and what else
                  tells where the moments come from (sha256 of the VAE, image transform, sha256 of the arrays)
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meanflow_core.components import LatentsParams
from meanflow_core.data.base import REFERENCE_SEED, DataError, DataSet, Passes
from meanflow_core.registry import BuildContext
from meanflow_core.seeding import generator

DATA_ROOT = "STUDY_DATA"
ENCODINGS = ("mean+std", "mean+logvar")


def folder_of(dataset: str) -> Path | None:
    """``$STUDY_DATA/<dataset>``; None where STUDY_DATA is not set."""
    root = os.environ.get(DATA_ROOT)
    return Path(root) / dataset if root else None


class Latents(DataSet):
    """x = (mean + std·ξ)·scale of shape (channels, side, side), with fresh ξ ~ N(0, I) at every step.

    Rows are sampled without replacement; evaluation labels are uniform over the classes. The files are opened
    by the first batch, so building, planning and pickling a data set cost nothing.
    """

    def __init__(self, params: LatentsParams) -> None:
        self.params = params
        self.shape = (params.channels, params.side, params.side)
        self.num_classes = params.classes if params.classes > 1 else None

    def batch(self, seed: int, step: int, batch_size: int, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
        """See the base class. ξ is drawn on ``device``, so that a GPU need not wait for a CPU's draws."""
        rows = self._passes.indices(seed, step, batch_size)
        xi_rng = generator(seed, "latents", step, device)
        y = None if self._labels is None else self._labels[rows].to(device)
        return self._sample(rows, xi_rng, device), y

    def labels(self, n: int, rng: torch.Generator) -> Tensor | None:
        return torch.randint(self.num_classes, (n,), generator=rng) if self.num_classes else None

    def reference_samples(self, n: int) -> Tensor:
        rows = self._passes.indices(REFERENCE_SEED, 0, min(n, self._passes.n))
        return self._sample(rows, generator(REFERENCE_SEED, "reference", 0), "cpu")

    def preflight(self) -> list[str]:
        folder = folder_of(self.params.dataset)
        if folder is None:
            return [f"{DATA_ROOT} is not set: it names the folder that holds {self.params.dataset}/"]
        missing = [f"{folder / name}: {what}" for name, what in self._files() if not (folder / name).is_file()]
        return [f"missing {line}" for line in missing] or self._problems(folder)

    def _files(self) -> list[tuple[str, str]]:
        p = self.params
        files = [
            (
                "moments.npy",
                f"float16 (N, 1 or 2 flips, {2 * p.channels}, {p.side}, {p.side}), posterior moments",
            ),
            (
                "meta.json",
                f'{{"format": 1, "moments": "{ENCODINGS[0]}" or "{ENCODINGS[1]}", "scale": {p.scale}}}',
            ),
        ]
        if self.num_classes:
            files.append(("labels.npy", f"integers (N,) from 0 to {p.classes - 1}"))
        return files

    def _problems(self, folder: Path) -> list[str]:
        p, problems = self.params, []
        text = (folder / "meta.json").read_bytes()
        found = hashlib.sha256(text).hexdigest()
        if p.fingerprint not in (None, found):
            problems.append(f"{folder / 'meta.json'} has sha256 {found}, the study asks for {p.fingerprint}")
        meta = json.loads(text)
        if meta.get("moments") not in ENCODINGS:
            problems.append(f"{folder / 'meta.json'}: 'moments' must be one of {', '.join(ENCODINGS)}")
        if meta.get("scale", p.scale) != p.scale:
            problems.append(f"{folder / 'meta.json'}: scale {meta['scale']} where the study has {p.scale}")
        moments = np.load(folder / "moments.npy", mmap_mode="r")
        item = (2 * p.channels, p.side, p.side)
        if moments.ndim != 5 or moments.shape[1] not in (1, 2) or moments.shape[2:] != item:
            problems.append(f"{folder / 'moments.npy'} has shape {moments.shape}, not (N, 1 or 2, *{item})")
        if moments.dtype != np.float16:
            problems.append(f"{folder / 'moments.npy'} is {moments.dtype}, not float16")
        if self.num_classes:
            problems += self._label_problems(folder, len(moments))
        return problems

    def _label_problems(self, folder: Path, n: int) -> list[str]:
        path, labels = folder / "labels.npy", np.load(folder / "labels.npy")
        if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
            return [f"{path} is {labels.dtype} {labels.shape}, not integers ({n},)"]
        if n and not 0 <= labels.min() <= labels.max() < self.params.classes:
            return [f"{path} has labels outside 0 … {self.params.classes - 1}"]
        return []

    @cached_property
    def _folder(self) -> Path:
        """The folder, checked. Raises: DataError that lists what is missing."""
        folder, problems = folder_of(self.params.dataset), self.preflight()
        if problems or folder is None:
            raise DataError(f"latents '{self.params.dataset}' are not ready:\n  " + "\n  ".join(problems))
        return folder

    @cached_property
    def _moments(self) -> np.ndarray[Any, np.dtype[np.float16]]:
        moments: np.ndarray[Any, np.dtype[np.float16]] = np.load(self._folder / "moments.npy", mmap_mode="r")
        return moments

    @cached_property
    def _labels(self) -> Tensor | None:
        if self.num_classes is None:
            return None
        return torch.from_numpy(np.load(self._folder / "labels.npy").astype(np.int64))

    @cached_property
    def _is_logvar(self) -> bool:
        return bool(json.loads((self._folder / "meta.json").read_text())["moments"] == "mean+logvar")

    @cached_property
    def _passes(self) -> Passes:
        return Passes(len(self._moments))

    def _sample(self, rows: Tensor, rng: torch.Generator, device: torch.device | str) -> Tensor:
        moments = torch.from_numpy(self._moments[rows.numpy(), 0]).to(device).float()
        mean, spread = moments.chunk(2, dim=1)
        std = (spread / 2).exp() if self._is_logvar else spread
        xi = torch.randn(mean.shape, generator=rng, device=device)
        return (mean + std * xi) * self.params.scale


def build(params: LatentsParams, ctx: BuildContext) -> Latents:
    return Latents(params)
