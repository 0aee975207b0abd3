"""What a trainer of your own reports. It is recorded while the program runs, and cannot be measured afterwards."""

from __future__ import annotations

from typing import NoReturn

from meanflow_core.components import ReportedParams
from meanflow_core.config import Protocol
from meanflow_core.evaluation.errors import EvaluationError
from meanflow_core.registry import BuildContext


class Reported:
    def __init__(self, params: ReportedParams, context: BuildContext) -> None:
        self.params = params

    def preflight(self, protocol: Protocol) -> list[str]:
        return []

    def compute(self, context: object, protocol: Protocol) -> NoReturn:
        """Raises: EvaluationError, always."""
        raise EvaluationError(f"'{self.params.key}' is reported by the trainer while it runs, not measured afterwards")
