"""What all declarations have in common. Torch-free."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import (
    Field,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from meanflow_core.strict import Strict
from meanflow_core.words import NAME

__all__ = ["Attribute", "Name", "Number", "Seed", "Strict", "in_one_message", "is_name", "no_boolean"]


def in_one_message(wanted: str) -> WrapValidator:
    """Of a value of several types: where it is of none of them, say once what is wanted, not once a type."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"takes {wanted}, not {json.dumps(value, default=str, ensure_ascii=False)}") from None

    return WrapValidator(validate)


def no_boolean(value: Any) -> Any:
    """Of a number or a text: true is neither, and would be read as 1."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number")
    return value


Name = Annotated[str, Field(pattern=NAME, max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = int | float
Attribute = Annotated[StrictInt | StrictFloat | str, in_one_message("a finite number or a text")]


def is_name(text: str) -> bool:
    """Whether a text can be a `Name`."""
    try:
        TypeAdapter(Name).validate_python(text)
    except ValidationError:
        return False
    return True
