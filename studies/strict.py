"""What all declarations have in common. Torch-free."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.\-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = int | float
Attribute = Number | str


class Strict(BaseModel):
    """Unknown keys are errors, and so are infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
