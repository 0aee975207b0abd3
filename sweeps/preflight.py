"""What is missing before a session can run, in words. Loads torch only for GPUs, files, exact fields and guidance."""

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
    guided: set[str] = set()
    for node in session.tree:
        dynamics = node.trajectory.dynamics
        name = str(dynamics.data.canonical())
        data[name] = dynamics.data
        if dynamics.guidance is not None:
            guided.add(name)
    for name, spec in data.items():
        if spec.params.needs_check():
            problems.extend(spec.build().preflight())
        if name in guided and spec.build().num_classes is None:
            problems.append(
                f"guidance needs labels, and the data '{spec.name}' have none: set dynamics.guidance to null"
            )
    for protocol in protocols.values():
        if protocol.metric.params.needs_check():
            from meanflow_core.evaluation.evaluate import preflight as missing

            problems.extend(missing(protocol))
    return list(dict.fromkeys(problems))
