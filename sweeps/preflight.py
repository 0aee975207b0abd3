"""What is missing before a session can run, in words. Loads torch only for GPUs, files and exact fields."""

from __future__ import annotations

from meanflow_core.registry import Spec
from sweeps.session import Session


def preflight(session: Session) -> list[str]:
    """Everything that would make the session fail after hours of training; empty if it is ready."""
    problems: list[str] = []
    if any(study.device == "cuda" for study in session.studies):
        from sweeps.device import missing_device

        problems.extend(missing_device("cuda"))
    protocols = {p.key: p for arm in session.arms for p in (point.protocol for point in arm.points)}
    data: dict[str, Spec] = {}
    for node in session.tree:
        spec = node.trajectory.dynamics.data
        data[str(spec.canonical())] = spec
    for spec in data.values():
        if spec.params.needs_check():
            problems.extend(spec.build().preflight())
    for protocol in protocols.values():
        if protocol.metric.params.needs_check():
            from meanflow_core.evaluation.evaluate import preflight as missing

            problems.extend(missing(protocol))
    return list(dict.fromkeys(problems))
