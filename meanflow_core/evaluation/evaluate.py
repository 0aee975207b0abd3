"""Measuring one network under several protocols."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from meanflow_core.config import Protocol
from meanflow_core.evaluation.artefact import Artefact, Kept
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError, WrongResult
from meanflow_core.evaluation.reference import cache_key, data_of
from meanflow_core.precision import float32_products


class Evaluated(NamedTuple):
    """The value of a protocol, the wall-clock seconds that it took, and what else of it is to be kept, if anything."""

    value: float
    seconds: float
    artefact: Artefact | None = None


def evaluate(context: EvaluationContext, protocols: Sequence[Protocol]) -> dict[str, Evaluated]:
    """The value of each protocol, by protocol key, of the weights in one context.

    Protocols share samples and features where they ask for the same ones; what is shared (as what is computed once a
    process, of the reference) counts in the time of the first that asks.

    Raises: EvaluationError if one cannot be measured, or if they name both EMA and online weights.
    """
    weights = {protocol.weights for protocol in protocols}
    if len(weights) > 1:
        raise EvaluationError(
            "one network has one set of weights, but the protocols name " + " and ".join(sorted(weights))
        )
    return {protocol.key: _timed(context, protocol) for protocol in protocols}


def measure(context: EvaluationContext, protocol: Protocol) -> float | Kept:
    """The value of one protocol, a finite number, with the artefact of a metric that has one.

    Raises: EvaluationError with the reason: something is missing, the data have no exact fields, or the
    samples or the value are not finite. WrongResult where the metric returns what no metric may.
    """
    reference = data_of(cache_key(protocol.reference))
    if reference.shape != context.dataset.shape:
        raise EvaluationError(
            f"samples have shape {context.dataset.shape}, but the reference '{protocol.reference.short}' "
            f"has {reference.shape}"
        )
    label, found = protocol.metric_label, _metric(protocol).compute(context, protocol)
    if not isinstance(found, Kept):
        return as_number(label, found)
    artefact = found.artefact
    if not (isinstance(artefact, np.ndarray) and artefact.dtype == np.uint8):
        raise WrongResult(f"{label} keeps {_words(artefact)}, where an array of uint8 is wanted")
    return Kept(as_number(label, found.value), artefact)


def as_number(label: str, found: Any) -> float:
    """What a metric returns as a float: a finite real number, also as the one element of a tensor or an array.

    Raises: WrongResult for anything else, truth values and text among it. EvaluationError where it is not finite.
    """
    single = isinstance(found, Tensor | np.ndarray | np.generic) and math.prod(found.shape) == 1
    value = found.item() if single else found
    if isinstance(value, bool) or not isinstance(value, Real):
        raise WrongResult(f"{label} returns {_words(found)}, where a real number is wanted")
    if not math.isfinite(value):
        raise EvaluationError(f"{label} is not finite")
    return float(value)


def _words(found: Any) -> str:
    if isinstance(found, Tensor | np.ndarray):
        return f"{found.dtype} {tuple(found.shape)}".replace("torch.", "")
    return "nothing" if found is None else f"a {type(found).__name__}"


def _timed(context: EvaluationContext, protocol: Protocol) -> Evaluated:
    began = perf_counter()
    with float32_products(tf32=protocol.precision == "tf32"):
        found = measure(context, protocol)  # numbers on the CPU: nothing is left under way on a GPU
    value, artefact = found if isinstance(found, Kept) else (found, None)
    return Evaluated(value, perf_counter() - began, artefact)


def preflight(protocol: Protocol) -> list[str]:
    """What is missing to measure a protocol; empty if it is ready. Trains and downloads nothing."""
    missing: list[str] = _metric(protocol).preflight(protocol)
    return missing


def _metric(protocol: Protocol) -> Any:
    """A metric has ``preflight(protocol)`` and ``compute(context, protocol)``."""
    return protocol.metric.build()
