"""A training step in small, before any is trained: what a component of the user's own cannot do, it cannot do here.

A few rows are trained on for a step, the state is saved and restored, and its network is measured: by the code that
does it later, and nothing is left of it. What components print goes to the standard error.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from meanflow_core.checkpoint import load_checkpoint, write_checkpoint
from meanflow_core.components.facts import Facts
from meanflow_core.config import Dynamics, Protocol
from meanflow_core.data.base import DataError, DataSet
from meanflow_core.evaluation.artefact import Kept
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.evaluate import as_number
from meanflow_core.evaluation.reference import problems_with
from meanflow_core.jvp import jvp
from meanflow_core.own import source_of
from meanflow_core.registry import Spec, asked
from meanflow_core.seeding import generator, seeded
from meanflow_core.state import buffers_of, load_state, unkept, untouched
from meanflow_core.trainer import Trainer, build_network
from sweeps.verify import differing
from sweeps.worker import process_restored

ROWS = 8
MOST_PARAMETERS = 200_000_000  # of a network that is tried here: with gradients, moments and averages, 4 GiB
MOST_SECONDS = 5.0  # of sampling for a metric of your own
SEED = 0


class Impossible(Exception):
    """Why it cannot be."""


class Failing(Impossible):
    """What fails here, on a CPU, and need not elsewhere."""


def rehearse(
    dynamics: Dynamics,
    horizon: int | None,
    observers: Sequence[Spec],
    protocols: Sequence[Protocol],
    device: str = "cpu",
) -> list[str]:
    """Why these dynamics cannot be trained on a device, saved and measured; empty if they can.

    It is tried on the CPU. Where the device is another, what fails there proves nothing: its kernels may be its own.
    """
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    specs = [*dynamics.specs(), *observers, *(protocol.metric for protocol in protocols)]
    with (
        process_restored(),
        contextlib.redirect_stdout(sys.stderr),
        warnings.catch_warnings(action="ignore", category=FutureWarning),  # torch's, of itself
        tempfile.TemporaryDirectory(prefix="study-rehearsal-") as scratch,
    ):
        try:
            _rehearse(dynamics, horizon, observers, protocols, Path(scratch))
        except Impossible as why:
            return [str(why)] if on_cpu or not isinstance(why, Failing) else []
        except Exception as error:  # whatever somebody's component may raise
            if not on_cpu:
                return []
            names = ", ".join(f"'{spec.short}'" for spec in specs if spec.params.declared)
            return [f"a training step of a few rows with {names} fails: {_told(error, specs)}"]
    return []


def _rehearse(
    dynamics: Dynamics, horizon: int | None, observers: Sequence[Spec], protocols: Sequence[Protocol], scratch: Path
) -> None:
    data, real = _data(dynamics.data)
    if data is None or _size(dynamics, data) > MOST_PARAMETERS:
        return
    if real and dynamics.data.params.declared:
        _check_data(dynamics.data, data)
    for protocol in protocols if real else ():
        for why in problems_with(protocol):
            raise Impossible(f"'{protocol.metric_label}' at {protocol.nfe} NFE cannot be measured: {why}")
    if dynamics.network.params.declared:
        _check_network(dynamics, data, protocols)
    trainer = _trained(dynamics, horizon, observers, data, scratch)
    observed = [protocol for protocol in protocols if protocol.observed and protocol.metric.params.declared]
    seen = trainer.measure(observed).values if observed else {}
    for protocol in observed:
        if protocol.key not in seen:
            raise Impossible(f"the metric '{protocol.metric.short}' has no value of the protocol {protocol.key}")
        as_number(protocol.metric_label, seen[protocol.key])
    network = build_network(dynamics, data, SEED).eval()
    load_state(network, trainer.ema_part())
    context = EvaluationContext(network, data)
    began = time.perf_counter()
    _check_output(dynamics.network, context.predict(*_inputs(data, context.conditional)), data)
    a_sample = (time.perf_counter() - began) / ROWS
    for protocol in protocols if real else ():
        ours = not protocol.observed and protocol.metric.params.declared
        if ours and a_sample * protocol.samples * protocol.nfe < MOST_SECONDS:
            _check_metric(protocol, context)


# --- data --------------------------------------------------------------------------------------------------


class StandIn(DataSet):
    """Noise in the place of data that this machine may lack."""

    def __init__(self, shape: tuple[int, ...], num_classes: int | None) -> None:
        self.shape, self.num_classes = shape, num_classes

    def batch(self, seed: int, step: int, batch_size: int, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
        rng = generator(seed, "stand-in", step)
        return torch.randn(batch_size, *self.shape, generator=rng).to(device), self.labels(batch_size, rng)

    def labels(self, n: int, rng: torch.Generator) -> Tensor | None:
        return None if self.num_classes is None else torch.randint(self.num_classes, (n,), generator=rng)

    def reference_samples(self, n: int) -> Tensor:
        return torch.randn(n, *self.shape, generator=generator(SEED, "stand-in reference"))


def _data(spec: Spec) -> tuple[DataSet | None, bool]:
    """The data, and whether they are those of the study; None where this machine does not even know their shape."""
    try:
        data: DataSet = spec.build()
        if not data.preflight():
            return data, True
    except (DataError, OSError):  # it lacks them, which is no fault of the study
        pass
    shape, classes = asked(spec.params, spec.params.sample_shape), asked(spec.params, spec.params.class_count)
    return (None if shape is None else StandIn(shape, classes)), False


def _check_data(spec: Spec, data: DataSet) -> None:
    """Raises: Impossible where data of your own are not what they or their parameters say."""
    said, name = Facts.of(spec), f"the data '{spec.short}'"
    if said.shape is not None and tuple(said.shape) != tuple(data.shape):
        raise Impossible(f"{name}: sample_shape() says {said.shape}, and what build() makes has {tuple(data.shape)}")
    classes = asked(spec.params, spec.params.class_count)
    if classes is not None and classes != data.num_classes:
        raise Impossible(f"{name}: class_count() says {classes}, and what build() makes has {data.num_classes}")
    (x, y), (again, labelled_again) = data.batch(SEED, 0, ROWS, "cpu"), data.batch(SEED, 0, ROWS, "cpu")
    if (x.dtype, tuple(x.shape)) != (torch.float32, (ROWS, *data.shape)):
        raise Impossible(f"{name}: a batch is {_kind(x)}, where float32 {(ROWS, *data.shape)} is wanted")
    if not x.isfinite().all():
        raise Impossible(f"{name}: a batch holds values that are not finite")
    if not torch.equal(x, again) or not (y is None or labelled_again is None or torch.equal(y, labelled_again)):
        raise Impossible(f"{name}: the batch of a step is another when asked again; draw it from (seed, step) alone")
    reference = data.reference_samples(ROWS)
    if reference.dtype != torch.float32 or tuple(reference.shape[1:]) != tuple(data.shape) or len(reference) < 2:
        wanted = f"float32 (at least 2, {', '.join(map(str, data.shape))})"
        raise Impossible(f"{name}: reference_samples() gives {_kind(reference)}, where {wanted} is wanted")
    if not reference.isfinite().all():
        raise Impossible(f"{name}: reference_samples() holds values that are not finite")
    labels = data.labels(ROWS, generator(SEED, "rehearsal"))
    for what, given in (("labels of a batch", y), ("labels()", labels)):
        if (given is None) != (data.num_classes is None):
            raise Impossible(f"{name}: num_classes is {data.num_classes}, and the {what} are {_kind(given)}")
        if given is None or data.num_classes is None:
            continue
        if (given.dtype, tuple(given.shape)) != (torch.int64, (ROWS,)):
            raise Impossible(f"{name}: the {what} are {_kind(given)}, where int64 {(ROWS,)} is wanted")
        if not 0 <= int(given.min()) <= int(given.max()) < data.num_classes:
            raise Impossible(f"{name}: the {what} are not in 0 … {data.num_classes - 1}")


# --- the network -------------------------------------------------------------------------------------------


def _size(dynamics: Dynamics, data: DataSet) -> int:
    """How many parameters the network has, without memory for them; 0 where that cannot be told."""
    try:
        with torch.device("meta"):
            network = dynamics.network.build(shape=data.shape, num_classes=data.num_classes)
        return sum(p.numel() for p in network.parameters())
    except Exception:  # it needs numbers to be made: so it is made, and says what is wrong
        return 0


def _inputs(data: DataSet, labelled: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    rng = generator(SEED, "rehearsal")
    z, (r, t) = torch.randn(ROWS, *data.shape, generator=rng), torch.rand(2, ROWS, generator=rng).sort(0).values
    return z, r, t, data.labels(ROWS, rng) if labelled else None


def _check_network(dynamics: Dynamics, data: DataSet, protocols: Sequence[Protocol]) -> None:
    """Raises: Impossible where a network of your own cannot be trained, kept or measured."""
    spec, name = dynamics.network, f"the network '{dynamics.network.short}'"
    try:
        network = build_network(dynamics, data, SEED)
    except Exception as error:
        if isinstance(error, AttributeError) and "'to'" in str(error):
            raise Impossible(f"{name}: build() returns no torch.nn.Module") from None
        raise Failing(f"{name} cannot be built: {_told(error, [spec])}") from None
    if not isinstance(network, nn.Module):
        raise Impossible(f"{name}: build() returns a {type(network).__name__}, and no torch.nn.Module")
    for why in unkept(network):
        raise Impossible(f"{name}: {why}")
    labelled = data.num_classes is not None
    inputs = _inputs(data, labelled)
    kept = [None if x is None else x.clone() for x in inputs]
    with Watching(inputs[3]) as watching, torch.no_grad():
        try:
            out = network(*inputs)
        except Exception as error:
            shown = ", ".join(f"{n} {_kind(x)}" for n, x in zip("zrty", inputs, strict=True))
            raise Failing(f"{name} fails on {shown}: {_told(error, [spec])}") from None
    _check_output(spec, out, data)
    for n, before, after in zip("zrty", kept, inputs, strict=True):
        if before is not None and after is not None and not torch.equal(before, after):
            raise Impossible(f"{name} changes its argument {n} in place: work on a copy")
    used = watching.seen or (getattr(network, "conditional", False) and _differs_by_label(network, inputs, data))
    conditional = labelled and _takes_labels(spec, network, used)
    if conditional and dynamics.label_dropout:
        _check_null_label(spec, network, inputs, data)
    if not conditional and (dynamics.guidance is not None or any(_guided(protocol) for protocol in protocols)):
        raise Impossible(f"{name} takes no labels, and guidance is between classes: leave it out")
    _check_derivative(spec, network, inputs, data)


def _guided(protocol: Protocol) -> bool:
    return getattr(protocol.metric.params, "guidance", None) is not None


# What asks a tensor for its shape, type or device alone.
OF_SHAPE = {"__get__", "size", "dim", "ndimension", "numel", "__len__", "is_floating_point", "stride", "is_contiguous"}
OF_SHAPE |= {f"new_{kind}" for kind in ("zeros", "ones", "full", "empty", "tensor")}
OF_SHAPE |= {f"{kind}_like" for kind in ("zeros", "ones", "full", "empty", "rand", "randn")}


class Watching(TorchFunctionMode):
    """Notes whether some tensor is computed with; asking for its shape or device is no such thing."""

    def __init__(self, tensor: Tensor | None) -> None:
        super().__init__()
        self.tensor, self.seen = tensor, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.tensor is not None and getattr(func, "__name__", "") not in OF_SHAPE:
            given = [*args, *(kwargs or {}).values()]
            parts = [part for one in given for part in (one if isinstance(one, list | tuple) else [one])]
            self.seen = self.seen or any(part is self.tensor for part in parts)
        return func(*args, **(kwargs or {}))


def _differs_by_label(network: nn.Module, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], data: DataSet) -> bool:
    """Whether labels matter to a network that says so and looks at them where no one sees it, as a scripted module."""
    z, r, t, y = inputs
    if y is None or data.num_classes is None or data.num_classes < 2:
        return False
    moved, rng = copy.deepcopy(network).eval(), generator(SEED, "rehearsal labels")
    with torch.no_grad():
        for p in moved.parameters():  # away from zeros of the start, behind which nothing is seen
            p.add_(0.02 * torch.randn(p.shape, generator=rng, dtype=p.dtype))
        with seeded(SEED):
            one = moved(z, r, t, y)
        with seeded(SEED):
            other = moved(z, r, t, (y + 1) % data.num_classes)
    return not torch.equal(one, other)


def _takes_labels(spec: Spec, network: nn.Module, used: bool) -> bool:
    """What a network takes in training and what it is given when measured are one: what ``conditional`` says. Raises:
    Impossible where it is not so."""
    said, name = getattr(network, "conditional", None), f"the network '{spec.short}'"
    if used and not said:
        raise Impossible(
            f"{name} takes labels and does not say so, and would be measured without them: set 'conditional = True' on "
            "the module, or leave y alone"
        )
    if said and not used:
        raise Impossible(f"{name} says that it takes labels and does not look at them: set 'conditional = False'")
    return used


def _check_null_label(
    spec: Spec, network: nn.Module, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], data: DataSet
) -> None:
    null = torch.full((ROWS,), data.num_classes)  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            network(*inputs[:3], null)
    except Exception as error:
        said = f"fails on a dropped label, which is {data.num_classes}: {_told(error, [spec])}"
        raise Failing(f"the network '{spec.short}' {said}") from None


def _check_output(spec: Spec, out: Any, data: DataSet) -> None:
    name, wanted = f"the network '{spec.short}'", (ROWS, *data.shape)
    if not isinstance(out, Tensor) or tuple(out.shape) != wanted:
        raise Impossible(f"{name} returns {_kind(out)} for z of {wanted}: u has the shape of z")
    if out.dtype != torch.float32:
        raise Impossible(f"{name} returns {_kind(out)} for z in float32: end with .to(z.dtype)")


def _check_derivative(
    spec: Spec, network: nn.Module, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], data: DataSet
) -> None:
    """Raises: Impossible where du/dt cannot be taken, or the pass that takes it has another value or gradient."""
    z, r, t, y = inputs
    rng, name = generator(SEED, "rehearsal derivative"), f"the network '{spec.short}'"
    along, weight = (torch.randn(z.shape, generator=rng) for _ in range(2))
    trained = [p for p in network.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in trained:  # away from zeros of the start, behind which nothing is seen
            p.add_(0.02 * torch.randn(p.shape, generator=rng, dtype=p.dtype))

    def gradient(u: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((u * weight).sum(), trained, allow_unused=True, materialize_grads=True))

    with untouched(network), seeded(SEED):
        u = network(z, r, t, y)
        plain = gradient(u)
    with untouched(network), seeded(SEED):
        if not _close(network(z, r, t, y), u):
            raise Impossible(f"{name} has other values for the same input: what it draws, it draws by torch alone")
    with untouched(network), seeded(SEED):
        try:
            value, _ = jvp(lambda z, r, t: network(z, r, t, y), (z, r, t), (along, None, torch.ones_like(t)))
        except Exception as error:
            raise Failing(
                f"{name}: du/dt cannot be taken through it; write it with operations that torch differentiates "
                f"forwards (a torch.autograd.Function needs a jvp): {_told(error, [spec])}"
            ) from None
        same = _close(value, u) and all(_close(a, b) for a, b in zip(gradient(value), plain, strict=True))
    if not same:
        raise Impossible(
            f"{name}: in the pass that takes du/dt its gradient is not that of its forward pass, as with a "
            "torch.autograd.Function that returns its input: write it with plain operations"
        )


def _close(a: Tensor, b: Tensor) -> bool:
    a, b = a.detach().double(), b.detach().double()
    return bool((a - b).norm() <= 1e-3 * b.norm() + 1e-6)


# --- training and measuring --------------------------------------------------------------------------------


def _trained(
    dynamics: Dynamics, horizon: int | None, observers: Sequence[Spec], data: DataSet, scratch: Path
) -> Trainer:
    """A trainer after a step of a few rows. Raises: Impossible where saved and restored it would be another. (That it
    goes on as if nothing had been is what `study verify` checks.)"""
    share = dynamics.fm_ratio if dynamics.fm_ratio in (0.0, 1.0) else 0.5
    small = dynamics.model_copy(update={"batch_size": ROWS, "fm_ratio": share})

    def trainer() -> Trainer:
        return Trainer(small, SEED, horizon_steps=horizon, observers=observers, divergence=float("inf"), data=data)

    one = trainer()
    passing = {name: b.clone() for name, b in _passing(one.network).items()}
    one.advance(log=True)
    for name, after in _passing(one.network).items():
        if name in passing and not torch.equal(passing[name], after):
            raise Impossible(
                f"the network '{dynamics.network.short}' changes its buffer '{name}', which is not kept: register it "
                "with persistent=True"
            )
    write_checkpoint(scratch / "checkpoint", one.parts(), {"step": 1})
    other = trainer()
    other.restore(load_checkpoint(scratch / "checkpoint").parts, 1)
    if odd := differing(one.parts(), other.parts()):
        raise Impossible(f"what is saved is not what is restored ({', '.join(odd[:3])}): see state_dict and buffers")
    return one


def _passing(network: nn.Module) -> dict[str, Tensor]:
    kept = buffers_of(network)
    return {name: buffer for name, buffer in network.named_buffers() if name not in kept}


def _check_metric(protocol: Protocol, context: EvaluationContext) -> None:
    """Raises: Impossible where a metric of your own fails on what is hardly trained, or returns no number."""
    name = f"the metric '{protocol.metric.short}'"
    try:
        found = as_number(protocol.metric_label, protocol.metric.build().compute(context, protocol))
    except EvaluationError as error:
        raise Failing(f"{name}: {error}") from None
    except Exception as error:
        raise Failing(f"{name} fails: {_told(error, [protocol.metric])}") from None
    if isinstance(found, Kept) and not (isinstance(found.artefact, np.ndarray) and found.artefact.dtype == np.uint8):
        raise Impossible(f"{name} keeps {_kind(found.artefact)}, where an array of uint8 is wanted")


def _kind(value: Any) -> str:
    """``float32 (8, 1, 8, 8)``, or what else it is."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.dtype} {tuple(value.shape)}".replace("torch.", "")
    return "None" if value is None else type(value).__name__


def _told(error: Exception, specs: Sequence[Spec]) -> str:
    """An error with the last line of the user's own on the way to it."""
    files = {source.file for spec in specs if (source := source_of(spec.name))}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    said = str(error).strip().splitlines()
    return f"{where}{type(error).__name__}: {said[0]}" if said else f"{where}{type(error).__name__}"
