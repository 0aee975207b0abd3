"""What is kept of a network: its parameters and its persistent buffers, each tensor once.

A parameter under several names (tied weights) stands under its first. EMA weights are averaged; buffers are not: what
is kept of EMA weights has the buffers as they are in training, running statistics and counters alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

FLOATS = (torch.float32, torch.float64)


def parameters_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by its first name."""
    return dict(network.named_parameters())


def buffers_of(network: nn.Module) -> dict[str, Tensor]:
    """Every persistent buffer by its first name, as it is now: a module may put another tensor in its place."""
    kept = network.state_dict().keys()
    return {name: buffer for name, buffer in network.named_buffers() if name in kept}


def put(into: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> None:
    """Copy kept tensors, name by name. Raises: ValueError where names, shapes or dtypes differ."""
    if odd := sorted(into.keys() ^ part.keys()):
        lacks = [name for name in odd if name in into]
        said = f"it lacks {', '.join(lacks[:3])}" if lacks else f"the network has no {', '.join(odd[:3])}"
        raise ValueError(f"its tensors differ: {said}" + (", ..." if len(odd) > 3 else ""))
    with torch.no_grad():
        for name, target in into.items():
            given = part[name]
            if (given.shape, given.dtype) != (target.shape, target.dtype):
                its, ours = (f"{x.dtype} {tuple(x.shape)}" for x in (given, target))
                raise ValueError(f"its {name} is {its}, and the network's {ours}".replace("torch.", ""))
            target.copy_(given)


def load_state(network: nn.Module, part: Mapping[str, Tensor]) -> None:
    """Put the kept tensors of a checkpoint's part into a network. Raises: ValueError where they do not fit."""
    put({**{name: p.data for name, p in parameters_of(network).items()}, **buffers_of(network)}, part)


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Afterwards all buffers, and torch's global random numbers, are as before: looking changes nothing."""
    before = [  # a module may put another tensor in a buffer's place
        (module, name, buffer, buffer.clone())
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    with torch.random.fork_rng(devices=list({p.device for p in network.parameters() if p.is_cuda})):
        try:
            yield
        finally:
            with torch.no_grad():
                for module, name, buffer, value in before:
                    buffer.copy_(value)
                    setattr(module, name, buffer)


def unkept(network: nn.Module) -> Iterator[str]:
    """Why the state of a network cannot be kept, averaged or trained, with what would do."""
    if lazy := [name for name, p in (*network.named_parameters(), *network.named_buffers()) if is_lazy(p)]:
        yield f"'{lazy[0]}' is lazy and has no shape yet: call the module once in build(), or give it its sizes"
        return
    parameters = parameters_of(network)
    if not any(p.requires_grad for p in parameters.values()):
        yield "it has no parameter that requires a gradient: there is nothing to train"
    for name, p in parameters.items():
        if p.dtype not in FLOATS:
            yield (
                f"the parameter '{name}' is {p.dtype}".replace("torch.", "")
                + ": weights are float32 or float64 (a moving average of fewer bits stands still; precision: bf16 "
                "computes in them; of a complex number keep the two parts)"
            )
            break
    tensors = [*parameters.items(), *buffers_of(network).items()]
    placed = sorted((t.untyped_storage().data_ptr(), name) for name, t in tensors if t.numel() and not t.is_meta)
    for _, alike in groupby(placed, key=lambda one: one[0]):
        if len(names := [name for _, name in alike]) > 1:
            yield f"{' and '.join(map(repr, names))} share memory: to tie weights, give both names the one Parameter"
            break
    for name, module in network.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield f"the module '{name or type(network).__name__}' keeps an extra state: make it tensors in buffers"
            break
