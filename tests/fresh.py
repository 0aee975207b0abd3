"""What a test, or a command that is called in a test's process, may leave behind in it, and how that is undone."""

from __future__ import annotations

import linecache
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meanflow_core import own, registry
from meanflow_core.data import latentfiles, layout
from meanflow_core.evaluation import reference, truth
from sweeps.worker import process_restored

CACHES = (
    reference.data_of,
    reference.reference_features,
    reference.reference_statistics,
    truth.exact_points,
    layout._problems_once,
    latentfiles._scan_once,
    latentfiles._reference_problems,
)
OWN = "meanflow_study_own_"  # begins the names of users' modules
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def forget_components() -> None:
    """Leave no component, source or module of anybody's files, as in a process that has just begun."""
    for kind, name in [key for key in registry._REGISTRY if "@" in key[1] or "." in key[1]]:
        registry.unregister(kind, name)
    for source in own._SOURCES.values():
        linecache.cache.pop(source.file, None)
    own._SOURCES.clear()
    if OWN in "\n".join(sys.modules):  # seldom, and looking at thousands one by one takes longer than most tests
        for module in [name for name in sys.modules if name.startswith(OWN)]:
            del sys.modules[module]


@contextmanager
def fresh_process() -> Iterator[None]:
    """Inside, the process is as if it had just begun; afterwards it is as before: registries, users' modules, threads,
    precision, generators of random numbers, environment, working directory, signals, logging and warnings. (Data sets
    are cached by what they are and where they lie; `forget_data` is for those that may have changed.)"""
    folder, path, filters = Path.cwd(), list(sys.path), list(warnings.filters)
    components, sources = dict(registry._REGISTRY), dict(own._SOURCES)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    root = logging.getLogger()
    loggers = (root.level, list(root.handlers))
    forget_components()
    with process_restored():
        try:
            yield
        finally:
            forget_components()
            registry._REGISTRY.clear()
            registry._REGISTRY.update(components)
            own._SOURCES.update(sources)
            for number, handler in handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
            root.setLevel(loggers[0])
            root.handlers[:] = loggers[1]
            sys.path[:], warnings.filters[:] = path, filters  # type: ignore[index]
            os.chdir(folder)


def forget_data() -> None:
    """Of data sets that were read, keep nothing."""
    for cache in CACHES:
        cache.cache_clear()
