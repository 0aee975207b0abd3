"""Pre-encoded VAE latents on disk (`meanflow_core.data.latentfiles`), memory-mapped and resampled at every step."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from meanflow_core.arrays import Array
from meanflow_core.components import LatentsParams
from meanflow_core.data import latentfiles
from meanflow_core.data.base import REFERENCE_SEED, DataError, DataSet, Passes
from meanflow_core.data.latentfiles import DATA_ROOT, ENCODINGS, LABELS, META, MOMENTS, folder_of
from meanflow_core.registry import BuildContext
from meanflow_core.seeding import generator


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
        missing = [f"{folder / name}: {what}" for name, what in self._files() if not (folder / name).exists()]
        return [f"missing {line}" for line in missing] or latentfiles.problems(folder, self.params)

    def _files(self) -> list[tuple[str, str]]:
        p = self.params
        files = [
            (
                MOMENTS,
                f"float16 (N, 1 or 2 flips, {2 * p.channels}, {p.side}, {p.side}), posterior moments",
            ),
            (
                META,
                f'{{"format": 1, "moments": "{ENCODINGS[0]}" or "{ENCODINGS[1]}", "scale": {p.scale}}}',
            ),
        ]
        if self.num_classes:
            files.append((LABELS, f"integers (N,) from 0 to {p.classes - 1}"))
        return files

    @cached_property
    def _folder(self) -> Path:
        """The folder, checked. Raises: DataError that lists what is missing."""
        folder, problems = folder_of(self.params.dataset), self.preflight()
        if problems or folder is None:
            raise DataError(f"latents '{self.params.dataset}' are not ready:\n  " + "\n  ".join(problems))
        return folder

    @cached_property
    def _moments(self) -> Array:
        return latentfiles.open_moments(self._folder, self.params)

    @cached_property
    def _labels(self) -> Tensor | None:
        if self.num_classes is None:
            return None
        return torch.from_numpy(latentfiles.open_labels(self._folder, len(self._moments), self.params.classes))

    @cached_property
    def _is_logvar(self) -> bool:
        return latentfiles.read_meta(self._folder).logvar

    @cached_property
    def _passes(self) -> Passes:
        return Passes(len(self._moments))

    def _sample(self, rows: Tensor, rng: torch.Generator, device: torch.device | str) -> Tensor:
        items = self._moments[rows.numpy(), 0]
        if found := latentfiles.item_problem(items, self._is_logvar, rows.numpy()):  # a large array was not read whole
            raise DataError(f"{self._folder / MOMENTS}: {found}")
        moments = torch.from_numpy(items).to(device).float()
        mean, spread = moments.chunk(2, dim=1)
        std = (spread / 2).exp() if self._is_logvar else spread
        xi = torch.randn(mean.shape, generator=rng, device=device)
        return (mean + std * xi) * self.params.scale


def build(params: LatentsParams, ctx: BuildContext) -> Latents:
    return Latents(params)
