"""What is known of data before they are made, from their parameters alone; and the limits of what can be measured."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

from meanflow_core.registry import Params, Spec, asked

REFERENCE_DRAWS = 50_000  # of data that are not finite and small
REFERENCE_BYTES = 2**30
COARSE = 4  # blocks an axis of the features 'coarse'
DIGITS_SHAPE = (1, 8, 8)
MOST_DIMENSIONS = 16_384  # of a Fréchet distance: its matrices have 2 GiB each, and take an hour


class Facts(NamedTuple):
    """Of a data set: its name, the shape of a sample, whether it has classes, how many samples, and whether its exact
    fields are known; None where only the data themselves know."""

    name: str
    shape: tuple[int, ...] | None
    labelled: bool | None
    size: int | None
    fields: bool | None

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """As far as the parameters say."""
        params: Params = spec.params
        shape, classes = asked(params, params.sample_shape), asked(params, params.class_count)
        unknown = classes is None and (params.declared is not None or shape is None)
        count, fields = asked(params, params.sample_count), asked(params, params.knows_fields)
        return cls(spec.short, shape, None if unknown else classes is not None, count, fields)

    @classmethod
    def of_data(cls, name: str, data: Any) -> Self:
        """Those of a `data.base.DataSet` that was made."""
        return cls(
            name, tuple(data.shape), data.num_classes is not None, getattr(data, "n", None), data.exact is not None
        )

    def reference_rows(self) -> int | None:
        """How many samples measurements are compared with, where the data are finite; None where not known."""
        if self.size is None or self.shape is None:
            return None
        return reference_rows(self.size, self.shape)


def reference_rows(count: int, shape: tuple[int, ...], draws: int = REFERENCE_DRAWS) -> int:
    """Of ``count`` samples: all, up to 1 GiB of them; else ``draws``, or as many as that."""
    most = max(2, REFERENCE_BYTES // (4 * math.prod(shape)))
    return count if count <= most else min(draws, most)
