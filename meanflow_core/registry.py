"""One registry for every named, versioned piece of a study.

A *component* is a network, a data set, an objective, a time sampler, an optimiser, a transform, an observer
or a metric; or, of the user's own, a figure or the test of a claim. It is declared by a frozen parameter model
(torch-free, so that planning and reporting never load torch) and points at its implementation by an import path that
is followed only when it is built.

In a key a component stands as ``[name, version, parameters that differ from the version's defaults]``. So adding
an option moves no key, and changing a default demands a new version.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, InstanceOf, PlainSerializer, ValidationError

from meanflow_core.strict import Strict
from meanflow_core.words import refusal, there_is

KINDS = (
    "network",
    "data",
    "objective",
    "time_sampler",
    "optimiser",
    "transform",
    "observer",
    "metric",
    "figure",
    "claim",
)


READ_HORIZON = ("objective", "time_sampler", "optimiser", "transform")
"""Kinds whose components may read T."""


FAILURES = (Exception, SystemExit)
"""What code of the user's own may raise; where it ends the process, it has failed, too."""


class ComponentError(ValueError):
    """A component is unknown, registered twice, or given wrong parameters."""


class HorizonError(RuntimeError):
    """A component asked for the horizon T without having declared that it uses it."""


class Declared(NamedTuple):
    """What `component` says of a class."""

    kind: str
    version: int
    uses_horizon: bool


class Params(Strict):
    """Base of every component's parameters: typed, frozen, unknown names refused."""

    declared: ClassVar[Declared | None] = None

    observed: ClassVar[bool] = False
    """Of a metric: measured by an observer while training passes the step, since it needs the online weights."""

    any_weights: ClassVar[bool] = False
    """Of an observed metric: whoever observes it chooses the weights."""

    asks_network: ClassVar[bool] = False
    """Of a metric: it asks the network itself, and samples alone will not do."""

    distance: ClassVar[bool] = False
    """Of a metric: it compares samples with the data and asks for nothing else, so that it has a floor."""

    pictures: ClassVar[bool] = False
    """Of a metric: it keeps pictures beside its value."""

    def needs_check(self) -> bool:
        """Whether a run must look first if the component can be used: files may be missing, or data unsuited."""
        return False

    def damage(self) -> list[str]:
        """Of a data set: what is wrong with what this machine has of it; empty where it has nothing."""
        return []

    def reference_damage(self, reference: Any) -> list[str]:
        """Of a metric: what is wrong with what this machine has beside the data ``reference`` (a `Spec`) that it needs;
        empty where it has nothing."""
        return []

    def is_identity(self) -> bool:
        """Of a transform: whether it changes nothing. Such a transform vanishes from the dynamics and their key."""
        return False

    def reads_horizon(self) -> bool:
        """Of a component registered with ``uses_horizon``: whether it does with these parameters."""
        return True

    def problem_in(self, dynamics: Any) -> str | None:
        """Why it cannot be part of these dynamics (a `Dynamics`); None where it can."""
        return None

    def sample_shape(self) -> tuple[int, ...] | None:
        """Of a data set: the shape of one sample, for estimates of cost; None where only the data know it."""
        return None

    def class_count(self) -> int | None:
        """Of a data set: how many classes it has, for estimates of cost; None for data without labels."""
        return None

    def sample_count(self) -> int | None:
        """Of a finite data set: how many samples it has; None of others, or where only the data know."""
        return None

    def knows_fields(self) -> bool | None:
        """Of a data set: whether its exact v and u are known; None where only the data know."""
        return None

    def problem_on(self, shape: tuple[int, ...]) -> str | None:
        """Of a network: why it cannot be trained on samples of this shape; None where it can."""
        return None

    def problems_with(self, protocol: Any, data: Any) -> list[str]:
        """Of a metric: why it can never be measured under a protocol (a `Protocol`) on data of which the
        `components.facts.Facts` are known, with what would do. Files that a machine lacks are no such reason.
        """
        return []

    def forward_flops(self, shape: tuple[int, ...]) -> float | None:
        """Of a network: FLOPs of one forward pass on one sample, a multiply-add being 2; None where not known."""
        return None

    def parameter_count(self, shape: tuple[int, ...], num_classes: int | None) -> int | None:
        """Of a network: how many parameters it has; None where not known."""
        return None

    def label(self, name: str) -> str:
        """Of a metric called ``name``: its short name in tables and study files."""
        return name


