"""Samples as pictures: the same latents and labels for every arm and checkpoint, kept as 8-bit images."""

from __future__ import annotations

import torch
from torch import Tensor

from meanflow_core.components import ImagesParams, LatentsParams
from meanflow_core.config import Protocol
from meanflow_core.evaluation.artefact import Artefact, Kept
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.evaluation.inception import decode, missing_decoder, to_bytes
from meanflow_core.evaluation.reference import cache_key, data_of, problems_with
from meanflow_core.registry import BuildContext, Spec


class Images:
    """The protocol's samples as pictures, and their contrast as the value."""

    def __init__(self, params: ImagesParams, ctx: BuildContext) -> None:
        self.span = params.span

    def preflight(self, protocol: Protocol) -> list[str]:
        missing = data_of(cache_key(protocol.reference)).preflight() + problems_with(protocol)
        if isinstance(protocol.reference.params, LatentsParams):
            missing += missing_decoder(protocol.reference.params)
        return missing

    def compute(self, context: EvaluationContext, protocol: Protocol) -> Kept:
        """Pictures (N, H, W, 1 or 3) uint8 as the artefact; their standard deviation, in 0 … 127.5, as the value.

        Raises: EvaluationError where samples are not finite, or cannot be shown as pictures.
        """
        if missing := self.preflight(protocol):
            raise EvaluationError("; ".join(missing))
        pictures = as_pictures(context.samples(protocol), protocol.reference, self.span, context.device)
        return Kept(float(pictures.std()), pictures)


def as_pictures(samples: Tensor, data: Spec, span: float = 1.0, device: torch.device | str = "cpu") -> Artefact:
    """Samples of some data as pictures (N, H, W, 1 or 3) uint8: latents are decoded; of other data, values from −span
    to span become 0 … 255."""
    if isinstance(data.params, LatentsParams):
        images = decode(samples, data.params, device)
    else:
        images = to_bytes(visible(samples) / span)
    pictures: Artefact = images.permute(0, 2, 3, 1).contiguous().numpy()
    return pictures


def visible(samples: Tensor) -> Tensor:
    """The channels shown, (N, 1 or 3, H, W): all of a grey or coloured image, else the first as grey."""
    return samples.to(torch.float32) if samples.shape[1] in (1, 3) else samples[:, :1].to(torch.float32)
