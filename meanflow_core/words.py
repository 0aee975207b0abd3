"""Words that messages share: which names there are, how many, and what pydantic says."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

SHOWN = 12  # names in a message
NAME = r"^[a-z0-9][a-z0-9_.\-]*$"  # of studies, panels, stages, ...


def listed(names: Iterable[object], shown: int = SHOWN) -> str:
    """``a, b, c and 4 more``; ``none``."""
    said = [str(name) for name in names]
    more = len(said) - shown
    return ", ".join(said[:shown]) + (f" and {more} more" if more > 0 else "") if said else "none"


def there_is(name: object, names: Iterable[object], shown: int = SHOWN) -> str:
    """What is said after a name that is none of ``names``: `` (did you mean 'b'? available: a, b, c)``."""
    known = [str(one) for one in names]
    return f" ({did_you_mean(name, known)}available: {listed(known, shown)})"


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """``did you mean 'b'? ``, where one of ``names`` is close, in whatever case; else nothing."""
    folded = {one.casefold(): one for one in reversed(list(names))}
    close = difflib.get_close_matches(str(name).casefold()[:100], folded, 1)
    return f"did you mean '{folded[close[0]]}'? " if close else ""


def counted(number: float, noun: str, plural: str | None = None) -> str:
    """``1 arm``, ``2 arms``, ``1,200 arms``, ``0.25 arms``; ``plural`` where it is not made with an s."""
    said = f"{number:,.0f}" if number == int(number) else f"{number:,.4g}"
    return f"{said} {noun if number == 1 else plural or noun + 's'}"


def refusal(error: Mapping[str, Any]) -> str:
    """What one of the errors of pydantic's ``ValidationError.errors()`` says, in the words of a study file."""
    context, message = error.get("ctx", {}), str(error["msg"])
    match error["type"]:
        case "extra_forbidden":
            said = "unknown key"
        case "missing":
            said = "is required"
        case "dict_type" | "model_type" | "model_attributes_type":
            said = "Input should be a mapping of keys to values"
        case "list_type" | "tuple_type":
            said = "Input should be a list"
        case "too_short":
            said = f"Input should have at least {counted(context['min_length'], 'entry', 'entries')}"
        case "literal_error":
            said = f"{message}, not {_short(error['input'])}"
        case "int_parsing" | "float_parsing" if error["input"] in {"true", "false"}:  # as `strict` leaves a boolean
            said = f"{error['input']} is no number"
        case "string_pattern_mismatch" if context["pattern"] == NAME:
            said = (
                f"{_short(error['input'])} is no name: small letters, digits, '_', '-' and '.', not first one of these"
            )
        case "union_tag_not_found":
            said = f"{context['discriminator']} is required"
        case "union_tag_invalid":
            key, given = context["discriminator"].strip("'"), context["tag"]
            there = re.findall("'([^']*)'", context["expected_tags"])
            said = f"there is no {key} '{given}'{there_is(given, there)}"
        case _:
            said = message.removeprefix("Value error, ")
    return said


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:60]}..."
