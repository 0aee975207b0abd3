"""Decoded latents as images, and FID in Inception's feature space: decode, round to 8 bits, 2048 features, published
statistics.

None of its assets is shipped or downloaded: a person puts them where :func:`missing_assets` says. Compared
with published numbers the pipeline is ADM's: fp32 decoding, pixels rounded from 127.5·x + 128 and clipped to
0 … 255.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meanflow_core.components import LatentsParams
from meanflow_core.data.latentfiles import DATA_ROOT, FEATURES, REFERENCE, folder_of, read_reference, reference_problems
from meanflow_core.registry import Spec

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
DECODE_BATCH = 32


def weights_path() -> Path:
    """Where torch.hub would keep the weights: $TORCH_HOME/hub/checkpoints/."""
    return Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE


def missing_assets(spec: Spec) -> list[str]:
    """What is missing to measure FID on data ``spec``; empty if everything is there."""
    if not isinstance(spec.params, LatentsParams):
        return []  # what it is not for, its metrics say
    missing = []
    if not weights_path().is_file():
        missing.append(f"missing Inception weights {weights_path()} ($TORCH_HOME/hub/checkpoints/{INCEPTION_FILE})")
    folder = folder_of(spec.params.dataset)
    if folder is not None:
        missing += reference_problems(folder)
        if not (path := folder / REFERENCE).exists():
            missing.append(f"missing reference statistics {path} (mu and sigma of {FEATURES} features)")
    return missing + missing_decoder(spec.params)


def missing_decoder(params: LatentsParams) -> list[str]:
    """What is missing to decode latents; empty if everything is there."""
    folder = folder_of(params.dataset)
    if folder is None:
        return [f"{DATA_ROOT} is not set: it names the folder that holds {params.dataset}/"]
    missing = []
    if not (folder / "vae").is_dir():
        missing.append(f"missing VAE {folder / 'vae'} (a diffusers AutoencoderKL folder, sd-vae-ft-mse)")
    if importlib.util.find_spec("diffusers") is None:
        missing.append("missing package diffusers, which decodes the latents")
    return missing


def read_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """`meanflow_core.data.latentfiles.read_reference` as tensors."""
    mu, sigma = read_reference(path)
    return torch.from_numpy(mu), torch.from_numpy(sigma)


def reference_moments(params: LatentsParams) -> tuple[Tensor, Tensor]:
    """The data's published statistics. Call only when :func:`missing_assets` is empty."""
    return read_statistics(_folder(params) / REFERENCE)


def to_bytes(images: Tensor) -> Tensor:
    """uint8 images from floats in [−1, 1]: 127.5·x + 128 clipped and cut, i.e. 127.5·(x + 1) rounded."""
    return (127.5 * images + 128).clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def features(latents: Tensor, params: LatentsParams, device: torch.device | str) -> Tensor:
    """Inception features (N, 2048) float32, on the CPU, of scaled latents (N, channels, side, side)."""
    from meanflow_core.evaluation.fidelity import inception_extractor

    extractor = inception_extractor(weights_path(), device)
    parts = torch.split(latents, DECODE_BATCH)
    return torch.cat([extractor(decode(part, params, device).to(device))[0].cpu() for part in parts])


@torch.no_grad()
def decode(latents: Tensor, params: LatentsParams, device: torch.device | str) -> Tensor:
    """Images (N, 3, H, W) uint8, on the CPU, of scaled latents. Call only when :func:`missing_decoder` is empty."""
    decoder = _decoder(_folder(params) / "vae", str(device))
    parts = torch.split(latents, DECODE_BATCH)
    return torch.cat([to_bytes(decoder.decode(part.to(device) / params.scale).sample).cpu() for part in parts])


@cache
def _decoder(folder: Path, device: str) -> Any:
    from diffusers import AutoencoderKL  # type: ignore[import-not-found, unused-ignore]  # optional

    return AutoencoderKL.from_pretrained(folder, local_files_only=True).to(device).eval()


def _folder(params: LatentsParams) -> Path:
    folder = folder_of(params.dataset)
    assert folder is not None  # missing_assets has said so
    return folder
