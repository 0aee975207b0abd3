"""``study plan --power``: how many seeds comparisons need, from the spread in the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studies.schema import ResolvedStudy


def print_power(studies: Sequence[ResolvedStudy], said: str, variant: str | None, root: Path, *, json: bool) -> None:
    """Print what seeds can show of every comparison of studies; ``said`` is the sentence on the choice of scale."""
    from reports.powerreport import build_power, records, show
    from results.layout import Home
    from studies.cli.choose import home_exists
    from studies.cli.output import console, print_json
    from studies.cli.store import opened

    home = Home(root)
    if home_exists(root):
        with opened(home) as engine:
            found = build_power(engine, home, studies, variant)
    else:
        found = build_power(None, home, studies, variant)
    if json:
        names = [study.study for study in studies]
        print_json({"studies": names, "scale": studies[0].scale, "power": records(found)})
        return
    out = console()
    out.print(said, markup=False)
    if found:
        show(found, out)
    else:
        out.print("these studies claim no difference and have no table: there is nothing to compare", markup=False)
