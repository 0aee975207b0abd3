"""``study sweep --search``: the rounds of an adaptive search, each a small run of what is under way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from studies.cli.output import say
from studies.errors import StudyError

if TYPE_CHECKING:
    from results.layout import Home
    from studies.arms import Arm, Point
    from studies.cli.backends import BackendChoice
    from studies.schema import ResolvedStudy
    from studies.sweep import Drawn
    from sweeps.backend import Outcome
    from sweeps.search import Search, Trial


def drawn_override(drawn: Sequence[Drawn]) -> str:
    """As an override, so that what a search records is what anybody may write."""
    return f"sweep.drawn={json.dumps([one.model_dump() for one in drawn])}"


def is_primary(study: ResolvedStudy, point: Point) -> bool:
    """Whether a point is one of the study's primary metric, as it is measured first."""
    first = next(m for m in study.measure if m.metric_label == study.primary)
    protocol = point.protocol
    of_point = (protocol.metric_label, protocol.nfe, protocol.solver, protocol.weights)
    return of_point == (first.metric_label, first.nfe, first.solver, first.weights)


def epochs_of(study: ResolvedStudy) -> list[int]:
    """The epochs at which every point of a study's sweep is measured by its primary metric, without its start.

    Raises: StudyError where points differ in them.
    """
    from studies.arms import expand_seed

    (panel,) = study.panels
    arms = expand_seed(study, study.seeds[0])[len(study.panels[panel].attributes()) :]
    found = {
        tuple(sorted({p.epoch for p in arm.points if p.epoch and is_primary(study, p)})): arm.name
        for arm in arms
        if not arm.control
    }
    if len(found) > 1:
        raise StudyError(
            f"a search compares its points at the same epochs, but {' and '.join(list(found.values())[:2])} are not "
            f"measured at the same ones by {study.primary}"
        )
    return list(next(iter(found)))


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
        from studies.cli.sweeping import choose_sweep

        adaptive = [f"sweep.strategy={self.kind}", drawn_override(drawn)] if drawn else ["sweep.strategy=random"]
        changes = [*self.overrides, f"sweep.points={self.samples}", *adaptive]
        return choose_sweep(self.study, self.scale, self.seeds, changes, self.variant, self.panel)


def search_and_finish(asked: Asked, choice: BackendChoice, home: Path) -> tuple[int, ResolvedStudy]:
    """Search, then train what stands beside the trials, and record all that was drawn.

    Returns: the exit status, and the study with its points. Raises: StudyError where it cannot run.
    """
    from results.layout import Home
    from studies.cli.running import conclude, execute, ready, record
    from studies.cli.store import ingest_new
    from sweeps.search import Search
    from sweeps.session import open_session

    first, said = asked.resolve()
    ready(open_session([first], asked.variant), [asked.study], choice)
    assert first.sweep is not None
    rungs = rungs_in(first, asked)
    search = Search(first.sweep.model_copy(update={"strategy": asked.kind}), rungs)
    say(said.splitlines()[0])
    say(
        f"search by {asked.kind} in panel {asked.panel}: up to {asked.samples} points, compared by {first.primary} at "
        f"epochs {', '.join(map(str, rungs))}"
    )
    place = Home(home)
    outcome = search_rounds(search, asked, choice, place)
    study, said = asked.resolve(search.drawn())
    if outcome.interrupted or outcome.left:
        record(open_session([study], asked.variant), place, asked.variant)
        ingest_new(place)
        return conclude(outcome, [asked.study], [study], asked.variant), study
    say("the search is over; what stands beside its points:")
    status = execute([study], said, [asked.study], asked.variant, choice, home)
    return status or int(bool(outcome.failures)), study


def rungs_in(study: ResolvedStudy, asked: Asked) -> list[int]:
    """The epochs at which trials are compared. Raises: StudyError where ASHA would have nothing to stop at."""
    from sweeps.search import rungs_of

    rungs = rungs_of(epochs_of(study))
    if asked.kind == "asha" and len(rungs) == 1:
        raise StudyError(
            f"{study.primary} is measured only at epoch {rungs[0]}, the end, so nothing can be stopped before: "
            "measure it more often, e.g. -o measure.0.every_epochs=5"
        )
    return rungs


def search_rounds(search: Search, asked: Asked, choice: BackendChoice, place: Home) -> Outcome:
    """Train and measure trials rung by rung until all have ended. Returns: the outcome of the last round, with the
    failures of all.

    A round that was stopped, or that goes on elsewhere, ends the search; the same search again is told what is there.
    """
    from sweeps.backend import Outcome

    failures = []
    outcome = Outcome()
    while active := search.active():
        outcome = _round(search, active, asked, choice, place)
        failures += outcome.failures
        if outcome.interrupted or outcome.left:
            break
    outcome.failures = failures
    return outcome


def _round(search: Search, active: Sequence[Trial], asked: Asked, choice: BackendChoice, place: Home) -> Outcome:
    from results.queries import evaluated_keys, measured_values
    from studies.arms import expand
    from studies.cli.running import complain, execute_jobs
    from studies.cli.store import created
    from sweeps.backend import Outcome
    from sweeps.session import session_of

    study, _ = asked.resolve(search.drawn())
    names = _arm_names(study)
    arms = [
        arm for arm in expand(study, asked.variant) if arm.name in {names[t.number] for t in active} and not arm.control
    ]
    session = session_of([study], arms)
    with created(place) as engine:
        jobs = session.jobs(session.inventory(place, evaluated_keys(engine)))
    outcome = execute_jobs(place, jobs, choice) if jobs else Outcome()
    complain(outcome)
    if outcome.interrupted or outcome.left:
        return outcome
    wanted = {t.number: _keys(study, arms, names[t.number], search.rung(t)) for t in active}
    with created(place) as engine:
        values = measured_values(engine, [key for keys in wanted.values() for key in keys])
    for trial in active:
        keys, rung = wanted[trial.number], search.rung(trial)
        value = fmean(values[key] for key in keys) if keys <= values.keys() else None
        search.tell(trial, value)
        said = "failed" if value is None else f"{value:.4g}" + (", stopped" if trial.state == "stopped" else "")
        say(f"{names[trial.number]} at epoch {rung}: {said}")
    return outcome


def _arm_names(study: ResolvedStudy) -> list[str]:
    """Of the trials, in the order drawn."""
    (panel,) = study.panels
    listed = len(study.panels[panel].attributes())
    return [pattern.format(**attributes) for pattern, attributes in study.arms_of(panel)[listed:]]


def _keys(study: ResolvedStudy, arms: Sequence[Arm], name: str, epoch: int) -> set[str]:
    """The evaluations by the primary metric of a trial at an epoch, one a seed."""
    own = (arm for arm in arms if arm.name == name)
    return {p.evaluation for arm in own for p in arm.points if p.epoch == epoch and is_primary(study, p)}


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
