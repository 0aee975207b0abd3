"""What became of a source when it was converted: what was left out of it, what was changed in it, what looks wrong.
Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from meanflow_core.arrays import Array
from meanflow_core.words import counted

COUNTED = 2**20  # bytes at a time: bincount makes each a number of 8 bytes
SHOWN = 3  # names of each kind
NOISE_RATIO = 10.0  # values this many times wider, or 50 times narrower, than the noise of training are doubted
NARROW = 0.02

Group = Literal["left out", "changed", "warning"]


def shown(name: str | os.PathLike[str]) -> str:
    """A file's name as text: bytes that are not UTF-8, and control characters, as escapes (``caf\\xe9``)."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass
class Tally:
    """How many there are of one kind, ``one`` or ``many`` in words, and the names of the first."""

    one: str
    many: str
    n: int = 0
    first: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = counted(self.n, self.one, self.many)
        more = ", …" if self.n > len(self.first) else ""
        return f"{said}: {', '.join(self.first)}{more}" if self.first else said


@dataclass
class Values:
    """Extent and moments of all values that were read."""

    n: int = 0
    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    squares: float = 0.0
    whole: bool = True
    """Whether every value is an integer."""

    def take(self, batch: Array) -> None:
        self.n += batch.size
        self.low, self.high = min(self.low, float(batch.min())), max(self.high, float(batch.max()))
        if batch.dtype == np.uint8:
            parts = np.array_split(batch.reshape(-1), 1 + batch.size // COUNTED)
            levels = sum(np.bincount(part, minlength=256) for part in parts)
            self.total += float(levels @ np.arange(256))
            self.squares += float(levels @ np.arange(256) ** 2)
            return
        self.whole = self.whole and bool((batch == np.rint(batch)).all())
        self.total += float(batch.sum(dtype=np.float64))
        self.squares += float(np.square(batch, dtype=np.float64).sum())

    @property
    def mean(self) -> float:
        return self.total / self.n

    @property
    def std(self) -> float:
        return float(np.sqrt(max(0.0, self.squares / self.n - self.mean**2)))


class Account:
    """Filled while a source is read. What is ``left out`` and every ``warning`` makes a strict command refuse."""

    def __init__(self) -> None:
        self.values = Values()
        self._tallies: dict[tuple[Group, str], Tally] = {}

    def add(self, group: Group, one: str, many: str, name: str | os.PathLike[str], n: int = 1) -> None:
        """Count ``n`` more of a kind, found in the file ``name``."""
        tally = self._tallies.setdefault((group, one), Tally(one, many))
        tally.n += n
        if len(tally.first) < SHOWN:
            tally.first.append(shown(name))

    def warn(self, said: str) -> None:
        self._tallies.setdefault(("warning", said), Tally(said, said))

    def of(self, group: Group) -> list[Tally]:
        return [tally for (its, _), tally in self._tallies.items() if its == group]

    def said(self, group: Group) -> list[str]:
        """A line each."""
        return [str(tally) if tally.n else tally.one for tally in self.of(group)]

    def doubts(self) -> list[str]:
        """Why a strict command refuses, a line each."""
        return [f"left out: {line}" for line in self.said("left out")] + self.said("warning")

    def record(self) -> dict[str, Any]:
        """For JSON, when all was read."""
        left_out, changed = (
            [{"what": tally.many, "n": tally.n, "first": tally.first} for tally in self.of(group)]
            for group in ("left out", "changed")
        )
        return {
            "left_out": left_out,
            "changed": changed,
            "warnings": self.said("warning"),
            "values": {name: getattr(self.values, name) for name in ("low", "high", "mean", "std")},
        }

    def measured(self, batches: Iterator[Array], images: bool) -> Iterator[Array]:
        """The batches; after the last, what their values make one doubt is among the warnings."""
        samples = 0
        for batch in batches:
            samples += len(batch)
            if batch.size and (images or np.isfinite(batch).all()):  # what is not finite is refused by who writes it
                self.values.take(batch)
            yield batch
        if samples == 1:
            self.warn("there is one sample only")
        if self.values.n:
            self._doubt(self.values, images)

    def _doubt(self, of: Values, images: bool) -> None:
        if of.low == of.high:
            self.warn(f"every value is {of.low:g}")
        elif images and of.high <= 1:
            self.warn("the values are 0 and 1 of 255 levels, so the images are all but black: multiply by 255")
        elif not images and of.whole and of.low >= 0 and 1 < of.high <= 255:
            self.warn(
                f"the values are whole numbers from {of.low:g} to {of.high:g}, as of images of 8 bits, and are trained "
                "on as they are: give an array of uint8, which becomes −1 to 1"
            )
        elif not images and (of.std > NOISE_RATIO or of.std < NARROW):
            self.warn(
                f"the values have a standard deviation of {of.std:.3g} and are trained on as they are, beside noise "
                "of 1: scale them"
            )
