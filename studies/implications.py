"""What the paper concludes from its observations, and the claims that each conclusion rests on. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from studies.errors import StudyError
from studies.strict import Name, Strict
from studies.yamlfile import read_yaml

IMPLICATIONS = Path(__file__).with_name("implications.yaml")

ClaimName = Annotated[str, Field(pattern=r"^[a-z0-9_.\-]+/[a-z0-9_.\-]+$")]


class Implication(Strict):
    """A conclusion of the paper in our words, and the claims it rests on, as ``study/claim``."""

    id: Name
    section: str
    text: str
    claims: tuple[ClaimName, ...] = Field(min_length=1)


class _File(Strict):
    implications: tuple[Implication, ...]


def load_implications(path: Path = IMPLICATIONS) -> tuple[Implication, ...]:
    """The implications in the order declared. Raises: StudyError."""
    try:
        return _File.model_validate(read_yaml(path).data).implications
    except ValidationError as error:
        first = error.errors()[0]
        raise StudyError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
