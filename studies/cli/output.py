"""Printing: rich for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str) -> None:
    """A line for whoever waits: it is seen at once, also through a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def console() -> Console:
    """For people. Not a terminal: no colours, and as wide as a table needs."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=120, no_color=True, emoji=False)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")


def hours(value: float | None) -> str:
    """Hours in the unit that reads best."""
    if value is None:
        return "unknown"
    if value < 1 / 60:
        return f"{value * 3600:.0f} s"
    if value < 2:
        return f"{value * 60:.0f} min"
    return f"{value:,.0f} h" if value < 100 else f"{value:,.0f} h ({value / 24:,.0f} days)"


def volume(size: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} bytes" if unit == "bytes" else f"{size:,.1f} {unit}"


def gib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f}"


def scientific(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.2e}" if value else "0"
