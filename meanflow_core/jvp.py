"""du/dt without waste: the only place where the project differentiates forwards.

The total derivative of u_θ(z_t, r, t) along (v, 0, 1) is taken by carrying tangents beside the primal pass:

    primal   in grad mode, exactly the network's ordinary forward (fused attention included);
    tangent  under no_grad, reusing the primal's intermediates.

Arguments without a tangent (r, labels, every weight) are plain tensors, so no product with a zero tangent is ever
formed, and no autograd graph is built for du/dt, which the objective detaches anyway. A step on the u-loss costs about
4 forwards: primal 1, tangent 1, backward 2.

A network is written in plain PyTorch, and runs on `Dual` numbers (`meanflow_core.dual`). An operation without a rule is
never guessed: `jvp` then falls back to ``torch.func.jvp``, which knows all operations and costs more.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from meanflow_core.dual import GRAPH, Dual, NoTangentRule, rule, split

__all__ = ["Dual", "NoTangentRule", "generic_jvp", "jvp", "rule"]

log = logging.getLogger(__name__)


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
    (pq, tq), (pk, tk), (pv, tv) = split(q), split(k), split(v)
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
    graph = GRAPH.set(torch.is_grad_enabled())
    try:
        out = f(*(p if t is None else Dual(p, t.detach()) for p, t in pairs))
        if isinstance(out, Dual):
            return out.primal, out.tangent
        return out, torch.zeros_like(out)
    except NoTangentRule as reason:
        _say_fallback(str(reason))
    finally:
        GRAPH.reset(graph)
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

    at, along = tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving)
    with sdpa_kernel(SDPBackend.MATH):
        try:
            out: tuple[Tensor, Tensor] = torch.func.jvp(of_moving, at, along)  # type: ignore[assignment]
        except RuntimeError as error:
            if "mutate a captured Tensor" not in str(error):
                raise
            out = _forward_ad(of_moving, at, along)  # type: ignore[arg-type]
    return out[0], out[1].detach()


def _forward_ad(f: Callable[..., Tensor], at: Sequence[Tensor], along: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The same for a function that counts in a buffer, as batch norm in training does, which ``torch.func`` refuses."""
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(f(*(forward_ad.make_dual(x, t) for x, t in zip(at, along, strict=True))))
        return out.primal, torch.zeros_like(out.primal) if out.tangent is None else out.tangent
