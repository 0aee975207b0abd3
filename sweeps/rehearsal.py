"""A training step in small, before any is trained: what a component of the user's own cannot do, it cannot do here.

A few rows are trained on for a step, the state is saved and restored, and its network is measured: by the code that
does it later, and nothing is left of it. What does not go with a few rows is tried with the study's own batch before
it is refused. What components print goes to the standard error.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from meanflow_core.evaluation.context import Draw, EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError, WrongResult
from meanflow_core.evaluation.evaluate import measure
from meanflow_core.evaluation.reference import problems_with
from meanflow_core.flops import parameter_count
from meanflow_core.jvp import jvp
from meanflow_core.own import source_of
from meanflow_core.registry import FAILURES, Spec, asked
from meanflow_core.samplers import DEFAULT_BATCH, Network
from meanflow_core.seeding import generator, seeded
from meanflow_core.state import buffers_of, load_state, unkept, untouched
from meanflow_core.trainer import Trainer, build_network
from sweeps.verify import differing
from sweeps.worker import process_restored

ROWS, V_ROWS = 8, 5  # of a step in small, and those of them that train v where some train u
MOST_PARAMETERS = 200_000_000  # of a network that is tried on so many rows: with gradients, moments and averages, 4 GiB
MOST_SECONDS = 5.0  # of a forward pass in the study's own size, or of sampling for a metric of your own
SEED = 0
MOVED = 0.02  # how far weights are moved from their start

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""(z, r, t, y) as a network takes them."""


class Impossible(Exception):
    """Why it cannot be."""


class Failing(Impossible):
    """What fails here, on a CPU, and need not elsewhere."""


class TooLarge(Exception):
    """A network cannot be tried here on so many rows."""


def rehearse(
    dynamics: Dynamics,
    horizon: int | None,
    observers: Sequence[Spec],
    protocols: Sequence[Protocol],
    device: str = "cpu",
) -> list[str]:
    """Why these dynamics cannot be trained on a device, saved and measured; empty if they can.

    It is tried on the CPU, on a few rows, and where that fails on a whole batch. Where the device is another, what
    fails proves nothing: its kernels may be its own.
    """
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    specs = [*dynamics.specs(), *observers, *(protocol.metric for protocol in protocols)]
    share = V_ROWS / ROWS if 0 < dynamics.fm_ratio < 1 else dynamics.fm_ratio
    small = dynamics.model_copy(update={"batch_size": ROWS, "fm_ratio": share})
    said: list[str] = []
    for tried in (small, dynamics) if dynamics.batch_size > ROWS else (dynamics,):
        try:
            with aside(), tempfile.TemporaryDirectory(prefix="study-rehearsal-") as scratch:
                _rehearse(tried, dynamics, horizon, observers, protocols, Path(scratch))
            return []
        except TooLarge:  # what was said of fewer rows stands
            return [f"{why} (tried on {ROWS} rows; {tried.batch_size} are too many to be tried here)" for why in said]
        except Impossible as why:
            said, proven = [str(why)], not isinstance(why, Failing)
        except FAILURES as error:  # whatever somebody's component may raise
            names = ", ".join(f"'{spec.short}'" for spec in specs if spec.params.declared)
            said, proven = [f"a training step of a few rows with {names} fails: {_told(error, specs)}"], False
        if not (on_cpu or proven):
            return []
    return said


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """What components of the user's own do to the process is undone, and what they print goes to the standard error."""
    with (
        process_restored(),
        contextlib.redirect_stdout(sys.stderr),
        warnings.catch_warnings(action="ignore", category=FutureWarning),  # torch's, of itself
    ):
        yield


