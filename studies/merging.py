"""Laying one declaration over another. Torch-free."""

from __future__ import annotations

import copy
from typing import Any


def merge(base: Any, over: Any) -> Any:
    """``over`` laid over ``base``: mappings merge key by key, all else is replaced.

    A component named differently replaces the old one whole, since its parameters are not the other's.
    """
    if not isinstance(base, dict) or not isinstance(over, dict):
        return copy.deepcopy(over)
    if "name" in base and "name" in over and base["name"] != over["name"]:
        return copy.deepcopy(over)
    merged = {k: copy.deepcopy(v) for k, v in base.items()}
    for key, value in over.items():
        merged[key] = merge(merged[key], value) if key in merged else copy.deepcopy(value)
    return merged
