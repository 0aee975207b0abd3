"""``study sweep --search``: what is asked of an adaptive search, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meanflow_core.words import counted
from studies.cli.output import say
from studies.errors import StudyError

if TYPE_CHECKING:
    from studies.cli.backends import BackendChoice
    from studies.schema import ResolvedStudy
    from studies.sweep import Drawn


def drawn_override(drawn: Sequence[Drawn]) -> str:
    """As an override, so that what a search records is what anybody may write."""
    return f"sweep.drawn={json.dumps([one.model_dump() for one in drawn])}"


@dataclass(frozen=True)
class Asked:
    """What the user asked of ``study sweep --search``."""

    study: str
    scale: str | None
    seeds: str | None
    overrides: Sequence[str]
    variant: str
    kind: str
    samples: int
    panel: str

    def resolve(self, drawn: Sequence[Drawn] = ()) -> tuple[ResolvedStudy, str]:
        """The study with the points drawn so far, and what is to be said of it; with any points as long as there are
        none. Raises: StudyError."""
        adaptive = [f"sweep.strategy={self.kind}", drawn_override(drawn)] if drawn else ["sweep.strategy=random"]
        return self._with([f"sweep.points={self.samples}", *adaptive])

    def check(self) -> None:
        """Raises: StudyError where the space has fewer points than are asked for."""
        study, _ = self._with(["sweep.strategy=random", "sweep.points=1"])
        size = study.sweep.size if study.sweep else None
        if size is not None and self.samples > size:
            raise StudyError(
                f"--samples {self.samples}: {size} different points can be drawn from the space of the sweep. A range "
                "has any number: -o 'space.ATTRIBUTE={low: ..., high: ...}'"
            )

    def _with(self, changes: Sequence[str]) -> tuple[ResolvedStudy, str]:
        from studies.cli.sweeping import choose_sweep

        overrides = [*self.overrides, *changes]
        return choose_sweep(self.study, self.scale, self.seeds, overrides, self.variant, self.panel)


def search_and_finish(asked: Asked, choice: BackendChoice, home: Path) -> tuple[int, ResolvedStudy]:
    """Search, then train what stands beside the trials, and record all that was drawn.

    Returns: the exit status, and the study with its points. Raises: StudyError where it cannot run.
    """
    from results.layout import Home
    from studies.cli.rounds import Rounds, prove
    from studies.cli.running import conclude, execute, next_step, ready, record
    from studies.cli.store import ingest_new
    from sweeps.search import Search
    from sweeps.session import open_session

    asked.check()
    first, said = asked.resolve()
    ready(open_session([first], asked.variant), [asked.study], Home(home), choice, proofs=False)
    assert first.sweep is not None
    rungs = rungs_in(first, asked)
    search = Search(first.sweep.model_copy(update={"strategy": asked.kind}), rungs)
    say(said.splitlines()[0])
    say(
        f"search by {asked.kind} in panel {asked.panel}: up to {counted(asked.samples, 'point')}, compared by "
        f"{first.primary} at epoch{'s' if len(rungs) > 1 else ''} {', '.join(map(str, rungs))}"
    )
    place = Home(home)
    try:
        outcome = Rounds(search, asked, choice, place).run()
    except StudyError:
        if drawn := search.drawn():
            record(open_session([asked.resolve(drawn)[0]], asked.variant), place, asked.variant)
        raise
    study, said = asked.resolve(search.drawn())
    if outcome.interrupted or outcome.left:
        record(open_session([study], asked.variant), place, asked.variant)
        ingest_new(place)
        return conclude(outcome, [asked.study], [study], asked.variant), study
    prove(open_session([study], asked.variant), place)
    say("the search is over; what stands beside its points:")
    status = execute([study], said, [asked.study], asked.variant, choice, home)
    if failed := sum(one.state == "failed" for one in search.drawn()):
        say(f"failed, and not ranked: {counted(failed, 'point')}; {next_step(outcome.failures)}")
    return status or int(failed > 0), study


def rungs_in(study: ResolvedStudy, asked: Asked) -> list[int]:
    """The epochs at which trials are compared. Raises: StudyError where ASHA would have nothing to stop at."""
    from studies.cli.rounds import epochs_of
    from studies.dynamics import trainers
    from sweeps.search import rungs_of

    rungs = rungs_of(epochs_of(study))
    if held := [one.name for one in trainers(study) if one is not None and one.held]:
        rungs = rungs[-1:]  # what is trained whole or not at all cannot be stopped early
        if asked.kind == "asha":
            raise StudyError(
                f"--search asha stops arms early, and those of trainer {held[0]}, which does not resume exactly, are "
                "trained whole: take --search random or optuna"
            )
    if asked.kind == "asha" and len(rungs) == 1:
        raise StudyError(
            f"{study.primary} is measured only at epoch {rungs[0]}, the end, so nothing can be stopped before: "
            "measure it more often, e.g. -o measure.0.every_epochs=5"
        )
    return rungs


def the_panel(name: str, scale: str | None, panel: str | None) -> str:
    """The panel to search in: that asked for, else the study's first. Raises: StudyError for one without a sweep."""
    from studies.cli.choose import default_scale, source_of
    from studies.loader import merged

    source = source_of(name)
    data, _ = merged(source, scale or default_scale(source)[0])
    if data.get("sweep") is None:
        raise StudyError(f"study '{name}' has no sweep, so there is no space to search (see `study list`)")
    return panel or str(next(iter(data["panels"])))


def asked_of(
    study: str,
    scale: str | None,
    seeds: str | None,
    overrides: Sequence[str],
    variant: str | None,
    kind: str | None,
    samples: int | None,
    panel: str | None,
) -> Asked | None:
    """What the options ask for; None where they ask for no search. Raises: StudyError where they do not fit."""
    if kind is None:
        for option, value in (("--samples", samples), ("--panel", panel)):
            if value is not None:
                raise StudyError(f"{option} {value} goes with --search asha, optuna or random")
        return None
    if samples is None:
        raise StudyError(f"--search {kind} needs --samples, how many points to draw")
    if variant is None:
        raise StudyError(f"--search {kind} draws points of its own: name them with --as NAME")
    return Asked(study, scale, seeds, overrides, variant, str(kind), samples, the_panel(study, scale, panel))
