"""Stateless randomness: every random draw of a study comes from a generator named by (seed, purpose, index).

Nothing carries a generator's state from one step to the next, so resuming or branching at step i needs no
more than the number i, and two arms that ask for the same (seed, purpose, i) see the same noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SEED_BITS = 63


def derived_seed(seed: int, purpose: str, index: int) -> int:
    """The first 63 bits of sha256("seed/purpose/index") as a non-negative integer. Pure."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)


def generator(seed: int, purpose: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on ``device``, seeded by :func:`derived_seed`. Pure: equal arguments, equal draws.

    Draws agree between machines, but not between a CPU and a GPU. torch's CPU generator (a Mersenne Twister)
    keeps the low 32 bits of its seed, so any two names collide with probability 2⁻³²: over a long run a few
    pairs of steps share their noise by chance, which biases nothing.
    """
    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose, index))


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """torch's global random numbers, of the CPU and of ``device``, follow from a seed inside, and go on as if nothing
    had been afterwards."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
