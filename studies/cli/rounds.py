"""The rounds of an adaptive search: each a small run of the trials under way, up to their next rungs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from statistics import fmean
from typing import TYPE_CHECKING

from studies.cli.backends import open_backend
from studies.cli.output import say
from studies.cli.store import created
from studies.errors import StudyError

if TYPE_CHECKING:
    from results.layout import Home
    from studies.arms import Arm, Point
    from studies.cli.backends import BackendChoice, Start
    from studies.cli.searching import Asked
    from studies.schema import ResolvedStudy
    from sweeps.backend import Outcome
    from sweeps.jobs import Job
    from sweeps.search import Search, Trial
    from sweeps.session import Session


def is_primary(study: ResolvedStudy, point: Point) -> bool:
    """Whether a point is one of the study's primary metric, as it is measured first."""
    first = next(m for m in study.measure if m.metric_label == study.primary)
    protocol = point.protocol
    of_point = (protocol.metric_label, protocol.nfe, protocol.solver, protocol.weights)
    return of_point == (first.metric_label, first.nfe, first.solver, first.weights)


def epochs_of(study: ResolvedStudy) -> list[int]:
    """The epochs at which every point of a study's sweep is measured by its primary metric, without its start.

    Raises: StudyError where points differ in them, or have none.
    """
    from studies.arms import expand_seed

    (panel,) = study.panels
    arms = expand_seed(study, study.seeds[0])[len(study.panels[panel].attributes()) :]
    found = {
        tuple(sorted({p.epoch for p in arm.points if p.epoch and is_primary(study, p)})): arm.name
        for arm in arms
        if not arm.control
    }
    if () in found:
        raise StudyError(f"'{found[()]}' is nowhere measured by {study.primary}, so nothing can be searched by it")
    if len(found) > 1:
        raise StudyError(
            f"a search compares its points at the same epochs, but {' and '.join(list(found.values())[:2])} are not "
            f"measured at the same ones by {study.primary}"
        )
    return list(next(iter(found)))


class Rounds:
    """Trains and measures what a search asks for, and tells it what came of it. One backend serves all rounds; it is
    opened when there is something to do."""

    def __init__(self, search: Search, asked: Asked, choice: BackendChoice, home: Home) -> None:
        self.search, self.asked, self.choice, self.home = search, asked, choice, home
        self._start: Start | None = None

    def run(self) -> Outcome:
        """Until all trials have ended. Returns: the outcome of the last round, with the failures of all.

        A round that was stopped, or that goes on elsewhere, ends the search; the same search again is told what is
        there.
        """
        from sweeps.backend import Outcome

        failures = []
        outcome = Outcome()
        with ExitStack() as stack:
            while active := self.search.active():
                outcome = self._round(active, stack)
                failures += outcome.failures
                if outcome.interrupted or outcome.left:
                    break
        outcome.failures = failures
        return outcome

    def _round(self, active: Sequence[Trial], stack: ExitStack) -> Outcome:
        from studies.arms import expand
        from sweeps.session import session_of

        study, _ = self.asked.resolve(self.search.drawn())
        names = _arm_names(study)
        going = {names[trial.number] for trial in active}
        arms = [arm for arm in expand(study, self.asked.variant) if arm.name in going and not arm.control]
        outcome = self._execute(session_of([study], arms), stack)
        if outcome.interrupted or outcome.left:
            return outcome
        for trial in active:
            self._tell(trial, names[trial.number], _keys(study, arms, names[trial.number], self.search.rung(trial)))
        return outcome

    def _execute(self, session: Session, stack: ExitStack) -> Outcome:
        from results.queries import evaluated_keys
        from studies.cli.running import complain, run_jobs
        from sweeps.backend import Outcome
        from sweeps.plan import Inventory

        with created(self.home) as engine:
            jobs: list[Job] = session.jobs(session.inventory(self.home, evaluated_keys(engine)))
        if not jobs:
            return Outcome()
        prove(session, self.home)
        if self._start is None:  # as big as a round may be, not as what the first one lacks
            self._start = stack.enter_context(open_backend(self.choice, self.home, session.jobs(Inventory())))
        outcome = run_jobs(self._start, jobs, self.choice)
        complain(outcome)
        return outcome

    def _tell(self, trial: Trial, name: str, keys: set[str]) -> None:
        """Tell the search the mean over the seeds; that of a trial which lacks one is none."""
        from results.queries import measured_values

        with created(self.home) as engine:
            values = measured_values(engine, sorted(keys))
        value, rung = fmean(values.values()) if values.keys() == keys else None, self.search.rung(trial)
        self.search.tell(trial, value)
        said = "failed" if value is None else f"{value:.4g}" + (", stopped" if trial.state == "stopped" else "")
        say(f"{name} at epoch {rung}: {said}")


def prove(session: Session, home: Home) -> None:
    """Verify what trainers of the user's own promise of points that were not known before.

    Raises: StudyError where one fails, or does not keep its promise.
    """
    from sweeps.program import verifying
    from sweeps.program.process import ProgramError

    try:
        verifying.prove(home, verifying.trials_of(session))
    except ProgramError as error:
        raise StudyError(str(error)) from None


def _arm_names(study: ResolvedStudy) -> list[str]:
    """Of the trials, in the order drawn."""
    (panel,) = study.panels
    listed = len(study.panels[panel].attributes())
    return [pattern.format(**attributes) for pattern, attributes in study.arms_of(panel)[listed:]]


def _keys(study: ResolvedStudy, arms: Sequence[Arm], name: str, epoch: int) -> set[str]:
    """The evaluations by the primary metric of a trial at an epoch, one a seed."""
    own = (arm for arm in arms if arm.name == name)
    return {p.evaluation for arm in own for p in arm.points if p.epoch == epoch and is_primary(study, p)}
