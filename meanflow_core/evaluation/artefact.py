"""What a measurement may leave besides its number."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Artefact = np.ndarray[Any, np.dtype[np.uint8]]
"""Pictures (N, H, W, C) of 8 bits."""


class Kept(NamedTuple):
    """The value of a protocol, and the artefact that is to be kept with it."""

    value: float
    artefact: Artefact
