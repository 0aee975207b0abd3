"""Shared by all tests."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from tests.fresh import fresh_process
from tests.homes import Command

# One example that is slow by chance, on a machine that is shared, is no failure.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")

# A shell starts what runs in its background with Ctrl-C ignored, and commands would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ALONE = ("slurm", "ray", "kill")  # markers of tests that are slow by their nature, and share a service or the cores


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares something that takes long to make runs in one process, one after another: a SLURM, a Ray, or what
    the tests of a module make once."""
    for item in items:
        alone = next((name for name in ALONE if item.get_closest_marker(name)), None)
        if alone:
            item.add_marker(pytest.mark.slow)
        if group := alone or _module_of_shared(item):
            item.add_marker(pytest.mark.xdist_group(group))


def _module_of_shared(item: pytest.Item) -> str | None:
    """The module of a test that uses a fixture which its module makes once."""
    fixtures = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
    shared = any(definition.scope == "module" for definitions in fixtures for definition in definitions)
    return item.path.stem if shared else None


@pytest.fixture(autouse=True)
def _one_thread_one_seed(request: pytest.FixtureRequest) -> Iterator[None]:
    """A process as new, with torch on one thread, since results are bitwise equal only for an equal number of threads;
    tests that draw from the global generator draw the same every time, in whatever order they run."""
    if request.node.get_closest_marker("ray"):
        request.getfixturevalue("ray_address")  # first, since what it sets in the environment outlives this test
    with fresh_process():
        torch.manual_seed(0)
        torch.set_num_threads(1)
        yield


@pytest.fixture(autouse=True)
def _no_command_outlives_its_test() -> Iterator[None]:
    yield
    Command.end_all()


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a memory file system with some options, or skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mount{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a tmpfs is not permitted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
