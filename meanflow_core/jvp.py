"""du/dt without waste: the only place where the project differentiates forwards.

The total derivative of u_θ(z_t, r, t) along (v, 0, 1) is taken by carrying tangents beside the primal pass:

    primal   in grad mode, exactly the network's ordinary forward (fused attention included);
    tangent  under no_grad, reusing the primal's intermediates.

Arguments without a tangent (r, labels, every weight) are plain tensors, so no product with a zero tangent is ever
formed, and no autograd graph is built for du/dt, which the objective detaches anyway. A step on the u-loss costs about
4 forwards: primal 1, tangent 1, backward 2.

A network is written in plain PyTorch: `Dual` implements ``__torch_function__`` for the operations below. An operation
without a rule is never guessed: `jvp` then falls back to ``torch.func.jvp``, which knows all operations and costs more.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

log = logging.getLogger(__name__)

_RULES: dict[Any, Callable[..., Any]] = {}


class NoTangentRule(TypeError):
    """An operation was applied to a `Dual` for which there is no rule here."""


def rule(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the tangent rule of some PyTorch functions."""

    def decorate(f: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            _RULES[function] = f
        return f

    return decorate


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
        found = _RULES.get(func)
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
        return _add(self, other)

    def __radd__(self, other: Any) -> Dual:
        return _add(other, self)

    def __sub__(self, other: Any) -> Dual:
        return _sub(self, other)

    def __rsub__(self, other: Any) -> Dual:
        return _sub(other, self)

    def __mul__(self, other: Any) -> Dual:
        return _mul(self, other)

    def __rmul__(self, other: Any) -> Dual:
        return _mul(other, self)

    def __neg__(self) -> Dual:
        return Dual(-self.primal, -self.tangent)

    def __getitem__(self, index: Any) -> Dual:
        return Dual(self.primal[index], self.tangent[index])

    def sin(self) -> Dual:
        return _sin(self)

    def cos(self) -> Dual:
        return _cos(self)

    def __getattr__(self, name: str) -> Any:
        """Shape-only methods act alike on primal and tangent."""
        if name.startswith("__"):  # Python's own protocols ask politely
            raise AttributeError(name)
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


def _split(x: Any) -> tuple[Any, Tensor | None]:
    return (x.primal, x.tangent) if isinstance(x, Dual) else (x, None)


def _spread(tangent: Tensor, primal: Tensor) -> Dual:
    """A term's tangent as the sum's: of the sum's dtype (they differ under autocast) and shape."""
    return Dual(primal, tangent.to(primal.dtype).expand(primal.shape))


@rule(torch.Tensor.add, torch.add)
def _add(a: Any, b: Any) -> Dual:
    (pa, ta), (pb, tb) = _split(a), _split(b)
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
    (pa, ta), (pb, tb) = _split(a), _split(b)
    primal = pa - pb
    with torch.no_grad():
        if ta is not None and tb is not None:
            return Dual(primal, ta - tb)
        return _spread(ta if ta is not None else -tb, primal)  # type: ignore[operator]


@rule(torch.Tensor.mul, torch.mul)
def _mul(a: Any, b: Any) -> Dual:
    (pa, ta), (pb, tb) = _split(a), _split(b)
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
    pairs = [_split(x) for x in xs]
    with torch.no_grad():
        tangent = torch.cat([torch.zeros_like(p) if t is None else t for p, t in pairs], dim)
    return Dual(torch.cat([p for p, _ in pairs], dim), tangent)


@rule(F.linear)
def _linear(x: Dual, weight: Tensor, bias: Tensor | None = None) -> Dual:
    if isinstance(weight, Dual):
        raise NoTangentRule("no tangent rule for a linear map whose weight has a tangent")
    # The primal first: older autocast reuses a weight's cast made under no_grad, which passes no gradient on.
    primal = F.linear(x.primal, weight, bias)
    with torch.no_grad():
        return Dual(primal, F.linear(x.tangent, weight))


@rule(F.silu)
def _silu(x: Dual, inplace: bool = False) -> Dual:
    if inplace:
        raise NoTangentRule("no tangent rule for silu in place")
    with torch.no_grad():  # elementwise: the backward kernel is the JVP
        tangent = torch.ops.aten.silu_backward(x.tangent, x.primal)
    return Dual(F.silu(x.primal), tangent)


@rule(F.gelu)
def _gelu(x: Dual, approximate: str = "none") -> Dual:
    with torch.no_grad():
        tangent = torch.ops.aten.gelu_backward(x.tangent, x.primal, approximate=approximate)
    return Dual(F.gelu(x.primal, approximate=approximate), tangent)


@rule(F.layer_norm)
def _layer_norm(
    x: Dual,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Dual:
    """y = (x − μ)/σ has the symmetric Jacobian (I − 11ᵀ/n − yyᵀ/n)/σ, so its backward kernel is the JVP."""
    shape = list(normalized_shape)
    primal, mean, rstd = torch.native_layer_norm(x.primal, shape, weight, bias, eps)
    with torch.no_grad():
        value, tangent = x.primal.to(primal.dtype), x.tangent.to(primal.dtype).contiguous()
        tangent, _, _ = torch.ops.aten.native_layer_norm_backward(
            tangent, value, shape, mean, rstd, None, None, [True, False, False]
        )
        if weight is not None:
            tangent = tangent * weight
    return Dual(primal, tangent)


@rule(F.scaled_dot_product_attention)
def _attention(q: Any, k: Any, v: Any, **options: Any) -> Dual:
    """softmax(S)·V with S = QKᵀ/√d: dO = dP·V + P·dV, dP = P∘(dS − rowsum(P∘dS))."""
    if set(options) - {"scale"}:
        raise NoTangentRule("no tangent rule for attention with a mask, dropout or grouped heads")
    (pq, tq), (pk, tk), (pv, tv) = _split(q), _split(k), _split(v)
    primal = F.scaled_dot_product_attention(pq, pk, pv, **options)
    with torch.no_grad():
        scale = options.get("scale") or pq.shape[-1] ** -0.5
        p = (pq @ pk.transpose(-1, -2) * scale).softmax(-1)
        ds = 0.0
        if tq is not None:
            ds = ds + tq @ pk.transpose(-1, -2)
        if tk is not None:
            ds = ds + pq @ tk.transpose(-1, -2)
        tangent = torch.zeros_like(primal)
        if isinstance(ds, Tensor):
            pds = p * (ds * scale)
            tangent = (pds - p * pds.sum(-1, keepdim=True)) @ pv
        if tv is not None:
            tangent = tangent + p @ tv
    return Dual(primal, tangent)


@functools.cache
def _say_fallback(reason: str) -> None:
    log.warning("%s: taking du/dt by torch.func.jvp, which is slower but exact", reason)


def jvp(f: Callable[..., Any], primals: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """f(primals) and its derivative along tangents; None stands for a zero tangent.

    Args:
        f: a function of the primals, in plain PyTorch.
        primals: tensors.
        tangents: per primal a tensor of its shape, or None.
    Returns: (value with autograd graph, derivative without).
    """
    pairs = zip(primals, tangents, strict=True)
    try:
        out = f(*(p if t is None else Dual(p, t.detach()) for p, t in pairs))
        if isinstance(out, Dual):
            return out.primal, out.tangent
        return out, torch.zeros_like(out)
    except NoTangentRule as reason:
        _say_fallback(str(reason))
        return generic_jvp(f, primals, tangents)


def generic_jvp(
    f: Callable[..., Any], primals: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """The same by ``torch.func.jvp``, for any differentiable f. Fused attention has no forward mode, so the plain
    kernel is forced."""
    moving = [i for i, t in enumerate(tangents) if t is not None]

    def of_moving(*xs: Tensor) -> Tensor:
        args = list(primals)
        for i, x in zip(moving, xs, strict=True):
            args[i] = x
        result: Tensor = f(*args)
        return result

    with sdpa_kernel(SDPBackend.MATH):
        out: tuple[Tensor, Tensor] = torch.func.jvp(  # type: ignore[assignment]
            of_moving, tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving)
        )
    return out[0], out[1].detach()
