"""``study list``."""

from __future__ import annotations

from studies.cli.options import JsonOpt


def list_studies(json: JsonOpt = False) -> None:
    """List the studies: what of the paper each makes, and at which scales it runs."""
    from studies.cli.output import console, print_json
    from studies.loader import builtin_names, load_source

    sources = [load_source(name) for name in builtin_names()]
    records = [
        {
            "name": source.name,
            "title": source.data.get("heading") or source.data.get("title", ""),
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
