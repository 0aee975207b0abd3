"""The registry: what it refuses, what it guards, and that no built-in component changes its meaning unnoticed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import PositiveInt, ValidationError, create_model

from meanflow_core.config import Dynamics, key_of
from meanflow_core.registry import (
    KINDS,
    BuildContext,
    Component,
    ComponentError,
    HorizonError,
    Params,
    Spec,
    components,
    lookup,
    parse_spec,
    register,
)
from tests.golden import components as golden
from tests.meanflow_core import registered

IMPL = "tests.meanflow_core.test_registry:build"


class Width(Params):
    width: PositiveInt = 8
    rate: float = 0.5


class Empty(Params):
    pass


def build(params: Params, context: BuildContext) -> tuple[Params, BuildContext]:
    return params, context


def build_reading_horizon(params: Params, context: BuildContext) -> int:
    return context.horizon


# --- the golden file ---------------------------------------------------------------------------------------


def test_no_component_changed_its_meaning() -> None:
    now = golden.describe(golden.built_in())
    assert golden.broken_promises(golden.load(), now) == []


def test_golden_file_knows_every_component() -> None:
    now = golden.describe(golden.built_in())
    assert golden.news(golden.load(), now) == [], "run: python -m tests.golden.components --write"


def doctored(title: str, **changes: Any) -> golden.Golden:
    """The description of a registry in which one component was changed."""
    kind, name = title.split("/")
    found = [dataclasses.replace(c, **changes) if (c.kind, c.name) == (kind, name) else c for c in golden.built_in()]
    return golden.describe(found)


def with_field(params: type[Params], **fields: Any) -> type[Params]:
    return create_model(params.__name__, __base__=params, **fields)


ADAM = lookup("optimiser", "adam").params


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"params": with_field(ADAM, lr=(float, 3e-4))}, "the default of 'lr' went from 0.0001 to 0.0003"),
        ({"params": with_field(ADAM, beta3=(float, ...))}, "the new parameter 'beta3' has no default"),
        ({"params": Width}, "lost its parameter 'lr'"),
        ({"version": 0}, "went back from version 1 to 0"),
        ({"name": "adamw"}, "optimiser/adam is gone"),
    ],
)
def test_checker_sees_a_broken_promise(changes: dict[str, Any], complaint: str) -> None:
    if "beta3" in getattr(changes.get("params"), "model_fields", {}):
        now = golden.describe(c for c in golden.built_in() if c.name != "adam")
        entry = golden.load()["optimiser/adam"]
        now["optimiser/adam"] = {**entry, "defaults": golden.defaults(changes["params"])}
    else:
        now = doctored("optimiser/adam", **changes)
    assert any(complaint in line for line in golden.broken_promises(golden.load(), now))


def test_checker_sees_a_changed_default_of_the_configuration() -> None:
    now = golden.describe(golden.built_in())
    now["config/dynamics"]["defaults"]["ema_decay"] = 0.999
    (line,) = golden.broken_promises(golden.load(), now)
    assert "the default of 'ema_decay' went from 0.9999 to 0.999" in line


def test_checker_sees_a_moved_key() -> None:
    now = golden.describe(golden.built_in())
    now["network/mlp"]["key"] = "0" * 20
    assert golden.broken_promises(golden.load(), now) == ["network/mlp: its key moved without a new version"]


def test_a_new_version_may_change_defaults() -> None:
    now = doctored("optimiser/adam", version=2, params=with_field(ADAM, lr=(float, 3e-4)))
    assert golden.broken_promises(golden.load(), now) == []
    assert golden.news(golden.load(), now) == ["optimiser/adam has a new version 2"]


def test_adding_an_option_moves_no_key() -> None:
    more = with_field(ADAM, amsgrad=(bool, False))
    now = doctored("optimiser/adam", params=more)
    assert golden.broken_promises(golden.load(), now) == []
    assert golden.news(golden.load(), now) == ["optimiser/adam has a new parameter 'amsgrad'"]
    adam = lookup("optimiser", "adam")
    for given in ({}, {"lr": 3e-4, "warmup_steps": 7}):
        before = Spec(adam, ADAM.model_validate(given)).canonical()
        after = Spec(dataclasses.replace(adam, params=more), more.model_validate(given)).canonical()
        assert before == after


@pytest.mark.parametrize("c", golden.built_in(), ids=lambda c: f"{c.kind}/{c.name}")
def test_component_is_complete(c: Component) -> None:
    assert callable(c.load())
    assert c.params.__doc__, "every component says what it is"
    assert "name" not in c.params.model_fields, "'name' is the component's own name in a study file"


# --- what is refused ---------------------------------------------------------------------------------------


def test_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(ComponentError, match="unknown component kind 'netwrok'.*" + ", ".join(KINDS)):
        register("netwrok", "x", version=1, impl=IMPL)


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ComponentError, match="the network 'mlp' is registered already"):
        register("network", "mlp", version=1, impl=IMPL)(Width)
    assert lookup("network", "mlp").params is not Width


@pytest.mark.parametrize("kind", [k for k in KINDS if any(components(k))])
def test_unknown_name_lists_the_known(kind: str) -> None:
    with pytest.raises(ComponentError) as error:
        parse_spec(kind, "no_such_thing")
    assert "no_such_thing" in str(error.value)
    assert all(c.name in str(error.value) for c in components(kind))


def test_unknown_name_of_an_empty_kind() -> None:
    with registered("metric", "only", Empty, IMPL), pytest.raises(ComponentError, match="only"):
        lookup("metric", "other")


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("network", {"name": "mlp", "widht": 96}, ["mlp", "widht", "available: ", "width", "max_period"]),
        ("network", {"name": "mlp", "width": "wide"}, ["mlp", "width", "integer"]),
        ("network", {"name": "mlp", "width": 0}, ["mlp", "width", "greater than 0"]),
        ("network", {"name": "mlp", "width": 1.5}, ["mlp", "width", "integer"]),
        ("network", {"name": "mlp", "width": None}, ["mlp", "width"]),
        ("data", {"name": "stored", "dataset": "x", "fingerprint": 1.23e45}, ["fingerprint", "in quotes"]),
        ("data", {"name": "latents", "fingerprint": 12345}, ["fingerprint", "the number 12345"]),
        ("network", {"name": "mlp", 7: 1}, ["mlp", "7"]),
        ("network", {"name": "dit"}, ["dit", "depth", "required"]),
        ("network", {"name": "dit", "size": "B/3"}, ["dit", "B/3", "B/4", "XL/2"]),
        ("network", {"name": "dit", "size": ["B/4"]}, ["dit", "B/4"]),
        ("network", {"name": "dit", "size": "B/4", "heads": 7}, ["dit", "width 768", "heads (7)"]),
        ("optimiser", {"name": "adam", "lr": -1.0}, ["adam", "lr"]),
        ("optimiser", {"name": "adam", "lr": float("inf")}, ["adam", "lr", "finite"]),
        ("data", {"name": "gaussian", "mean": float("nan")}, ["gaussian", "mean", "finite"]),
        ("metric", {"name": "u_error", "lo": 0.5, "hi": 0.1}, ["u_error", "lo", "hi"]),
        ("metric", {"name": "frechet", "features": "vgg"}, ["frechet", "features", "digits_cnn"]),
        ("network", {"width": 3}, ["network", "name"]),
        ("network", 3, ["network", "name"]),
        ("network", None, ["network", "name"]),
        ("network", ["mlp"], ["network", "name"]),
    ],
)
def test_wrong_parameters_are_named(kind: str, value: Any, words: list[str]) -> None:
    with pytest.raises(ComponentError) as error:
        parse_spec(kind, value)
    for word in words:
        assert word in str(error.value)


def test_a_component_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="'digits' is a data, not a network"):
        Dynamics(network=parse_spec("data", "digits"), data="digits")


def test_parameters_are_frozen() -> None:
    with pytest.raises(ValidationError):
        parse_spec("network", "mlp").params.width = 3  # type: ignore[attr-defined]


# --- building and the horizon ------------------------------------------------------------------------------


def test_build_hands_over_parameters_and_facts() -> None:
    with registered("transform", "toy", Width, IMPL):
        params, context = parse_spec("transform", {"name": "toy", "width": 3}).build(None, shape=(2,))
    assert params == Width(width=3)
    assert context.facts == {"shape": (2,)}


def test_horizon_undeclared_is_refused_even_where_it_is_known() -> None:
    with registered("transform", "toy", Empty, f"{IMPL}_reading_horizon"):
        spec = parse_spec("transform", "toy")
        for horizon in (None, 100):
            with pytest.raises(HorizonError, match=r"'toy'.*uses_horizon=True"):
                spec.build(horizon)


def test_horizon_declared_is_given() -> None:
    with registered("transform", "toy", Empty, f"{IMPL}_reading_horizon", uses_horizon=True):
        spec = parse_spec("transform", "toy")
        assert spec.build(100) == 100
        with pytest.raises(HorizonError, match="none was given"):
            spec.build(None)


# --- canonical forms ---------------------------------------------------------------------------------------


def test_canonical_form_holds_what_differs() -> None:
    assert parse_spec("network", "mlp").canonical() == ["mlp", 1, {}]
    assert parse_spec("network", {"name": "mlp", "width": 96}).canonical() == ["mlp", 1, {"width": 96}]


def test_size_is_a_shorthand_and_not_in_the_key() -> None:
    by_size = parse_spec("network", {"name": "dit", "size": "B/4"})
    by_number = parse_spec("network", {"name": "dit", "depth": 12, "width": 768, "heads": 12, "patch": 4})
    assert by_size.canonical() == by_number.canonical()
    assert key_of(by_size.canonical()) == key_of(by_number.canonical())
    narrower = parse_spec("network", {"name": "dit", "size": "B/4", "width": 384})
    assert narrower.canonical()[2]["width"] == 384


def test_version_is_in_the_key() -> None:
    old = parse_spec("network", "mlp")
    new = Spec(dataclasses.replace(old.component, version=2), old.params)
    assert key_of(old.canonical()) != key_of(new.canonical())


@pytest.mark.parametrize("c", golden.built_in(), ids=lambda c: f"{c.kind}/{c.name}")
def test_dump_is_read_back(c: Component) -> None:
    spec = parse_spec(c.kind, {"name": c.name, **golden.MINIMAL.get(f"{c.kind}/{c.name}", {})})
    again = parse_spec(c.kind, spec.dump())
    assert again == spec
    assert again.canonical() == spec.canonical()
