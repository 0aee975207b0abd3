"""Which device a job runs on, and what it is called."""

from __future__ import annotations

import torch


def choose_device(kind: str) -> torch.device:
    """``auto``: a GPU if there is one, else the CPU; otherwise the kind named."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(auto if kind == "auto" else kind)


def missing_device(kind: str) -> list[str]:
    """What is missing to run on a device, in words; empty if it is there."""
    if kind != "cuda" or torch.cuda.is_available():
        return []
    return ["no CUDA GPU is there that torch can use; choose another --scale, or -o device=auto --as NAME"]


def device_name(device: torch.device) -> str:
    """What the device is called in records, e.g. ``cpu`` or ``NVIDIA H100``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
