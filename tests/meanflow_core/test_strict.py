"""What is written by hand is read strictly; records of runs as they were meant."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from meanflow_core.config import Dynamics
from meanflow_core.state import untouched
from meanflow_core.strict import written_by_hand

RECORD = {"network": "mlp", "data": "digits", "batch_size": 8, "fm_ratio": 0.5, "label_dropout": False}


def test_false_for_a_number_is_refused_in_a_study_file_and_read_in_a_record() -> None:
    assert Dynamics.model_validate(RECORD).label_dropout == 0.0  # earlier versions recorded it so
    with written_by_hand(), pytest.raises(ValidationError, match="label_dropout"):
        Dynamics.model_validate(RECORD)


class Counting(torch.nn.Module):
    """Puts another tensor in its buffer's place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros(()))

    def forward(self) -> None:
        self.n = self.n + 1


def test_looking_leaves_a_buffer_that_is_replaced() -> None:
    network = Counting()
    before = network.n
    with untouched(network):
        network()
    assert network.n is before and float(before) == 0
