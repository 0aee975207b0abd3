"""``study list`` and ``study status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Engine

    from results.layout import Home


def list_studies(json: JsonOpt = False) -> None:
    """List the studies: what of the paper each makes, and at which scales it runs."""
    from studies.cli.output import console, print_json
    from studies.loader import builtin_names, load_source

    sources = [load_source(name) for name in builtin_names()]
    records = [
        {
            "name": source.name,
            "title": source.data.get("title", ""),
            "figures": source.paper("figures"),
            "tables": source.paper("tables"),
            "scales": source.scales,
        }
        for source in sources
    ]
    if json:
        print_json(records)
        return
    from rich.table import Table

    table = Table("study", "what", "paper", "scales")
    for r in records:
        paper = [f"Fig. {n}" for n in r["figures"]] + [f"Table {n}" for n in r["tables"]]
        table.add_row(r["name"], r["title"], ", ".join(paper), ", ".join(r["scales"]))
    console().print(table)


def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="Only this one.")] = None,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Show what of each study is measured, what is being worked on now, and what failed."""
    from results.layout import Home
    from results.queries import attempts
    from studies.cli.output import console, print_json
    from studies.cli.store import opened

    place = Home(home)
    with opened(place) as engine:
        rows = _progress_rows(engine, study)
        tried = attempts(engine)
    working = _working(place, tried)
    failed = _failures(tried)
    if json:
        print_json({"studies": rows, "running": working, "failed": failed})
        return
    from rich.table import Table

    table = Table("study", "scale", "variant", "seeds", "measured", "latest run")
    for r in rows:
        share = f"{r['measured']} of {r['points']}"
        table.add_row(r["study"], r["scale"], r["variant"] or "", str(r["seeds"]), share, r["run"])
    out = console()
    out.print(table)
    for line in working:
        out.print(f"running: {line['kind']} {line['trajectory'][:8]}, held by {line['holder']}", markup=False)
    for line in failed:
        out.print(
            f"failed: {line['kind']} {line['trajectory'][:8]}, attempt {line['attempt']}: {line['reason']}",
            markup=False,
        )


def _progress_rows(engine: Engine, study: str | None) -> list[dict[str, Any]]:
    from results.queries import evaluations, runs
    from studies.cli.choose import source_of

    name = source_of(study).name if study else None
    rows = []
    frame = runs(engine, name)
    for (s, scale, variant), group in frame.groupby(["study", "scale", "variant"], dropna=False, sort=True):
        kept = None if _missing(variant) else str(variant)
        points = evaluations(engine, str(s), str(scale), kept).drop_duplicates("evaluation")
        rows.append(
            {
                "study": str(s),
                "scale": str(scale),
                "variant": kept,
                "seeds": int(points["seed"].nunique()),
                "points": len(points),
                "measured": int(points["value"].notna().sum()),
                "run": str(group["run"].iloc[-1]),
            }
        )
    return rows


def _missing(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124  (NaN is how pandas groups None)


def _working(home: Home, tried: pd.DataFrame) -> list[dict[str, Any]]:
    """Leases that are held now, of trajectories with an unfinished attempt."""
    from sweeps.lease import holder

    unfinished = tried[tried["status"] == "unfinished"]
    found = []
    for key in sorted(set(unfinished["trajectory"])):
        for kind in ("train", "evaluate"):
            held = holder(home.trajectory(key).lease(kind))
            if held:
                found.append({"kind": kind, "trajectory": key, "holder": held})
    return found


def _failures(tried: pd.DataFrame) -> list[dict[str, Any]]:
    """The latest failure of each trajectory and kind of work, unless a later attempt got over it."""
    left: dict[tuple[str, str], dict[str, Any]] = {}
    for row in tried.sort_values("attempt").to_dict("records"):
        at = (row["trajectory"], row["kind"])
        if row["status"] == "failed":
            left[at] = {str(k): v for k, v in row.items()}
        elif row["status"] == "done" and at in left and row["start_step"] <= left[at]["stop_step"] <= row["stop_step"]:
            del left[at]
    return [{k: left[at][k] for k in ("kind", "trajectory", "attempt", "reason")} for at in sorted(left)]
