"""Does training n + m steps equal training n, saving, restoring and training m? Bitwise, on real dynamics."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from meanflow_core.checkpoint import Parts, load_checkpoint, write_checkpoint
from meanflow_core.config import Checkpoint, Dynamics, key_of
from meanflow_core.trainer import Trainer
from results.layout import Home
from sweeps.device import choose_device, device_name
from sweeps.program.verifying import Trial, verify_program, verify_stored_program
from sweeps.session import Session


def _trainer(dynamics: Dynamics, seed: int, horizon: int | None, device: torch.device) -> Trainer:
    return Trainer(dynamics, seed, horizon_steps=horizon, device=device)


def _advance(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.advance()


def differing(a: Parts, b: Parts) -> list[str]:
    """Names of the tensors that are not bitwise equal (NaN equals NaN of the same bits)."""
    names = []
    for part in sorted(set(a) | set(b)):
        left, right = a.get(part, {}), b.get(part, {})
        for name in sorted(set(left) | set(right)):
            x, y = left.get(name), right.get(name)
            same = x is not None and y is not None and x.dtype == y.dtype and x.shape == y.shape
            if not same or not torch.equal(_bytes(x), _bytes(y)):  # type: ignore[arg-type]
                names.append(f"{part}/{name}")
    return names


def _bytes(x: torch.Tensor) -> torch.Tensor:
    return x.cpu().contiguous().reshape(-1).view(torch.uint8)


def verify_dynamics(
    dynamics: Dynamics,
    seed: int,
    horizon: int | None,
    first: int,
    second: int,
    device: torch.device,
    scratch: Path,
) -> list[str]:
    """Names of the tensors in which the two ways differ; empty if none does."""
    whole = _trainer(dynamics, seed, horizon, device)
    _advance(whole, first + second)
    before = _trainer(dynamics, seed, horizon, device)
    _advance(before, first)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        place = Path(folder) / "checkpoint"
        write_checkpoint(place, before.parts(), {"step": first})
        after = _trainer(dynamics, seed, horizon, device)
        after.restore(load_checkpoint(place, device=device).parts, first)
    _advance(after, second)
    return differing(whole.parts(), after.parts())


def verify_stored(session: Session, home: Home, count: int) -> list[dict[str, Any]]:
    """Train the shortest ``count`` finished segments of a home again, from the checkpoint each started from, and
    compare the end with what is stored: bitwise equal on the same machine type, torch build and number of threads.
    Segments of which either was let go are passed over."""
    study = session.studies[0]
    device = choose_device(study.device)
    torch.set_num_threads(study.threads)
    pieces = [
        (stop - start, node.key, start, stop)
        for node in session.tree
        if not node.trajectory.dynamics.held
        for start, stop in pairwise(node.boundaries())
        if _there(home, Checkpoint(node.key, stop))
        and ((at := _start(node.key, start, node.trajectory.parent)) is None or _there(home, at))
    ]
    records = []
    with threadpool_limits(study.threads):
        for _, key, start, stop in sorted(pieces)[:count]:
            trajectory = session.tree.nodes[key].trajectory
            where = f"{key[:8]} steps {start} → {stop}, seed {trajectory.seed}"
            if trajectory.dynamics.trainer is not None:
                at = _start(key, start, trajectory.parent)
                trial = Trial(
                    trajectory.dynamics, trajectory.seed, trajectory.horizon_steps, study.device, study.threads
                )
                bad = verify_stored_program(home, trial, key, at, stop)
                records.append({"segment": where, "device": device_name(device), "equal": not bad, "differing": bad})
                continue
            trainer = _trainer(trajectory.dynamics, trajectory.seed, trajectory.horizon_steps, device)
            _restore(trainer, home, key, start, trajectory.parent)
            _advance(trainer, stop - start)
            expect = {"trajectory": key, "step": stop}
            stored = load_checkpoint(home.trajectory(key).checkpoint(stop), device=device, expect=expect)
            bad = differing(trainer.parts(), stored.parts)
            records.append({"segment": where, "device": device_name(device), "equal": not bad, "differing": bad})
    return records


def _start(key: str, start: int, parent: Checkpoint | None) -> Checkpoint | None:
    """The checkpoint from which a segment starts; None at initialisation."""
    if parent is None and start == 0:
        return None
    return parent if parent and parent.step == start else Checkpoint(key, start)


def _there(home: Home, at: Checkpoint) -> bool:
    return home.trajectory(at.trajectory).checkpoint(at.step).is_dir()


def _restore(trainer: Trainer, home: Home, key: str, start: int, parent: Checkpoint | None) -> None:
    """Put a trainer where a segment starts: at the parent's checkpoint, at its own, or at initialisation."""
    at = _start(key, start, parent)
    if at is None:
        return
    folder = home.trajectory(at.trajectory).checkpoint(at.step)
    loaded = load_checkpoint(folder, device=trainer.device, expect=at._asdict())
    trainer.restore(loaded.parts, start, branch=at is parent)


def verify_session(session: Session, home: Home, first: int, second: int) -> list[dict[str, Any]]:
    """One record a distinct dynamics of the session's first study, on the device that its scale would use; none of one
    whose trainer promises nothing. What is found of a trainer of your own is recorded in the home.

    Raises: ProgramError if such a trainer fails.
    """
    study = session.studies[0]
    device = choose_device(study.device)
    torch.set_num_threads(study.threads)
    stages: dict[str, tuple[Dynamics, int | None, set[str]]] = {}
    for arm in session.arms:
        for stage in arm.stages:
            t = stage.trajectory
            if t.dynamics.held:  # it promises nothing
                continue
            key = key_of([t.dynamics.canonical(), t.horizon_steps])
            stages.setdefault(key, (t.dynamics, t.horizon_steps, set()))[2].add(
                f"{stage.name}: {t.dynamics.in_words()}"
            )
    records = []
    base = home.root if home.root.is_dir() else Path(tempfile.gettempdir())
    with threadpool_limits(study.threads):
        for dynamics, horizon, names in stages.values():
            if dynamics.trainer is None:
                bad = verify_dynamics(dynamics, study.seeds[0], horizon, first, second, device, base)
            else:
                trial = Trial(dynamics, study.seeds[0], horizon, study.device, study.threads)
                bad = verify_program(home, trial, first, second)
            records.append(
                {
                    "stages": ", ".join(sorted(names)),
                    "device": device_name(device),
                    "equal": not bad,
                    "differing": bad,
                }
            )
    return records