def _rehearse(
    dynamics: Dynamics,
    study: Dynamics,
    horizon: int | None,
    observers: Sequence[Spec],
    protocols: Sequence[Protocol],
    scratch: Path,
) -> None:
    """A step of ``dynamics``, which are the study's, maybe with fewer rows."""
    data, real = _data(dynamics.data)
    if data is None:
        return
    if real and dynamics.data.params.declared:
        _check_data(dynamics.data, data, study.batch_size)
    for protocol in protocols if real else ():
        for why in problems_with(protocol):
            raise Impossible(f"'{protocol.metric_label}' at {protocol.nfe} NFE cannot be measured: {why}")
    network = _network(dynamics, data)
    if dynamics.network.params.declared:
        _check_network(dynamics, network, data, protocols)
    trainer, restored = _trained(dynamics, network, horizon, observers, data, scratch)
    if observed := [protocol for protocol in protocols if protocol.observed and protocol.metric.params.declared]:
        try:
            trainer.measure(observed)
        except WrongResult as error:
            raise Impossible(str(error)) from None
        except EvaluationError:  # which it may say of weights that are hardly trained
            pass
    network = restored.network.eval()
    load_state(network, trainer.ema_part())
    context = EvaluationContext(network, data)
    began = time.perf_counter()
    _ask(dynamics.network, network, _inputs(data, dynamics.batch_size, context.conditional))
    a_row = (time.perf_counter() - began) / dynamics.batch_size
    if dynamics.network.params.declared:
        for rows in [n for n in _passes(study, protocols) if a_row * n < MOST_SECONDS] or [ROWS - 1]:
            _ask(dynamics.network, network, _inputs(data, rows, context.conditional))
    for protocol in protocols if real else ():
        ours = not protocol.observed and protocol.metric.params.declared
        if ours and a_row * protocol.samples * protocol.nfe < MOST_SECONDS:
            _check_metric(protocol, context)


def _passes(study: Dynamics, protocols: Sequence[Protocol]) -> list[int]:
    """How many rows a network is given at once, in training and when it is sampled from."""
    samples = {protocol.samples for protocol in protocols if not protocol.observed}
    sampled = {rows for n in samples for rows in (min(n, DEFAULT_BATCH), n % DEFAULT_BATCH)}
    return sorted({study.v_rows, study.batch_size - study.v_rows, *sampled} - {0})


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


def _check_data(spec: Spec, data: DataSet, rows: int) -> None:
    """Raises: Impossible where data of your own are not what they or their parameters say."""
    said, name = Facts.of(spec), f"the data '{spec.short}'"
    if said.shape is not None and tuple(said.shape) != tuple(data.shape):
        raise Impossible(f"{name}: sample_shape() says {said.shape}, and what build() makes has {tuple(data.shape)}")
    classes = asked(spec.params, spec.params.class_count)
    if classes is not None and classes != data.num_classes:
        raise Impossible(f"{name}: class_count() says {classes}, and what build() makes has {data.num_classes}")
    (x, y), (again, labelled_again) = data.batch(SEED, 0, rows, "cpu"), data.batch(SEED, 0, rows, "cpu")
    if (x.dtype, tuple(x.shape)) != (torch.float32, (rows, *data.shape)):
        raise Impossible(f"{name}: a batch is {_kind(x)}, where float32 {(rows, *data.shape)} is wanted")
    if not x.isfinite().all():
        raise Impossible(f"{name}: a batch holds values that are not finite")
    if not torch.equal(x, again) or not (y is None or labelled_again is None or torch.equal(y, labelled_again)):
        raise Impossible(f"{name}: the batch of a step is another when asked again; draw it from (seed, step) alone")
    reference = data.reference_samples(rows)
    if reference.dtype != torch.float32 or tuple(reference.shape[1:]) != tuple(data.shape) or len(reference) < 2:
        wanted = f"float32 (at least 2, {', '.join(map(str, data.shape))})"
        raise Impossible(f"{name}: reference_samples() gives {_kind(reference)}, where {wanted} is wanted")
    if not reference.isfinite().all():
        raise Impossible(f"{name}: reference_samples() holds values that are not finite")
    labels = data.labels(rows, generator(SEED, "rehearsal"))
    for what, given in (("labels of a batch", y), ("labels()", labels)):
        if (given is None) != (data.num_classes is None):
            raise Impossible(f"{name}: num_classes is {data.num_classes}, and the {what} are {_kind(given)}")
        if given is None or data.num_classes is None:
            continue
        if (given.dtype, tuple(given.shape)) != (torch.int64, (rows,)):
            raise Impossible(f"{name}: the {what} are {_kind(given)}, where int64 {(rows,)} is wanted")
        if not 0 <= int(given.min()) <= int(given.max()) < data.num_classes:
            raise Impossible(f"{name}: the {what} are not in 0 … {data.num_classes - 1}")


