"""A folder with all that a store can give: every study's figures, tables, claims and results, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import implicationtext, rankingtext, text
from reports.build import build_claims, build_figure, build_implications
from reports.catalogue import paper_elements
from reports.errors import NothingToReport, ReportError
from reports.overview import Overview, PaperPart, Piece, Section, overview
from reports.published import published
from reports.rankbuild import build_ranking
from reports.stored import Stored, load, scales_there
from reports.tablebuild import build_table
from studies.figure import Curves
from studies.implications import load_implications
from studies.loader import builtin_names
from studies.schema import ResolvedStudy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from results.layout import Home

Say = Callable[[str], None]
INDEX = "index.md"


@dataclass(frozen=True)
class EverythingReport:
    """The index, all files that it names, and what is missing, one sentence each."""

    index: Path
    files: list[Path]
    missing: list[str]


@dataclass(frozen=True)
class _Task:
    """One stored study at one scale, all of whose reports go into one folder."""

    engine: Engine
    home: Home
    stored: Stored
    asked: str
    out: Path
    record: bool

    @property
    def which(self) -> dict[str, Any]:
        """The study, scale and variant, as the builders take them."""
        run = self.stored.run
        return {"study": run.study, "scale": run.scale, "variant": run.variant, "asked": self.asked}

    @property
    def stem(self) -> str:
        run = self.stored.run
        return "_".join(filter(None, (run.study, run.scale, run.variant)))


def build_everything(
    engine: Engine,
    home: Home,
    *,
    scale: str | None = None,
    out: Path,
    say: Say = lambda words: None,
    record: bool = True,
) -> EverythingReport:
    """Write below ``out`` all that the store can give, of the latest run of every study and variant at each scale (or
    at one), and an index of it. What cannot be made is listed there as missing. ``say`` is told what is being done.

    Raises: NothingToReport where nothing at all is there.
    """
    sections: list[Section] = []
    missing: list[str] = []
    for study, at, variant, asked in _stored(engine, scale):
        where = _where(study, at, variant)
        say(where)
        try:
            stored = load(engine, home, study=study, scale=at, variant=variant, asked=asked)
            pieces = list(_pieces(_Task(engine, home, stored, asked, out / study, record), missing))
        except ReportError as error:
            missing.append(f"{where}: {error}")
            continue
        if pieces:
            sections.append(Section(stored.study, stored.run, variant, pieces))
    if not sections:
        raise _nothing(engine, home, scale, missing)
    sums = list(_implications(engine, home, sections, out, missing, record))
    elements = paper_elements()
    there = {element for section in sections for element in section.paper}
    missing += [f"{e.name} of the paper: run {e.commands(scale)}" for e in elements if e[:3] not in there]
    index = _write(out, INDEX, overview(Overview(str(home.root), sections, sums, elements, missing, out)))
    pieces = [*sums, *(piece for section in sections for piece in section.pieces)]
    return EverythingReport(index, [index, *(path for piece in pieces for path in piece.files)], missing)


def _where(study: str, scale: str, variant: str | None) -> str:
    return f"{study} at scale {scale}" + (f" (variant {variant})" if variant else "")


def _nothing(engine: Engine, home: Home, scale: str | None, missing: list[str]) -> NothingToReport:
    at = f" at scale '{scale}'" if scale else ""
    there = scales_there(engine, scale)
    why = "".join(f"\n  {phrase}" for phrase in missing)
    return NothingToReport(f"nothing is measured{at} in {home.root}{there}: run a study first (see `study list`){why}")


def _stored(engine: Engine, scale: str | None) -> Iterator[tuple[str, str, str | None, str]]:
    """Study, scale, variant and what the user calls the study, of all that was ever run."""
    from results.queries import runs

    latest = {(run["study"], run["scale"], run["variant"]): run["command"] for run in runs(engine).to_dict("records")}
    for study, at, variant in sorted(latest, key=lambda key: (key[0], key[1], key[2] or "")):
        if scale in (None, at):
            yield study, at, variant, _asked(study, latest[study, at, variant])


def _asked(study: str, command: list[str]) -> str:
    """What a study was called on the command line: its name, or the file of a user's study."""
    files = [word for word in command if word.endswith((".yaml", ".yml"))]
    return files[0] if study not in builtin_names() and len(files) == 1 else study


