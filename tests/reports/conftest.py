"""Tests of reports save figures quickly, but for those that ask for ``real_files``, or for a
``real_png``: at least one of every kind."""

from __future__ import annotations

import pytest

from .quick import save_quickly


@pytest.fixture
def real_files() -> None:
    """Figures are saved as they are for users."""


@pytest.fixture
def real_png() -> None:
    """The PNG is drawn, with few dots; PDF and SVG are not, which take most of the time."""


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_files" not in request.fixturenames:
        save_quickly(monkeypatch, drawn=("png",) if "real_png" in request.fixturenames else ())