# --- the network -------------------------------------------------------------------------------------------


def _network(dynamics: Dynamics, data: DataSet) -> nn.Module:
    """Raises: Impossible where it is none that can be kept or trained; TooLarge where it cannot be tried."""
    spec, name = dynamics.network, f"the network '{dynamics.network.short}'"
    most = MOST_PARAMETERS * ROWS // max(dynamics.batch_size, ROWS)
    if (parameter_count(spec.params, data.shape, data.num_classes) or 0) > most:
        raise TooLarge
    try:
        network = build_network(dynamics, data, SEED)
    except FAILURES as error:
        if isinstance(error, AttributeError) and "'to'" in str(error):
            raise Impossible(f"{name}: build() returns no torch.nn.Module") from None
        raise Failing(f"{name} cannot be built: {_told(error, [spec])}") from None
    if not isinstance(network, nn.Module):
        raise Impossible(f"{name}: build() returns a {type(network).__name__}, and no torch.nn.Module")
    for why in unkept(network):
        raise Impossible(f"{name}: {why}")
    if sum(p.numel() for p in network.parameters()) > most:
        raise TooLarge
    return network


def _inputs(data: DataSet, rows: int, labelled: bool) -> Inputs:
    rng = generator(SEED, "rehearsal")
    z, (r, t) = torch.randn(rows, *data.shape, generator=rng), torch.rand(2, rows, generator=rng).sort(0).values
    return z, r, t, data.labels(rows, rng) if labelled else None


def _check_network(dynamics: Dynamics, network: nn.Module, data: DataSet, protocols: Sequence[Protocol]) -> None:
    """Raises: Impossible where a network of your own cannot be trained or measured. It is left as it was."""
    spec, name = dynamics.network, f"the network '{dynamics.network.short}'"
    labelled, u_rows = data.num_classes is not None, dynamics.batch_size - dynamics.v_rows
    inputs = _inputs(data, u_rows or dynamics.v_rows, labelled)
    kept = [None if x is None else x.clone() for x in inputs]
    with untouched(network.train()), Watching(inputs[3]) as watching:
        out = _ask(spec, network, inputs)
    if not out.isfinite().all():
        raise Impossible(f"{name} returns {_odd(out)} before anything is trained")
    for n, before, after in zip("zrty", kept, inputs, strict=True):
        if before is not None and after is not None and not torch.equal(before, after):
            raise Impossible(f"{name} changes its argument {n} in place: work on a copy")
    used = watching.seen or (getattr(network, "conditional", False) and _differs_by_label(network, inputs, data))
    conditional = labelled and _takes_labels(spec, network, used)
    if conditional and dynamics.label_dropout:
        _check_null_label(spec, network, inputs, data)
    if not conditional and (dynamics.guidance is not None or any(_guided(protocol) for protocol in protocols)):
        raise Impossible(f"{name} takes no labels, and guidance is between classes: leave it out")
    _check_values(spec, network, inputs, derivative=u_rows > 0)


def _ask(spec: Spec, network: nn.Module, inputs: Inputs) -> Tensor:
    """What a network returns. Raises: Impossible where it fails, or returns what has not the shape and type of z."""
    name, z = f"the network '{spec.short}'", inputs[0]
    try:
        with torch.no_grad():
            out = network(*inputs)
    except FAILURES as error:
        shown = ", ".join(f"{n} {_kind(x)}" for n, x in zip("zrty", inputs, strict=True))
        raise Failing(f"{name} fails on {shown}: {_told(error, [spec])}") from None
    if not isinstance(out, Tensor) or out.shape != z.shape:
        raise Impossible(f"{name} returns {_kind(out)} for z of {tuple(z.shape)}: u has the shape of z")
    if out.dtype != torch.float32:
        raise Impossible(f"{name} returns {_kind(out)} for z in float32: end with .to(z.dtype)")
    return out


