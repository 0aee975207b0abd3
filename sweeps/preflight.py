"""What is missing before a session can run, in words. Loads torch only for GPUs, files, exact fields, guidance and
transforms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meanflow_core.registry import Spec
from studies.arms import Trajectory
from sweeps.session import Session


def preflight(session: Session, elsewhere: bool = False) -> list[str]:
    """Everything that would make the session fail after hours of training; empty if it is ready. The devices of this
    machine do not matter where the jobs run ``elsewhere``."""
    problems: list[str] = []
    if not elsewhere and any(study.device == "cuda" for study in session.studies):
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
                f"guidance needs labels, and the data '{spec.short}' have none: set dynamics.guidance to null"
            )
    for node in session.tree:
        problems.extend(_unbuildable(node.trajectory))
    for protocol in protocols.values():
        if protocol.metric.params.needs_check():
            from meanflow_core.evaluation.evaluate import preflight as missing

            problems.extend(missing(protocol))
    return list(dict.fromkeys(problems))


def _unbuildable(trajectory: Trajectory) -> Iterator[str]:
    """What the transforms of a trajectory say against its times, and which of the user's own components cannot be
    built, all as the trainer builds them; its network and its data, which may be large, are left out."""
    dynamics = trajectory.dynamics
    parts = (dynamics.time_sampler, dynamics.objective, dynamics.optimiser)
    if not dynamics.transforms and not any(spec.params.declared for spec in parts):
        return
    import torch

    from meanflow_core.seeding import generator

    horizon, parameter = trajectory.horizon_steps, torch.nn.Parameter(torch.zeros(1))
    facts: list[dict[str, Any]] = [{}, {"guidance": dynamics.guidance, "null_label": 1}]
    facts.append({"named_parameters": [("parameter", parameter)]})
    for spec, given in zip(parts, facts, strict=True):
        if spec.params.declared and (said := _failure(spec, horizon, given)):
            yield said
            return
    times = dynamics.time_sampler.build(horizon)
    given = {"rng": lambda step: generator(trajectory.seed, "preflight", step, "cpu"), "times": times}
    for spec in dynamics.transforms:
        if said := _failure(spec, horizon, given, f" does not fit the times '{dynamics.time_sampler.short}'"):
            yield said


def _failure(spec: Spec, horizon: int | None, facts: Mapping[str, Any], why: str = " cannot be built") -> str | None:
    """Why a component cannot be built, in words; None where it can."""
    try:
        spec.build(horizon, **facts)
    except ValueError as error:
        return f"the {spec.component.kind} '{spec.short}'{why}: {error}"
    except Exception as error:
        if spec.params.declared is None:
            raise
        return f"the {spec.component.kind} '{spec.short}' cannot be built: {type(error).__name__}: {error}"
    return None