@dataclass(frozen=True)
class Component:
    """A component: what it is called, its version, its parameters and where its code is; where that is None, the
    parameters' method ``build(context)`` makes it."""

    kind: str
    name: str
    version: int
    params: type[Params]
    impl: str | None
    uses_horizon: bool = False

    @property
    def short(self) -> str:
        """Its name without the hash of its source (`meanflow_core.own`)."""
        return self.name.partition("@")[0]

    def load(self) -> Callable[..., Any]:
        """What makes it of (params, BuildContext); ``impl`` ("package.module:attribute") is imported for it."""
        if self.impl is None:
            made: Callable[..., Any] = self.params.build  # type: ignore[attr-defined]
            return made
        module, _, attribute = self.impl.partition(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return loaded


_REGISTRY: dict[tuple[str, str], Component] = {}
P = TypeVar("P", bound=type[Params])
R = TypeVar("R")


def component(kind: str, *, version: int = 1, uses_horizon: bool = False) -> Callable[[P], P]:
    """Class decorator for a component of your own: a parameter model with a method ``build(self, context)``, to be
    named by ``use`` in a study file (`meanflow_core.own`).

    Raises: ComponentError for an unknown kind, or for one that cannot read T.
    """
    _check_kind(kind)
    if uses_horizon and kind not in READ_HORIZON:
        raise ComponentError(f"a {kind} cannot use the horizon T; {', '.join(READ_HORIZON)} can")

    def decorate(params: P) -> P:
        params.declared = Declared(kind, version, uses_horizon)
        return params

    return decorate


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ComponentError(f"unknown component kind '{kind}'; the kinds are {', '.join(KINDS)}")


def register(kind: str, name: str, *, version: int, impl: str, uses_horizon: bool = False) -> Callable[[P], P]:
    """Class decorator: register a parameter model as the component (kind, name).

    Raises: ComponentError for an unknown kind or a name that is taken.
    """
    _check_kind(kind)

    def decorate(params: P) -> P:
        if (kind, name) in _REGISTRY:
            raise ComponentError(f"the {kind} '{name}' is registered already")
        _REGISTRY[kind, name] = Component(kind, name, version, params, impl, uses_horizon)
        return params

    return decorate


def unregister(kind: str, name: str) -> None:
    """Forget a component (for tests and for reloading a user's file)."""
    _REGISTRY.pop((kind, name), None)


def _with_built_in() -> dict[tuple[str, str], Component]:
    """The registry, with the built-in components whoever asks first: importing their package registers them."""
    importlib.import_module("meanflow_core.components")
    return _REGISTRY


def components(kind: str | None = None) -> Iterator[Component]:
    """All registered components, of one kind or of all, sorted by kind and name."""
    for key in sorted(_with_built_in()):
        if kind is None or key[0] == kind:
            yield _REGISTRY[key]


def lookup(kind: str, name: str) -> Component:
    """The component (kind, name), of ours or of one's own. Raises: ComponentError that lists what there is."""
    from meanflow_core.own import found

    if (kind, name) not in _with_built_in():
        own = found(name)
        if own is None:
            known = there_is(name, (c.short for c in components(kind)))
            raise ComponentError(f"unknown {_words(kind)} '{name}'{known}")
        if own.kind != kind:
            raise ComponentError(f"'{own.short}' is a {_words(own.kind)}, not a {_words(kind)}")
        _REGISTRY[kind, name] = own
    return _REGISTRY[kind, name]


def _words(kind: str) -> str:
    return kind.replace("_", " ")


class BuildContext:
    """What a component may learn when it is built, besides its own parameters.

    ``horizon`` is guarded: a trajectory's key holds T only for components that declared ``uses_horizon``, so one
    that reads it undeclared would share prefixes falsely.
    """

    def __init__(self, component: Component, horizon_steps: int | None, **facts: Any) -> None:
        self._component = component
        self._horizon_steps = horizon_steps
        self.facts = facts

    @property
    def horizon(self) -> int:
        """T, the total number of steps of the trajectory. Raises: HorizonError if undeclared or unknown."""
        c = self._component
        if not c.uses_horizon:
            raise HorizonError(
                f"the {c.kind} '{c.short}' asked for the horizon T but is not registered with uses_horizon=True; "
                "its trajectories would share prefixes that differ"
            )
        if self._horizon_steps is None:
            raise HorizonError(f"the {c.kind} '{c.short}' needs the horizon T, and none was given")
        return self._horizon_steps


@dataclass(frozen=True)
class Spec:
    """A component chosen with its parameters, e.g. the network ``mlp`` with ``width = 96``."""

    component: Component
    params: Params

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def short(self) -> str:
        """Its name for people."""
        return self.component.short

    @property
    def uses_horizon(self) -> bool:
        return self.component.uses_horizon and self.params.reads_horizon()

    def canonical(self) -> list[Any]:
        """``[name, version, parameters that differ from the defaults]``, JSON-ready; this is what is hashed."""
        return [self.component.name, self.component.version, non_defaults(self.params)]

    def dump(self) -> dict[str, Any]:
        """The flat form of a study file: ``{name: ..., <every parameter>}``, JSON-ready."""
        return {"name": self.name, **self.params.model_dump(mode="json")}

    def build(self, horizon_steps: int | None = None, **facts: Any) -> Any:
        """Call the implementation with (params, BuildContext)."""
        return self.component.load()(self.params, BuildContext(self.component, horizon_steps, **facts))


def non_defaults(model: BaseModel, but: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a pydantic model (``but`` for some) whose values differ from their defaults, JSON-ready, in
    depth."""
    changed = {}
    for name, field in type(model).model_fields.items():
        if name not in but:
            value = getattr(model, name)
            if field.is_required() or value != field.get_default(call_default_factory=True):
                changed[name] = value
    dumped = model.model_dump(mode="json", include=set(changed)) if changed else {}
    return {k: non_defaults(value) if isinstance(value, Params) else dumped[k] for k, value in changed.items()}


def parse_spec(kind: str, value: Any) -> Spec:
    """Read ``mlp`` or ``{name: mlp, width: 96}`` as a component of the given kind.

    Raises: ComponentError naming the component and the offending parameter.
    """
    if isinstance(value, Spec):
        if value.component.kind != kind:
            raise ComponentError(f"'{value.short}' is a {value.component.kind}, not a {kind}")
        return value
    raw = {"name": value} if isinstance(value, str) else value
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise ComponentError(f"write the {_words(kind)} as a name or as {{name: ..., ...}}")
    component = lookup(kind, raw["name"])
    given = {k: v for k, v in raw.items() if k != "name"}
    try:
        return Spec(component, component.params.model_validate(given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "(its parameters)"
        said = refusal(first)
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            said = f"unknown parameter{there_is(where, component.params.model_fields)}"
        raise ComponentError(f"{_words(kind)} '{component.short}': {where}: {said}") from None
    except FAILURES as error:
        if component.params.declared is None:
            raise
        raise own_failure(component.params, error) from error


def own_failure(params: type[Params], error: BaseException) -> ComponentError:
    """What an error in a method of a user's class of parameters is told as: with file and line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _file_of(params)]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    return ComponentError(f"{where}{params.__name__} fails: {type(error).__name__}: {error}")


def _file_of(params: type[Params]) -> str | None:
    return getattr(sys.modules.get(params.__module__), "__file__", None)


def asked(params: Params, method: Callable[..., R], *args: Any) -> R:
    """What a method of parameters answers. Raises: ComponentError where it is a user's own and fails."""
    try:
        return method(*args)
    except FAILURES as error:
        if params.declared is None:
            raise
        raise own_failure(type(params), error) from error


def spec_field(kind: str) -> Any:
    """The pydantic field type for a component of one kind."""
    return Annotated[
        InstanceOf[Spec],
        BeforeValidator(lambda value: parse_spec(kind, value)),
        PlainSerializer(lambda spec: spec.dump()),
    ]
