"""The network inside a trainer of your own."""

from __future__ import annotations

from typing import NoReturn

from meanflow_core.components import ProgramNetworkParams
from meanflow_core.registry import BuildContext, ComponentError


def build(params: ProgramNetworkParams, context: BuildContext) -> NoReturn:
    """Raises: ComponentError, always: only the program itself can make it."""
    raise ComponentError("the network is inside a trainer of the user's own: its sampler alone can evaluate it")
