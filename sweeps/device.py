"""Which device a job runs on, and what it is called."""

from __future__ import annotations

import torch


def choose_device(kind: str) -> torch.device:
    """``auto``: a GPU if there is one, else the CPU; otherwise the kind named."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(auto if kind == "auto" else kind)


def missing_device(kind: str) -> str | None:
    """What is missing to run on a device; None if it is there."""
    return "torch finds no CUDA GPU here" if kind == "cuda" and not torch.cuda.is_available() else None


def device_name(device: torch.device) -> str:
    """What the device is called in records, e.g. ``cpu`` or ``NVIDIA H100``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
