"""The index of a folder of reports: what is there, with captions and links, and what is missing. As Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reports.captions import paper_words
from reports.catalogue import Element, Kind
from reports.claimwords import MEANINGLESS
from reports.frames import Run
from reports.stored import notes_on
from reports.text import escaped, markdown_table
from studies.schema import ResolvedStudy

PaperPart = tuple[Kind, int, str]
"""A figure or table of the paper, and the study that makes it."""


@dataclass(frozen=True)
class Piece:
    """Something that was written: its files, what is to be said of it, what it lacks, and what of the paper it is."""

    what: str
    files: Sequence[Path]
    said: Sequence[str] = ()
    missing: Sequence[str] = ()
    paper: Sequence[PaperPart] = ()


@dataclass(frozen=True)
class Section:
    """All that was written of one study at one scale."""

    study: ResolvedStudy
    run: Run
    variant: str | None
    pieces: Sequence[Piece] = field(default_factory=list)

    @property
    def title(self) -> str:
        variant = f", variant {self.variant}" if self.variant else ""
        return f"{self.study.study} at scale {self.study.scale}{variant}"

    @property
    def paper(self) -> set[PaperPart]:
        """What of the paper was made; of a variant, nothing."""
        return set() if self.variant else {part for piece in self.pieces for part in piece.paper}


@dataclass(frozen=True)
class Overview:
    """What the index names; paths become links relative to ``out``."""

    home: str
    sections: Sequence[Section]
    implications: Sequence[Piece]
    elements: Sequence[Element]
    missing: Sequence[str]
    out: Path


def overview(whole: Overview) -> str:
    """The index: the paper's figures and tables, implications, every study at every scale, and what is missing."""
    parts = [
        f"# What is stored in {escaped(whole.home)}",
        "Made by `study report --all`. Every number and every verdict speaks of its own scale.",
        "## Figures and tables of the paper\n\n" + "\n".join(markdown_table([*_of_the_paper(whole)])),
    ]
    if whole.implications:
        parts += ["## What the paper concludes", *(_piece(piece, whole.out) for piece in whole.implications)]
    for section in whole.sections:
        parts += _section(section, whole.out)
    listed = "\n".join(f"- {_line(phrase)}" for phrase in whole.missing) or "Nothing."
    return "\n\n".join([*parts, f"## Missing\n\n{listed}"]) + "\n"


def _of_the_paper(whole: Overview) -> Iterator[tuple[str, ...]]:
    """One row a figure or table: the study that makes it, and the scales at which it is here."""
    yield "paper", "study", "here at scale"
    for element in whole.elements:
        here = [section.study.scale for section in whole.sections if element[:3] in section.paper]
        yield element.name, element.study, ", ".join(here) or "missing"


def _section(section: Section, out: Path) -> Iterator[str]:
    study, run = section.study, section.run
    yield f"## {escaped(section.title)}"
    paper = paper_words(study)
    heading = (study.heading or study.title).rstrip(".")
    said = heading + (f" ({paper})" if paper else "") + f". {study.scale_text.rstrip('.')}. "
    yield _line(f"{said}Run {run.run}, configuration {run.config_hash[:8]}.")
    if study.meaningless:
        yield f"**MEANINGLESS: {MEANINGLESS}.**"
    for note in notes_on(study):
        yield f"**Note:** {_line(note)}."
    for piece in section.pieces:
        yield _piece(piece, out)


def _piece(piece: Piece, out: Path) -> str:
    """A heading with links to the files, the pictures among them, and what is to be said."""
    links = ", ".join(f"[{path.name}]({_link(path, out)})" for path in piece.files)
    pictures = "\n\n".join(f"![{path.stem}]({_link(path, out)})" for path in piece.files if path.suffix == ".png")
    said = "\n".join(f"- {_line(words)}" for words in piece.said)
    return "\n\n".join(filter(None, (f"### {piece.what}", links, pictures, said)))


def _link(path: Path, out: Path) -> str:
    return path.relative_to(out).as_posix()


def _line(words: str) -> str:
    """One line of Markdown, commands between backticks left as they are."""
    parts = " ".join(words.split()).split("`")
    return "`".join(part if i % 2 else escaped(part) for i, part in enumerate(parts))
