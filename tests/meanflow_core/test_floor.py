"""The floor of a distance against its closed form, and what has none."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tqdm import tqdm

from meanflow_core.config import Protocol
from meanflow_core.evaluation.floor import floor


def protocol(metric: Any, data: Any, samples: int = 4000) -> Protocol:
    return Protocol.model_validate({"metric": metric, "reference": data, "samples": samples})


def test_of_a_gaussian_in_closed_form() -> None:
    """Of N(m, σ²I) and the moments of n draws, to first order in 1/n: E[W₂²] = σ²·(d + d(d + 1)/4)/n."""
    d, n, std = 16, 4000, 0.5
    found = floor(protocol({"name": "frechet", "features": "pixel"}, {"name": "gaussian", "dim": d, "std": std}, n))
    assert found == pytest.approx(std**2 * (d + d * (d + 1) / 4) / n, rel=0.1)


def test_of_finite_data_it_is_that_of_the_empirical_law() -> None:
    few, many = (floor(protocol({"name": "frechet", "features": "pixel"}, "digits", n)) for n in (500, 5000))
    assert few is not None and many is not None
    assert few / many == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("kid", 0.0), ("v_error", None), ({"name": "frechet", "features": "inception"}, None), ("images", None)],
    ids=str,
)
def test_unbiased_or_none(metric: Any, expected: float | None) -> None:
    assert floor(protocol(metric, "digits")) == expected


def test_progress_bars_make_no_semaphore() -> None:
    """`study run` measures floors in its own process, and leaves it by os._exit."""
    import meanflow_core.evaluation.fidelity  # noqa: F401

    assert isinstance(tqdm.get_lock(), type(threading.RLock()))
