"""Dual numbers on tensors: a primal computed as ever, and beside it a tangent computed under no_grad.

`Dual` implements ``__torch_function__``, so that functions written in plain PyTorch take it. Here are its arithmetic
and its shapes; the rules of neural-network functions stand in `meanflow_core.jvp`. What has no rule raises
`NoTangentRule`: nothing is ever guessed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

RULES: dict[Any, Callable[..., Any]] = {}

GRAPH: ContextVar[bool] = ContextVar("GRAPH", default=False)
"""Whether what is computed on duals must have an autograd graph."""


class NoTangentRule(TypeError):
    """An operation was applied to a `Dual` for which there is no rule here."""


def rule(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the tangent rule of some PyTorch functions."""

    def decorate(f: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            RULES[function] = f
        return f

    return decorate


def _check_graph() -> None:
    """Raises: NoTangentRule under ``no_grad``, as inside the forward of a `torch.autograd.Function`, which takes a
    `Dual` for no tensor and would lose the gradient of all before it."""
    if GRAPH.get() and not torch.is_grad_enabled():
        raise NoTangentRule("no tangent rule under no_grad, as in a torch.autograd.Function")


class Dual:
    """A value with its directional derivative, ``primal + ε·tangent`` with ε² = 0."""

    __slots__ = ("primal", "tangent")

    def __init__(self, primal: Tensor, tangent: Tensor) -> None:
        self.primal = primal
        self.tangent = tangent

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        _check_graph()
        found = RULES.get(func)
        if found is None:
            raise NoTangentRule(f"no tangent rule for {getattr(func, '__name__', func)}")
        try:
            return found(*args, **(kwargs or {}))
        except NoTangentRule:
            raise
        except (TypeError, AttributeError) as error:  # an option, or a tangent where the rule expects none
            name = getattr(func, "__name__", func)
            raise NoTangentRule(f"no tangent rule for {name} with these arguments ({error})") from error

    @property
    def shape(self) -> torch.Size:
        return self.primal.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.primal.dtype

    @property
    def device(self) -> torch.device:
        return self.primal.device

    @property
    def ndim(self) -> int:
        return self.primal.ndim

    def size(self, dim: int | None = None) -> Any:
        return self.primal.size(dim)

    def __add__(self, other: Any) -> Dual:
        _check_graph()
        return _add(self, other)

    def __radd__(self, other: Any) -> Dual:
        _check_graph()
        return _add(other, self)

    def __sub__(self, other: Any) -> Dual:
        _check_graph()
        return _sub(self, other)

    def __rsub__(self, other: Any) -> Dual:
        _check_graph()
        return _sub(other, self)

    def __mul__(self, other: Any) -> Dual:
        _check_graph()
        return _mul(self, other)

    def __rmul__(self, other: Any) -> Dual:
        _check_graph()
        return _mul(other, self)

    def __neg__(self) -> Dual:
        _check_graph()
        return Dual(-self.primal, -self.tangent)

    def __getitem__(self, index: Any) -> Dual:
        _check_graph()
        return Dual(self.primal[index], self.tangent[index])

    def sin(self) -> Dual:
        _check_graph()
        return _sin(self)

    def cos(self) -> Dual:
        _check_graph()
        return _cos(self)

    def __getattr__(self, name: str) -> Any:
        """Shape-only methods act alike on primal and tangent."""
        if name.startswith("__"):  # Python's own protocols ask politely
            raise AttributeError(name)
        _check_graph()
        if name not in _SHAPE_METHODS:
            raise NoTangentRule(f"no tangent rule for the method {name}")
        return functools.partial(_reshape_both, name, self)


def _refuse(name: str) -> Callable[..., Any]:
    def method(self: Dual, *args: Any) -> Any:
        raise NoTangentRule(f"no tangent rule for {name}")

    return method


# Python answers these itself where a class does not: == by identity, bool as true, += by rebinding a name.
_REFUSED = (
    "truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul abs eq ne lt le gt ge bool len int float "
    "index setitem iadd isub imul itruediv imatmul ipow"
)
for _name in _REFUSED.split():
    setattr(Dual, f"__{_name}__", _refuse(f"__{_name}__"))


_SHAPES = (
    "reshape view flatten unflatten transpose permute chunk split unbind squeeze unsqueeze expand contiguous to "
    "movedim repeat_interleave"
)
_SHAPE_METHODS = frozenset(_SHAPES.split())


def _reshape_both(name: str, x: Dual, *args: Any, **kwargs: Any) -> Any:
    primal = getattr(x.primal, name)(*args, **kwargs)
    if name == "to" and not primal.is_floating_point():
        raise NoTangentRule("no tangent rule for a cast to integers")
    with torch.no_grad():  # a tangent may be expanded, and then has no such view
        tangent = getattr(x.tangent, "reshape" if name == "view" else name)(*args, **kwargs)
    if isinstance(primal, tuple | list):
        return tuple(Dual(p, t) for p, t in zip(primal, tangent, strict=True))
    return Dual(primal, tangent)


for _name in _SHAPE_METHODS:
    rule(getattr(torch.Tensor, _name))(functools.partial(_reshape_both, _name))
    if hasattr(torch, _name):
        rule(getattr(torch, _name))(functools.partial(_reshape_both, _name))


def split(x: Any) -> tuple[Any, Tensor | None]:
    return (x.primal, x.tangent) if isinstance(x, Dual) else (x, None)


def _spread(tangent: Tensor, primal: Tensor) -> Dual:
    """A term's tangent as the sum's: of the sum's dtype (they differ under autocast) and shape."""
    return Dual(primal, tangent.to(primal.dtype).expand(primal.shape))


@rule(torch.Tensor.add, torch.add)
def _add(a: Any, b: Any) -> Dual:
    (pa, ta), (pb, tb) = split(a), split(b)
    primal = pa + pb
    with torch.no_grad():
        if ta is not None and tb is not None:
            return Dual(primal, ta + tb)
        return _spread(ta if ta is not None else tb, primal)  # type: ignore[arg-type]


@rule(torch.Tensor.neg, torch.neg)
def _neg(a: Dual) -> Dual:
    return -a


@rule(torch.Tensor.sub, torch.sub)
def _sub(a: Any, b: Any) -> Dual:
    (pa, ta), (pb, tb) = split(a), split(b)
    primal = pa - pb
    with torch.no_grad():
        if ta is not None and tb is not None:
            return Dual(primal, ta - tb)
        return _spread(ta if ta is not None else -tb, primal)  # type: ignore[operator]


@rule(torch.Tensor.mul, torch.mul)
def _mul(a: Any, b: Any) -> Dual:
    (pa, ta), (pb, tb) = split(a), split(b)
    primal = pa * pb
    with torch.no_grad():
        if ta is None:
            return Dual(primal, pa * tb)
        if tb is None:
            return Dual(primal, ta * pb)
        return Dual(primal, torch.addcmul(ta * pb, pa, tb))


@rule(torch.Tensor.sin, torch.sin)
def _sin(x: Dual) -> Dual:
    with torch.no_grad():
        tangent = x.primal.cos() * x.tangent
    return Dual(x.primal.sin(), tangent)


@rule(torch.Tensor.cos, torch.cos)
def _cos(x: Dual) -> Dual:
    with torch.no_grad():
        tangent = -x.primal.sin() * x.tangent
    return Dual(x.primal.cos(), tangent)


@rule(torch.cat, torch.concat)
def _cat(xs: Sequence[Any], dim: int = 0) -> Dual:
    pairs = [split(x) for x in xs]
    with torch.no_grad():
        tangent = torch.cat([torch.zeros_like(p) if t is None else t for p, t in pairs], dim)
    return Dual(torch.cat([p for p, _ in pairs], dim), tangent)
