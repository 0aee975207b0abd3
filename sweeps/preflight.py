"""What is missing before a session can run, in words. Loads torch only for GPUs, files, exact fields, guidance and
transforms."""

from __future__ import annotations

from collections.abc import Iterator

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
    """What the transforms of a trajectory say against its times, built as the trainer builds them."""
    dynamics = trajectory.dynamics
    if not dynamics.transforms:
        return
    from meanflow_core.seeding import generator

    try:
        times = dynamics.time_sampler.build()
    except Exception as error:
        if dynamics.time_sampler.params.declared is None:
            raise
        yield f"the time sampler '{dynamics.time_sampler.short}' cannot be built: {type(error).__name__}: {error}"
        return
    for spec in dynamics.transforms:
        try:
            spec.build(
                trajectory.horizon_steps,
                rng=lambda step: generator(trajectory.seed, "preflight", step, "cpu"),
                times=times,
            )
        except ValueError as error:
            yield f"the transform '{spec.short}' does not fit the times '{dynamics.time_sampler.short}': {error}"
        except Exception as error:
            if spec.params.declared is None:
                raise
            yield f"the transform '{spec.short}' cannot be built: {type(error).__name__}: {error}"
