"""What is missing before a session can run, in words. Loads torch only for GPUs, files, exact fields, guidance and
transforms."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from meanflow_core.config import unmeasurable
from meanflow_core.flops import class_count
from meanflow_core.registry import Spec
from results.layout import Home
from studies.arms import Trajectory
from sweeps.session import Session
from sweeps.tree import Node


def preflight(session: Session, home: Home, elsewhere: bool = False, proofs: bool = True) -> list[str]:
    """Everything that would make the session fail after hours of training; empty if it is ready. The devices of this
    machine do not matter where the jobs run ``elsewhere``; nor what trainers promise, without ``proofs``."""
    problems = [] if elsewhere else list(_of_device(session))
    protocols = {p.key: p for arm in session.arms for p in (point.protocol for point in arm.points)}
    data: dict[str, Spec] = {}
    guided: set[str] = set()  # without labels, as far as their parameters say
    for node in session.tree:
        dynamics = node.trajectory.dynamics
        name = str(dynamics.data.canonical())
        data[name] = dynamics.data
        if dynamics.guidance is not None and class_count(dynamics) is None:
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
        problems.extend(_of_trainer(node, elsewhere))
    if proofs:
        problems.extend(_unproven(session, home))
    for spec in (*(p.metric for p in protocols.values()), *(o for study in session.studies for o in study.observers)):
        if spec.params.declared and (said := _failure(spec, None, {})):
            problems.append(said)
    for protocol in protocols.values():
        if protocol.metric.params.needs_check():
            from meanflow_core.evaluation.evaluate import preflight as missing

            problems.extend(missing(protocol))
    return list(dict.fromkeys(problems))


def _of_device(session: Session) -> Iterator[str]:
    """What is missing of the device that our trainer is to run on."""
    ours = {node.study for node in session.tree if node.trajectory.dynamics.trainer is None}
    if any(study.device == "cuda" and study.study in ours for study in session.studies):
        from sweeps.device import missing_device

        if missing := missing_device("cuda"):
            yield f"{missing}; choose another --scale, or override device=auto"


def damaged_data(session: Session) -> list[str]:
    """What is wrong with the data sets of a session, as far as this machine has them: those that it lacks may be where
    the jobs will run."""
    specs = [node.trajectory.dynamics.data for node in session.tree]
    specs += [point.protocol.reference for arm in session.arms for point in arm.points]
    each = {str(spec.canonical()): spec for spec in {id(spec): spec for spec in specs}.values()}
    return list(dict.fromkeys(line for spec in each.values() for line in spec.params.damage()))


def _unbuildable(trajectory: Trajectory) -> Iterator[str]:
    """What the transforms of a trajectory say against its times, and which of the user's own components cannot be
    built, all as the trainer builds them; its network and its data, which may be large, are left out."""
    dynamics = trajectory.dynamics
    if dynamics.trainer is not None:  # which makes of them what it will
        return
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


def _unproven(session: Session, home: Home) -> Iterator[str]:
    """What trainers of the user's own promise and nobody has verified."""
    from sweeps.program.verifying import missing_proof, trials_of

    yield from (why for trial in trials_of(session) if (why := missing_proof(home, trial)))


def _of_trainer(node: Node, elsewhere: bool) -> Iterator[str]:
    """What a trainer of the user's own lacks, and what cannot be measured of what is trained here."""
    from sweeps.program.process import folder_of, words_of

    dynamics = node.trajectory.dynamics
    for at in node.points.values():
        for protocol in at.values():
            if why := unmeasurable(protocol, dynamics.trainer):
                yield why
    if (program := dynamics.trainer) is None:
        return
    yield from program.changed()
    first, *_ = words_of((*program.launch, *program.command), {})
    beside = (folder_of(program) or Path()) / first if "/" in first else first
    if not elsewhere and shutil.which(beside) is None:
        yield f"the trainer's command '{first}' is not there, or cannot be executed"


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
