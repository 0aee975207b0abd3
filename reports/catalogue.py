"""Which built-in study makes which figure and table of the paper."""

from __future__ import annotations

from typing import Literal, NamedTuple

from studies.loader import builtin_names, load_source

Kind = Literal["figures", "tables"]
KINDS: tuple[Kind, ...] = ("figures", "tables")


class Element(NamedTuple):
    """A figure or table of the paper, the built-in study that makes it, the scale where only one does, and all that
    the study has."""

    kind: Kind
    number: int
    study: str
    scale: str | None
    scales: tuple[str, ...]

    @property
    def name(self) -> str:
        """``Figure 2``."""
        return f"{self.kind[:-1].capitalize()} {self.number}"

    def commands(self, scale: str | None = None) -> str:
        """What makes it, at the only scale that does, or else at the one given if the study has that."""
        chosen = self.scale or (scale if scale in self.scales else None)
        at = f" --scale {chosen}" if chosen else ""
        return f"`study run {self.study}{at}`, then `study report --{self.kind[:-1]} {self.number}{at}`"


def paper_elements() -> list[Element]:
    """All that the built-in studies make of the paper, each once, in the paper's order. Raises: StudyError."""
    found: dict[tuple[Kind, int], Element] = {}
    for name in builtin_names():
        source = load_source(name)
        for kind in KINDS:
            for n in source.paper(kind):
                only = source.only_scale_with(kind, n)
                found.setdefault((kind, n), Element(kind, n, name, only, tuple(source.scales)))
    return [found[key] for key in sorted(found)]