def _odd(x: Tensor) -> str:
    """What a tensor holds that is not finite."""
    return "NaN" if x.isnan().any() else "infinite values"


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


@contextlib.contextmanager
def _moved(network: nn.Module, by: float) -> Iterator[None]:
    """Away from zeros of the start, behind which nothing is seen; afterwards weights, buffers and the global random
    numbers are as before."""
    rng, before = generator(SEED, "rehearsal weights"), [(p, p.detach().clone()) for p in network.parameters()]
    with untouched(network):
        try:
            with torch.no_grad():
                for p, _ in before:
                    p.add_(by * torch.randn(p.shape, generator=rng, dtype=p.dtype))
            yield
        finally:
            with torch.no_grad():
                for p, value in before:
                    p.copy_(value)


def _differs_by_label(network: nn.Module, inputs: Inputs, data: DataSet) -> bool:
    """Whether labels matter to a network that says so and looks at them where no one sees it, as a scripted module."""
    z, r, t, y = inputs
    if y is None or data.num_classes is None or data.num_classes < 2:
        return False
    found = []
    for labels in (y, (y + 1) % data.num_classes):
        with _moved(network, MOVED), torch.no_grad(), seeded(SEED):
            found.append(network(z, r, t, labels))
    return not torch.equal(*found)


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


def _check_null_label(spec: Spec, network: nn.Module, inputs: Inputs, data: DataSet) -> None:
    z, r, t, _ = inputs
    try:
        with untouched(network), torch.no_grad():
            network(z, r, t, torch.full((len(z),), data.num_classes))  # type: ignore[arg-type]
    except FAILURES as error:
        said = f"fails on a dropped label, which is {data.num_classes}: {_told(error, [spec])}"
        raise Failing(f"the network '{spec.short}' {said}") from None


def _check_values(spec: Spec, network: nn.Module, inputs: Inputs, derivative: bool) -> None:
    """Raises: Impossible where the values are others when asked again, gradients are not finite, or, if the
    ``derivative`` du/dt is asked for, it cannot be taken, or the pass that takes it has another value or gradient."""
    z, r, t, y = inputs
    rng, name = generator(SEED, "rehearsal derivative"), f"the network '{spec.short}'"
    along, weight = (torch.randn(z.shape, generator=rng) for _ in range(2))
    trained = [p for p in network.parameters() if p.requires_grad]

    def forward() -> Tensor:
        return network(z, r, t, y)

    def carrying() -> Tensor:
        return jvp(lambda z, r, t: network(z, r, t, y), (z, r, t), (along, None, torch.ones_like(t)))[0]

    def passed(u_by: Callable[[], Tensor]) -> list[Tensor]:
        """u and the gradient of a projection of it."""
        with untouched(network), seeded(SEED):
            u = u_by()
            projected = (u * weight).sum()
            return [u.detach(), *torch.autograd.grad(projected, trained, allow_unused=True, materialize_grads=True)]

    for by in (MOVED, 0.0):  # the start counts where the weights beside it are none, as negative variances
        with _moved(network, by):
            u, *gradient = passed(forward)
            odd = [x for x in (u, *gradient) if not x.isfinite().all()]
            if odd and by:
                continue
            if odd:
                raise Impossible(f"{name}: the gradient of its weights holds {_odd(odd[0])} before anything is trained")
            if not _close(passed(forward)[0], u):
                raise Impossible(f"{name} has other values for the same input: what it draws, it draws by torch alone")
            if not derivative:
                return
            try:
                same = all(_close(a, b) for a, b in zip(passed(carrying), (u, *gradient), strict=True))
            except FAILURES as error:
                raise Failing(
                    f"{name}: du/dt cannot be taken through it; write it with operations that torch differentiates "
                    f"forwards (a torch.autograd.Function needs a jvp): {_told(error, [spec])}"
                ) from None
            if not same:
                raise Impossible(
                    f"{name}: in the pass that takes du/dt its gradient is not that of its forward pass, as with a "
                    "torch.autograd.Function that returns its input: write it with plain operations"
                )
            return


