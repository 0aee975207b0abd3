"""Leaving out of a study what its arms no longer fit, where the space of its sweep was replaced. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic import ValidationError

from studies.consistency import problems
from studies.schema import ResolvedStudy

Data = dict[str, Any]


def leave_out_misfits(data: Data, kept: Collection[str] = ()) -> dict[str, list[str]]:
    """Remove from a merged study its claims, its table and its figure where they speak of arms or attributes that it
    lacks. Those ``kept`` stay, and so does everything where the study is wrong even without them: validation says of
    both what is wrong.

    Returns: what was removed (``table``, ``figure``, ids of claims), by the reason.
    """
    bare: Data = {**data, "claims": [], "table": None, "figure": None}
    removed: dict[str, list[str]] = {}
    if misfit(bare):
        return removed
    for part in ("table", "figure"):
        if part not in kept and data.get(part) is not None:
            if why := misfit({**bare, part: data[part]}):
                removed.setdefault(why, []).append(part)
                data[part] = None
            bare[part] = data[part]  # a figure may name a column of the table
    if "claims" not in kept and isinstance(data.get("claims"), list):
        wrong = [(claim, why) for claim in data["claims"] if (why := misfit({**bare, "claims": [claim]}))]
        for claim, why in wrong:
            removed.setdefault(why, []).append(f"claim {claim.get('id')}")
        data["claims"] = [claim for claim in data["claims"] if all(claim is not other for other, _ in wrong)]
    return removed


def misfit(data: Data) -> str:
    """The first thing that is wrong with a merged study, without a list of what it has; empty where nothing is."""
    try:
        study = ResolvedStudy.model_validate(data)
    except ValidationError as error:
        first = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        return re.sub(r"^claim '.*?': ", "", first)
    return next((message.partition(" (there is:")[0] for _, message in problems(study)), "")
