"""The exceptions that evaluation raises on purpose."""


class EvaluationError(ValueError):
    """A protocol cannot be measured on this network; the message says why and what to prepare."""


class WrongResult(EvaluationError):
    """What a metric returned is no result, whatever the network: the metric is wrong."""
