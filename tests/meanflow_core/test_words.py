"""Names, numbers of things and pydantic's errors as messages say them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meanflow_core.words import counted, did_you_mean, listed, refusal, there_is


def test_lists_are_cut_and_say_how_much_is_left() -> None:
    assert listed([]) == "none"
    assert listed([1, 2]) == "1, 2"
    assert listed(range(12)).endswith("10, 11")
    assert listed(range(15)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more"


def test_which_name_is_meant() -> None:
    assert there_is("cpuu", ["cpu", "long"]) == " (did you mean 'cpu'? available: cpu, long)"
    assert there_is("nothing alike", ["cpu"]) == " (available: cpu)"
    assert did_you_mean("OBS_V", ["obs_v"]) == did_you_mean("obs-v", ["obs_v"]) == "did you mean 'obs_v'? "
    assert did_you_mean("x" * 10**6, ["y"]) == did_you_mean("x", []) == ""


def test_numbers_of_things() -> None:
    assert [counted(n, "arm") for n in (0, 1, 2, 1200)] == ["0 arms", "1 arm", "2 arms", "1,200 arms"]
    assert [counted(n, "trajectory", "trajectories") for n in (1, 2)] == ["1 trajectory", "2 trajectories"]


class Given(BaseModel):
    model_config = ConfigDict(extra="forbid")

    a: int = 0
    b: dict[str, int] = {}
    c: list[int] = Field(default=[1], min_length=1)
    d: Literal["x", "y"] = "x"
    e: int


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "is required"),
        ({"e": 1, "f": 2}, "unknown key"),
        ({"e": 1, "b": 3}, "Input should be a mapping of keys to values"),
        ({"e": 1, "c": 3}, "Input should be a list"),
        ({"e": 1, "c": []}, "Input should have at least 1 entry"),
        ({"e": 1, "d": "z"}, "Input should be 'x' or 'y', not 'z'"),
        ({"e": "true"}, "true is no number"),
        ({"e": 1, "f": "false"}, "unknown key"),
        ({"e": "one"}, "Input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_what_pydantic_refuses(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Given.model_validate(given)
    assert refusal(refused.value.errors()[0]) == said
