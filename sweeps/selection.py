"""What of a home's studies is meant: the one vocabulary of all commands that look at stored work or act on it.

A home holds *stored studies*: (study, scale, variant), as its latest run declared it. A `Filter` chooses among them and
among their arms. Nothing here reads YAML: a study file may have changed since, or be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal, get_args

from pydantic import ValidationError
from sqlalchemy import Engine

from meanflow_core.words import did_you_mean, listed
from results.stored import StoredRun, stored_runs
from studies.arms import Arm
from studies.errors import StudyError
from studies.schema import ResolvedStudy
from sweeps.session import Session, open_session

Standing = Literal["done", "running", "queued", "missing", "failed", "preempted", "lost"]
STANDINGS: tuple[Standing, ...] = get_args(Standing)
Kind = Literal["train", "evaluate"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ITSELF = "-"  # as a variant: the study itself, without one


@dataclass(frozen=True)
class Filter:
    """What is meant. Whatever is not given matches all.

    ``what`` are shell-style patterns over ``study/panel/arm``, of which any may match; ``scale`` and ``variant`` are
    patterns too (`ITSELF`: no variant). ``standings`` and ``kind`` choose among the work of what is selected.
    """

    what: tuple[str, ...] = ()
    scale: str | None = None
    variant: str | None = None
    seeds: frozenset[int] | None = None
    standings: frozenset[Standing] = frozenset()
    kind: Kind | None = None

    def wants(self, standing: Standing, kind: Kind) -> bool:
        """Whether work that stands like this is meant."""
        return (not self.standings or standing in self.standings) and self.kind in (None, kind)


class StoredStudy:
    """A study as its latest run in a home declared it, with all the seeds that were run of it."""

    def __init__(self, run: StoredRun) -> None:
        self.run = run

    @property
    def name(self) -> str:
        """``obs_v_then_u at cpu``, ``obs_v_then_u at cpu as NAME``."""
        return f"{self.run.study} at {self.run.scale}" + (f" as {self.run.variant}" if self.run.variant else "")

    @cached_property
    def session(self) -> Session:
        """All its arms, merged into one tree. Raises: StudyError where this program cannot read what an older one
        stored."""
        try:
            study = ResolvedStudy.model_validate(self.run.config).model_copy(update={"seeds": self.run.seeds})
            return open_session([study], self.run.variant)
        except (ValueError, StudyError) as error:  # pydantic's ValidationError and a ComponentError are ValueErrors
            raise StudyError(
                f"the configuration of run {self.run.run} ({self.name}) cannot be read by this program: "
                f"{_first(error)}; run the study again, or name others"
            ) from None

    @property
    def study(self) -> ResolvedStudy:
        return self.session.studies[0]

    @property
    def arms(self) -> tuple[Arm, ...]:
        return self.session.arms


@dataclass(frozen=True)
class Selected:
    """The arms of one stored study that are meant; ``whole`` if that is all of them."""

    stored: StoredStudy
    arms: tuple[Arm, ...]

    @property
    def whole(self) -> bool:
        return len(self.arms) == len(self.stored.arms)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def stored_studies(engine: Engine) -> list[StoredStudy]:
    """All that were ever run in a home, by name. Their configurations are read when they are asked for."""
    return [StoredStudy(run) for run in stored_runs(engine)]


def select(stored: Sequence[StoredStudy], chosen: Filter, unreadable: list[str] | None = None) -> list[Selected]:
    """The studies and arms that a filter means, in order.

    Args:
        unreadable: where given, takes the messages of studies that this program cannot read, which are left out.

    Raises: StudyError that lists what there is, where a pattern or the rest matches nothing.
    """
    near = [one for one in stored if _like(one.run.scale, chosen.scale) and _of_variant(one, chosen.variant)]
    if not near and (stored or chosen.what or chosen.seeds):
        raise StudyError(
            f"no study was run{_in_words(chosen)} ({_meant_by(chosen, stored)}available: {_studies(stored)})"
        )
    found: list[dict[int, Arm]] = [{} for _ in near]
    for pattern in chosen.what or ("*",):
        for there, arms in zip(found, _hits(pattern, near, unreadable), strict=True):
            there.update(arms)
    kept = [
        Selected(one, tuple(arm for _, arm in sorted(arms.items()) if chosen.seeds is None or arm.seed in chosen.seeds))
        for one, arms in zip(near, found, strict=True)
    ]
    if any(found) and not any(one.arms for one in kept):
        seeds = sorted({arm.seed for arms in found for arm in arms.values()})
        raise StudyError(f"none of these seeds was run (available: {listed(seeds)})")
    return [one for one in kept if one.arms]


def _hits(pattern: str, stored: Sequence[StoredStudy], unreadable: list[str] | None) -> list[dict[int, Arm]]:
    """Of each study, the arms that a pattern means, by their place. Without a slash it is a study's if one is called
    so, else an arm's in any panel. Raises: StudyError if there is none."""
    study, *rest = (part or "*" for part in pattern.split("/", 2))
    named = [one for one in stored if _like(one.run.study, study)]
    if rest and not named:
        raise StudyError(
            f"'{pattern}': no study that was run is called '{study}' (a pattern is study/panel/arm, and * is any; "
            f"{did_you_mean(study, {one.run.study for one in stored})}available: {_studies(stored)})"
        )
    panel, name = [*rest, "*", "*"][:2] if named else ("*", study)
    readable = [one for one in named or stored if _readable(one, unreadable)]
    hits = [arms_like(one.arms, panel, name) if one in readable else {} for one in stored]
    if readable and not any(hits):
        said = f"no arm is called '{pattern}'" if named else f"neither a study nor an arm is called '{pattern}'"
        studies = "" if named else f"the studies {_studies(stored)}, and the arms "
        arms = [arm for one in readable for arm in one.arms]
        meant = did_you_mean(pattern, [*(one.run.study for one in stored), *_names(arms), *(arm.name for arm in arms)])
        raise StudyError(f"{said} ({meant}available: {studies}{arm_names(arms)})")
    return hits