def _close(a: Tensor, b: Tensor) -> bool:
    a, b = a.detach().double(), b.detach().double()
    return bool((a - b).norm() <= 1e-3 * b.norm() + 1e-6)


# --- training and measuring --------------------------------------------------------------------------------


def _trained(
    dynamics: Dynamics,
    network: nn.Module,
    horizon: int | None,
    observers: Sequence[Spec],
    data: DataSet,
    scratch: Path,
) -> tuple[Trainer, Trainer]:
    """A trainer after a step, and one that was restored from what it saved. Raises: Impossible where they differ. (That
    training goes on as if nothing had been is what `study verify` checks.)"""

    given: dict[str, Any] = {"horizon_steps": horizon, "observers": observers, "divergence": float("inf"), "data": data}
    one = Trainer(dynamics, SEED, network=network, **given)
    passing = {name: b.clone() for name, b in _passing(one.network).items()}
    one.advance(log=True)
    for name, after in _passing(one.network).items():
        if name in passing and not torch.equal(passing[name], after):
            raise Impossible(
                f"the network '{dynamics.network.short}' changes its buffer '{name}', which is not kept: register it "
                "with persistent=True"
            )
    write_checkpoint(scratch / "checkpoint", one.parts(), {"step": 1})
    other = Trainer(dynamics, SEED, **given)
    other.restore(load_checkpoint(scratch / "checkpoint").parts, 1)
    if odd := differing(one.parts(), other.parts()):
        raise Impossible(f"what is saved is not what is restored ({', '.join(odd[:3])}): see state_dict and buffers")
    return one, other


def _passing(network: nn.Module) -> dict[str, Tensor]:
    kept = buffers_of(network)
    return {name: buffer for name, buffer in network.named_buffers() if name not in kept}


class OfData(EvaluationContext):
    """Samples of the data in the place of the network's: what cannot be measured of them never can.

    ``asked`` says whether the network itself was asked.
    """

    asked = False

    @property
    def network(self) -> Network:
        self.asked = True
        return self._network

    @network.setter
    def network(self, network: Network) -> None:
        self._network = network

    def _sample(self, draw: Draw) -> Tensor:
        x = self.dataset.reference_samples(draw.samples)
        return x[torch.arange(draw.samples) % len(x)]


def _check_metric(protocol: Protocol, context: EvaluationContext) -> None:
    """Raises: Impossible where a metric of your own returns no result, or fails on the data's samples as on those of a
    network that is hardly trained. What it says of such a network's own values (by an EvaluationError) proves nothing.
    """
    name, instead = f"the metric '{protocol.metric.short}'", OfData(context.network, context.dataset)
    failed = _failure(protocol, context)
    if isinstance(failed, WrongResult):
        raise Impossible(f"{name}: {failed}")
    again = None if failed is None else _failure(protocol, instead)
    if failed is None or again is None:
        return
    of_weights = isinstance(failed, EvaluationError)
    if of_weights and isinstance(again, EvaluationError) and instead.asked:
        return
    error = again if of_weights else failed
    if isinstance(error, EvaluationError):
        raise Failing(f"{name}: {error} (of samples of the data, too)")
    raise Failing(f"{name} fails: {_told(error, [protocol.metric])}")


def _failure(protocol: Protocol, context: EvaluationContext) -> BaseException | None:
    """What measuring raises; None where there is a value."""
    try:
        measure(context, protocol)
    except FAILURES as error:
        return error
    return None


def _kind(value: Any) -> str:
    """``float32 (8, 1, 8, 8)``, or what else it is."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.dtype} {tuple(value.shape)}".replace("torch.", "")
    return "None" if value is None else type(value).__name__


def _told(error: BaseException, specs: Sequence[Spec]) -> str:
    """An error with the last line of the user's own on the way to it."""
    files = {source.file for spec in specs if (source := source_of(spec.name))}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    said = str(error).strip().splitlines()
    return f"{where}{type(error).__name__}: {said[0]}" if said else f"{where}{type(error).__name__}"
