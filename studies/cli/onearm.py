"""The one arm that a name means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meanflow_core.words import listed
from studies.cli.filters import chosen
from studies.errors import StudyError
from sweeps.selection import StoredStudy, select, stored_studies

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from reports.comparison import Side
    from results.layout import Home
    from studies.arms import Arm


OPTIONS = "--scale and, of a variant, --as"


def one_arm(
    engine: Engine,
    name: str,
    scale: str | None = None,
    variant: str | None = None,
    seed: int | None = None,
    options: str = OPTIONS,
) -> tuple[StoredStudy, Arm]:
    """An arm of a stored study, of a seed or of its first. Raises: StudyError where the name means none, or several,
    which ``options`` would tell apart."""
    found = select(stored_studies(engine), chosen([name], scale, variant, None if seed is None else str(seed)))
    arms: dict[tuple[str, str, str], tuple[StoredStudy, Arm]] = {}
    for one in found:
        for arm in one.arms:
            arms.setdefault((one.stored.name, arm.panel, arm.name), (one.stored, arm))
    if len(arms) > 1:
        there = listed((f"{study}: {panel}/{arm}" for study, panel, arm in arms), 8)
        raise StudyError(f"'{name}' means several arms ({there}): name one as study/panel/arm, with its {options}")
    return next(iter(arms.values()))


def side_of(
    engine: Engine,
    home: Home,
    name: str,
    scale: str | None = None,
    variant: str | None = None,
    options: str = OPTIONS,
) -> tuple[Arm, Side]:
    """The same, with what is measured of it. Raises: StudyError, ReportError."""
    from reports.comparison import one_side
    from reports.stored import load

    stored, arm = one_arm(engine, name, scale, variant, options=options)
    run = stored.run
    return arm, one_side(load(engine, home, study=run.study, scale=run.scale, variant=run.variant), arm.panel, arm.name)
