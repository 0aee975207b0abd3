"""The one module that touches torch-fidelity (0.4.x, whose functions per batch of features are not public).

Only pieces that take features are used: no image files, no cache (its keys ignore weights and data) and none
of its extractors unless its weights are given as a file, since they download what they lack. Importing this
takes two seconds: do it where it is needed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor
from tqdm import tqdm

from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.extractor import load_digits_cnn
from meanflow_core.sha import file_sha256

# Progress bars of torch-fidelity would make a semaphore, which a process that leaves by os._exit leaks with a warning.
tqdm.set_lock(threading.RLock())

Sums = Literal["float32", "float64"]

DIGITS_CNN = "meanflow-digits-cnn"
LAYER = "penultimate"
BATCH = 1000
INCEPTION_SHA256 = "6726825d"  # its first digits, which stand in the file's name
KID_RNG_SEED = 2020
# Written out although they are torch-fidelity's defaults: a new default must not move a value.
KID_KERNEL = {
    "kid_kernel": "poly",
    "kid_kernel_poly_degree": 3,
    "kid_kernel_poly_gamma": None,  # 1/d
    "kid_kernel_poly_coef0": 1.0,
}


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and covariance (d, d) float64 of features. torch-fidelity asserts that two have the same dtypes, so the
    mean is float32, or float64 where it was asked to be summed so."""

    mu: np.ndarray[Any, np.dtype[np.floating[Any]]]
    sigma: np.ndarray[Any, np.dtype[np.float64]]

    @classmethod
    def of_moments(cls, mean: Tensor, covariance: Tensor, sums: Sums = "float32") -> Statistics:
        """From moments known in closed form."""
        return cls(mean.numpy().astype(sums), covariance.numpy().astype(np.float64))

    @classmethod
    def of_features(cls, features: Tensor, sums: Sums = "float32") -> Statistics:
        """Sample mean, summed in ``sums``, and covariance (denominator N − 1), summed in float64, of features (N, d).

        Raises: EvaluationError for fewer than two rows or for values that are not finite.
        """
        if len(features) < 2 or not features.isfinite().all():
            raise EvaluationError(f"{len(features)} features, or some of them not finite: no covariance")
        rows = features.float().cpu()
        sigma = np.atleast_2d(fid_features_to_statistics(rows)["sigma"]).astype(np.float64)
        return cls(rows.numpy().mean(0, dtype=sums), sigma)


def frechet(a: Statistics, b: Statistics) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_a Σ_b)^½), in the square of the features' unit. Never negative, although
    rounding makes it so for equal covariances that are not of full rank.

    Raises: EvaluationError if the dimensions differ or the value is not finite.
    """
    if a.mu.shape != b.mu.shape:
        raise EvaluationError(f"features of {a.mu.size} and of {b.mu.size} dimensions cannot be compared")
    try:
        with np.errstate(all="ignore"):  # an overflow is reported below
            found = fid_statistics_to_metric(vars(a), vars(b), verbose=False)
    except np.linalg.LinAlgError as error:
        raise EvaluationError(f"Fréchet distance: {error}") from error
    return max(0.0, _finite(found[KEY_METRIC_FID], "Fréchet distance"))


def kid(a: Tensor, b: Tensor, subsets: int, subset_size: int) -> float:
    """Unbiased MMD² between features (N, d) and (M, d), kernel (x·y/d + 1)³, mean over random subsets.

    In float64: near 0 it is a small difference of large sums. The subsets are drawn from a fixed seed, so
    equal features give equal values. May be slightly negative.

    Raises: EvaluationError if either side is smaller than a subset, or the value is not finite.
    """
    if min(len(a), len(b)) < subset_size:
        raise EvaluationError(f"KID in subsets of {subset_size} needs as many samples; got {len(a)} and {len(b)}")
    found = kid_features_to_metric(
        a.double(),
        b.double(),
        kid_subsets=subsets,
        kid_subset_size=subset_size,
        rng_seed=KID_RNG_SEED,
        verbose=False,
        **KID_KERNEL,
    )
    return _finite(found[KEY_METRIC_KID_MEAN], "KID")


@torch.no_grad()
def digits_features(images: Tensor) -> Tensor:
    """Features (N, 64) float32 of images (N, 1, 8, 8) in [−1, 1], on the CPU whatever device made them."""
    extractor = _digits_extractor()
    return torch.cat([extractor(part.float().cpu())[0] for part in torch.split(images, BATCH)])


def inception_extractor(weights: Path, device: torch.device | str) -> Any:
    """torch-fidelity's Inception, uint8 (N, 3, H, W) → (features (N, 2048),), from a file that must be there.

    Raises: EvaluationError if it is not, since without a path torch-fidelity would download it; or if it is another
        file that holds more than tensors, since torch-fidelity would run what it says.
    """
    if not weights.is_file():
        raise EvaluationError(f"missing Inception weights {weights}")
    if not file_sha256(weights).startswith(INCEPTION_SHA256):
        try:
            torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:  # zipfile's, pickle's and torch's own
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise EvaluationError(f"{weights} is damaged, or holds no weights ({said})") from None
    return create_feature_extractor(
        "inception-v3-compat",
        ["2048"],
        cuda=False,
        cache=False,
        verbose=False,
        feature_extractor_weights_path=str(weights),
        feature_extractor_compile=False,
    ).to(device)


class DigitsExtractor(FeatureExtractorBase):  # type: ignore[misc]  # torch-fidelity has no types
    """The shipped digits network as a torch-fidelity extractor with the one layer ``penultimate``.

    Unlike torch-fidelity's own it takes floats (N, 1, 8, 8) in [−1, 1], not 8-bit RGB; see ``extractor``.
    """

    def __init__(self, name: str, features_list: list[str], **kwargs: Any) -> None:
        super().__init__(name, features_list)
        self.network = load_digits_cnn()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (LAYER,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return LAYER

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 1, 8, 8)

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        return (self.network.features(input),)


if DIGITS_CNN not in FEATURE_EXTRACTORS_REGISTRY:  # registering twice, as on a reload, is an error there
    register_feature_extractor(DIGITS_CNN, DigitsExtractor)


@cache
def _digits_extractor() -> Any:
    return create_feature_extractor(
        DIGITS_CNN, [LAYER], cuda=False, cache=False, verbose=False, feature_extractor_compile=False
    )


def _finite(value: float, name: str) -> float:
    if not np.isfinite(value):
        raise EvaluationError(f"{name} is {value}")
    return value