def _pieces(task: _Task, missing: list[str]) -> Iterator[Piece]:
    """All that can be made of one study; what cannot be is added to ``missing``."""
    run, study = task.stored.run, task.stored.study
    where = _where(run.study, run.scale, run.variant)
    if not task.stored.frame["value"].notna().any():
        missing.append(f"{where}: nothing is measured yet; continue it with `{task.stored.command}`")
        return
    makers: list[tuple[str, Callable[[], Piece]]] = []
    if study.figure is not None:
        makers.append(("figure", partial(_figure, task, None)))
        makers += [(f"figure {n} of the paper", partial(_figure, task, n)) for n in _split(study)]
    if study.table is not None:
        makers.append(("table", partial(_table, task)))
    if study.sweep is not None:
        makers.append(("ranking", partial(_ranking, task)))
    if study.claims:
        makers.append(("claims", partial(_claims, task)))
    makers.append(("results", partial(_results, task)))
    for what, make in makers:
        try:
            piece = make()
        except ReportError as error:
            missing.append(f"{where}, {what}: {error}")
            continue
        if piece.missing:
            missing.append(f"{where}, {what}: {'; '.join(piece.missing)}; continue it with `{task.stored.command}`")
        yield piece


def _split(study: ResolvedStudy) -> list[int]:
    """The paper's figures that show only some panels of the study's."""
    return sorted(study.figure.panels_of) if isinstance(study.figure, Curves) else []


def _figure(task: _Task, number: int | None) -> Piece:
    """A figure with its versions; of one that the paper splits, all panels or those of one number."""
    report = build_figure(task.engine, task.home, **task.which, figure=number, out=task.out)
    study = task.stored.study
    numbers = [number] if number else [n for n in study.paper.figures if n not in _split(study)]
    what = "Figure" if number is None else f"Figure {number} of the paper"
    parts: list[PaperPart] = [("figures", n, study.study) for n in numbers]
    return Piece(what, report.files, report.captions, report.missing, parts)


def _table(task: _Task) -> Piece:
    report = build_table(task.engine, task.home, **task.which, out=task.out)
    study, said = task.stored.study, f"{report.document.heading} {report.document.caption}"
    numbers: list[PaperPart] = [("tables", n, study.study) for n in study.paper.tables]
    return Piece("Table", report.files, [said], report.missing, numbers)


def _ranking(task: _Task) -> Piece:
    report = build_ranking(task.engine, task.home, **task.which, out=task.out)
    said = [rankingtext.heading(ranking) for ranking in report.rankings]
    return Piece("Ranking of the sweep", report.files, said, report.missing)


def _claims(task: _Task) -> Piece:
    report = build_claims(task.engine, task.home, **task.which, record=task.record)
    path = _write(task.out, f"{task.stem}_claims.md", text.markdown(report.verdicts, report.flags, report.notes))
    return Piece("Claims", [path], [text.title(verdict) for verdict in report.verdicts])


def _results(task: _Task) -> Piece:
    """Every measured evaluation, one row each."""
    from results.export import write_table
    from results.queries import results_table

    run = task.stored.run
    frame = results_table(task.engine, run.study, run.scale, run.variant)
    name = f"{task.stem}_results.csv"
    with published(task.out, name) as folder:
        write_table(frame, "csv", folder / name)
    return Piece("Results", [task.out / name], [f"{len(frame)} measured values, one a line."])


def _implications(
    engine: Engine, home: Home, sections: list[Section], out: Path, missing: list[str], record: bool
) -> Iterator[Piece]:
    """What the paper concludes, summed up at every scale at which a study concerned is stored."""
    concerned = {name.split("/")[0] for one in load_implications() for name in one.claims}
    scales = {section.study.scale for section in sections if not section.variant and section.study.study in concerned}
    for scale in sorted(scales):
        try:
            report = build_implications(engine, home, scale=scale, record=record)
        except ReportError as error:
            missing.append(f"implications at scale {scale}: {error}")
            continue
        path = _write(out, f"implications_{scale}.md", implicationtext.markdown(report.sums, report.flags))
        yield Piece(f"Scale {scale}", [path], [implicationtext.title(one) for one in report.sums])


def _write(folder: Path, name: str, content: str) -> Path:
    with published(folder, name) as place:
        (place / name).write_text(content, encoding="utf-8", newline="")
    return folder / name
