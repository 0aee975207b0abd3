"""Tests of reports save figures quickly, but for those that ask for ``real_files``: at least one of every kind."""

from __future__ import annotations

import pytest

from .quick import save_quickly


@pytest.fixture
def real_files() -> None:
    """Figures are saved as they are for users."""


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_files" not in request.fixturenames:
        save_quickly(monkeypatch, drawn=())
