"""The one exception that evaluation raises on purpose."""


class EvaluationError(ValueError):
    """A protocol cannot be measured on this network; the message says why and what to prepare."""