def _readable(one: StoredStudy, unreadable: list[str] | None) -> bool:
    try:
        return bool(one.arms)
    except StudyError as error:
        if unreadable is None:
            raise
        if str(error) not in unreadable:
            unreadable.append(str(error))
        return False


def _like(text: str, pattern: str | None) -> bool:
    """Whether a name is meant by a pattern (None: all are); by its own name it always is."""
    return pattern is None or text == pattern or fnmatchcase(text, pattern)


def _of_variant(stored: StoredStudy, pattern: str | None) -> bool:
    if pattern == ITSELF:
        return stored.run.variant is None
    return pattern is None or (stored.run.variant is not None and _like(stored.run.variant, pattern))


def _in_words(chosen: Filter) -> str:
    said = f" at scale '{chosen.scale}'" if chosen.scale else ""
    if chosen.variant == ITSELF:
        return said + " without a variant"
    return said + (f" as '{chosen.variant}'" if chosen.variant else "")


def _meant_by(chosen: Filter, stored: Sequence[StoredStudy]) -> str:
    """The scale or the variant that is close to the one asked for."""
    scales, variants = {one.run.scale for one in stored}, {one.run.variant for one in stored if one.run.variant}
    if chosen.scale and not any(_like(scale, chosen.scale) for scale in scales):
        return did_you_mean(chosen.scale, scales)
    return did_you_mean(chosen.variant, variants) if chosen.variant else ""


def _studies(stored: Sequence[StoredStudy]) -> str:
    return listed(one.name for one in stored) if stored else "nothing"


def arms_like(arms: Sequence[Arm], panel: str, name: str) -> dict[int, Arm]:
    """The arms, by their place, that patterns of panel and name mean."""
    return {i: arm for i, arm in enumerate(arms) if _like(arm.panel, panel) and _like(arm.name, name)}


def arm_names(arms: Iterable[Arm]) -> str:
    """What arms there are, for a message."""
    return listed(_names(arms))


def _names(arms: Iterable[Arm]) -> list[str]:
    return list(dict.fromkeys(f"{arm.study}/{arm.panel}/{arm.name}" for arm in arms))
