"""What the numbers of an arm are called in other trackers: each protocol by a name of its own, for good."""

from __future__ import annotations

from typing import Any

import pytest

from meanflow_core.config import Protocol
from sweeps.exports.series import names_of

PIXEL: dict[str, Any] = {"name": "frechet", "features": "pixel"}


def protocol(**changes: Any) -> Protocol:
    return Protocol.model_validate({"metric": PIXEL, "samples": 2000, "reference": "digits", **changes})


def named(*protocols: Protocol, first: Protocol | None = None) -> list[str]:
    """Their names, where an earlier run had declared one of them."""
    declared = {p.key: "2" for p in protocols} | ({first.key: "1"} if first else {})
    names = names_of(protocols, declared)
    return [names[p.key] for p in protocols]


@pytest.mark.parametrize(
    ("change", "longer"),
    [
        ({"weights": "online"}, "_online"),
        ({"samples": 500}, "_500samples"),
        ({"seed": 3}, "_seed3"),
        ({"precision": "tf32"}, "_tf32"),
        ({"weights": "online", "samples": 500}, "_online_500samples"),
    ],
)
def test_by_what_differs(change: dict[str, Any], longer: str) -> None:
    plain, other = protocol(), protocol(**change)
    short = "frechet_pixel/1nfe"
    assert named(plain) == named(other) == [short]
    assert named(plain, other) == [short, short + longer]
    assert named(other, plain) == [short + longer, short], "whatever their order"


def test_what_was_there_first_keeps_its_name() -> None:
    plain, online, few = protocol(), protocol(weights="online"), protocol(samples=500)
    assert named(plain, online, first=online) == ["frechet_pixel/1nfe_ema", "frechet_pixel/1nfe"]
    assert named(few, plain, online, first=online)[1:] == ["frechet_pixel/1nfe_ema", "frechet_pixel/1nfe"]


def test_other_nfe_solvers_and_metrics_are_names_of_their_own() -> None:
    many = [protocol(nfe=2), protocol(nfe=2, solver="euler"), protocol(metric={"name": "frechet"})]
    assert named(*many) == ["frechet_pixel/2nfe", "frechet_pixel/2nfe_euler", "frechet_digits_cnn/1nfe"]


def test_parameters_and_references() -> None:
    kid = [protocol(metric={"name": "kid", "subset_size": size}) for size in (1000, 500)]
    assert set(named(*kid)) in ({"kid_digits_cnn/1nfe", f"kid_digits_cnn/1nfe_subset_size{n}"} for n in (500, 1000))
    guidance = {"cfg_omega": 1.0, "cfg_kappa": 0.5}
    errors = [protocol(metric={"name": "v_error", **more}, reference="gmm") for more in ({}, {"guidance": guidance})]
    names = named(*errors, first=errors[0])
    assert names[0] == "v_error/1nfe" and "cfg_kappa0.5" in names[1]
    elsewhere = protocol(reference="gmm")
    assert named(protocol(), elsewhere, first=protocol())[1] == f"frechet_pixel/1nfe_{elsewhere.key[:8]}"
    assert len(set(named(*kid, *errors, elsewhere, protocol()))) == 6
