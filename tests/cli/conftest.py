"""Homes made by the real command line, and figures that are saved in no time."""

from __future__ import annotations

import pytest

from tests.homes import copy, micro, micro_long, tiny
from tests.reports.quick import save_quickly

__all__ = ["copy", "micro", "micro_long", "tiny"]


@pytest.fixture(autouse=True)
def _quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    save_quickly(monkeypatch)
