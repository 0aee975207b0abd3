"""What is missing before a session can run. Loads torch only for GPUs, files, exact fields, guidance,
transforms and what is of the user's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from meanflow_core.components.facts import Facts
from meanflow_core.config import Dynamics, Protocol, key_of, unmeasurable
from meanflow_core.flops import class_count
from meanflow_core.registry import FAILURES, Spec, asked
from results.layout import Home
from studies.arms import Trajectory
from sweeps.session import Session
from sweeps.tree import Node


def impossible(session: Session, times: bool = True) -> list[str]:
    """What no machine can do of a session, in words with what would do; empty if nothing stands in its way.

    What built-in components cannot do follows from their parameters, without torch; but for ``times``, whether
    transforms fit the law of times. With a component of the user's own a step is rehearsed.
    """
    problems: list[str] = []
    for node, protocols in _once_each(session):
        dynamics = node.trajectory.dynamics
        found = [*_unfit(dynamics), *_unmeasurable(dynamics, protocols)]
        ours = not any(spec.params.declared for spec in dynamics.specs())
        found += _unbuildable(node.trajectory) if times or not ours else ()
        observers = [spec for study in session.studies if study.study == node.study for spec in study.observers]
        own = [spec for spec in (*(p.metric for p in protocols), *observers) if spec.params.declared]
        found += [said for spec in own if (said := _failure(spec, None, {}))]
        if not found and dynamics.trainer is None and (own or not ours):
            from sweeps.rehearsal import rehearse

            (device,) = {study.device for study in session.studies if study.study == node.study}
            found += rehearse(dynamics, node.trajectory.horizon_steps, observers, protocols, device)
        problems += found
    return list(dict.fromkeys(problems))


def _once_each(session: Session) -> Iterator[tuple[Node, list[Protocol]]]:
    """A node for every dynamics, with all that is to be measured of it; seeds differ in nothing that matters here."""
    seen: dict[str, tuple[Node, dict[int, Protocol]]] = {}
    for node in session.tree:
        trajectory = node.trajectory
        if trajectory.seed == session.seeds[0]:
            key = key_of([node.study, trajectory.dynamics.canonical(), trajectory.horizon_steps])
            _, protocols = seen.setdefault(key, (node, {}))
            protocols.update({id(protocol): protocol for at in node.points.values() for protocol in at.values()})
    for node, protocols in seen.values():
        yield node, list({protocol.key: protocol for protocol in protocols.values()}.values())


def _unfit(dynamics: Dynamics) -> Iterator[str]:
    """Why a network and its data do not go together, as far as their parameters say."""
    data, params = Facts.of(dynamics.data), dynamics.network.params
    if data.shape is not None and (why := asked(params, params.problem_on, data.shape)):
        yield f"{why}: that is the shape of the data '{data.name}'"
    if dynamics.guidance is not None and data.labelled is False:
        yield f"guidance needs labels, and the data '{data.name}' have none: set dynamics.guidance to null"


def _unmeasurable(dynamics: Dynamics, protocols: Iterable[Protocol]) -> Iterator[str]:
    """Why something cannot be measured of these dynamics, as far as parameters say."""
    conditional = getattr(dynamics.network.params, "conditional", True)
    for protocol in protocols:
        params, label = protocol.metric.params, protocol.metric_label
        found: list[str] = asked(params, params.problems_with, protocol, Facts.of(protocol.reference))
        if not conditional and getattr(params, "guidance", None) is not None:
            found.append("a guided field is a class's, and this network takes no labels: set its 'conditional' to true")
        yield from (f"'{label}' at {protocol.nfe} NFE cannot be measured: {why}" for why in found)


def preflight(session: Session, home: Home, elsewhere: bool = False, proofs: bool = True) -> list[str]:
    """Everything that would make the session fail after hours of training; empty if it is ready. The devices of this
    machine do not matter where the jobs run ``elsewhere``; nor what trainers promise, without ``proofs``."""
    problems = [*([] if elsewhere else _of_device(session)), *impossible(session)]
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
        problems.extend(_of_trainer(node, elsewhere))
    if proofs:
        problems.extend(_unproven(session, home))
    for protocol in protocols.values():
        if protocol.metric.params.needs_check():
            from meanflow_core.evaluation.evaluate import preflight as missing

            problems.extend(why for why in missing(protocol) if not any(said.endswith(why) for said in problems))
    return list(dict.fromkeys(problems))


def _of_device(session: Session) -> Iterator[str]:
    """What is missing of the device that our trainer is to run on."""
    ours = {node.study for node in session.tree if node.trajectory.dynamics.trainer is None}
    if any(study.device == "cuda" and study.study in ours for study in session.studies):
        from sweeps.device import missing_device

        if missing := missing_device("cuda"):
            yield f"{missing}; choose another --scale, or override device=auto"


def damaged_data(session: Session) -> list[str]:
    """What is wrong with the data sets of a session, and with what its metrics need of them, as far as this machine has
    them: those that it lacks may be where the jobs will run."""
    specs = [node.trajectory.dynamics.data for node in session.tree]
    protocols = list({id(p): p for p in (point.protocol for arm in session.arms for point in arm.points)}.values())
    specs += [protocol.reference for protocol in protocols]
    each = {str(spec.canonical()): spec for spec in {id(spec): spec for spec in specs}.values()}
    found = [line for spec in each.values() for line in spec.params.damage()]
    found += [line for p in protocols for line in p.metric.params.reference_damage(p.reference)]
    return list(dict.fromkeys(found))


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
    """Why a component cannot be built; None where it can."""
    from sweeps.rehearsal import aside

    try:
        with aside():
            spec.build(horizon, **facts)
    except ValueError as error:
        return f"the {spec.component.kind} '{spec.short}'{why}: {error}"
    except FAILURES as error:
        if spec.params.declared is None:
            raise
        return f"the {spec.component.kind} '{spec.short}' cannot be built: {type(error).__name__}: {error}"
    return None
