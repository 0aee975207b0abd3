"""Does a trainer of your own keep its promise? n + m steps against n, saving, restoring and m: the same files?

What is found is recorded in the home, and prefixes are shared only where it passed (`missing_proof`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from meanflow_core.config import Checkpoint, Dynamics, key_of
from results.layout import Home
from sweeps.attempt import write_atomically
from sweeps.jobs import now
from sweeps.program.opaque import hashes, state_of
from sweeps.program.process import ProgramError, running
from sweeps.program.protocol import checkpoint_name
from sweeps.program.training import CHECKPOINTS, place_of, program_of, tell
from sweeps.session import Session

POLL_S = 0.05
PROOF_STEPS = 25

Device = Literal["auto", "cpu", "cuda"]


class Proof(BaseModel):
    """verified/<key>.json"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    program: str
    first_steps: PositiveInt
    second_steps: PositiveInt
    device: str
    differing: tuple[str, ...]
    time: str


@dataclass(frozen=True)
class Trial:
    """What is trained on its own, away from any home."""

    dynamics: Dynamics
    seed: int
    horizon_steps: int | None
    device: Device
    threads: int

    @property
    def promised(self) -> bool:
        """Whether a program of the user's own promises that it resumes exactly."""
        return self.dynamics.trainer is not None and not self.dynamics.held

    def proof(self, home: Home) -> Path:
        """Where it is recorded what was found: of these dynamics with this T on this kind of device."""
        return home.verified / f"{key_of([self.dynamics.canonical(), self.horizon_steps, self.device])}.json"

    def train(
        self, work: Path, start: int, stop: int, save: tuple[int, ...], state: Path | None = None, branch: bool = False
    ) -> None:
        """Run the program in a folder. Raises: ProgramError if it fails, or a checkpoint is missing afterwards."""
        program = program_of(self.dynamics)
        words = tell(
            work,
            self.dynamics,
            trajectory="verify",
            seed=self.seed,
            start_step=start,
            stop_step=stop,
            horizon_steps=self.horizon_steps,
            resume_from=str(state.resolve()) if state else None,
            branch=branch,
            save_steps=save,
            checkpoint_every_steps=None,
            log_every_steps=stop,
            report={},
            device=self.device,
            threads=self.threads,
        )
        with running(words, program, work, work / "log.txt", self.threads) as process:
            if process.wait(POLL_S) != 0:
                raise process.failed(program.name)
        for step in save:
            if not _saved(work, step).is_dir():
                raise ProgramError(f"{program.name} ended well, but left no checkpoint of step {step}")


def known_proof(home: Home, trial: Trial) -> Proof | None:
    """What was found, if that is known and can be read."""
    try:
        return Proof.model_validate_json(trial.proof(home).read_bytes())
    except (OSError, ValidationError):
        return None


def missing_proof(home: Home, trial: Trial) -> str | None:
    """Why prefixes of what is trained may not be shared yet; None where they may."""
    program = trial.dynamics.trainer
    if program is None or not trial.promised:
        return None
    promised = f"trainer {program.name} promises to resume exactly ({trial.dynamics.in_words()})"
    proof = known_proof(home, trial)
    if proof is None:
        return f"{promised}, which was never verified in {home.root}: run `study verify` on the study first"
    if proof.differing:
        return (
            f"{promised}, and `study verify` found otherwise after {proof.first_steps} + {proof.second_steps} steps "
            f"({', '.join(proof.differing[:3])}): mend it, or say 'resume: approximate'"
        )
    return None


def prove(home: Home, trials: Iterable[Trial]) -> None:
    """Verify what was not verified yet. Raises: ProgramError if a program fails, or does not keep its promise."""
    for trial in trials:
        if trial.promised and known_proof(home, trial) is None:
            verify_program(home, trial, PROOF_STEPS, PROOF_STEPS)
        if why := missing_proof(home, trial):
            raise ProgramError(why)


def trials_of(session: Session) -> list[Trial]:
    """What is to be verified before a session may run: one a dynamics, T and kind of device."""
    found: dict[str, Trial] = {}
    for node in session.tree:
        t, settings = node.trajectory, session.settings(node)
        trial = Trial(t.dynamics, t.seed, t.horizon_steps, settings["device"], settings["threads"])  # type: ignore[arg-type]
        if trial.promised:
            found.setdefault(key_of([t.dynamics.canonical(), t.horizon_steps, trial.device]), trial)
    return list(found.values())


def verify_program(home: Home, trial: Trial, first: int, second: int) -> list[str]:
    """Files in which the two ways differ, none if the promise is kept. It is recorded in the home, unless more steps
    have shown more.

    Raises: ProgramError if the program fails.
    """
    both = first + second
    with tempfile.TemporaryDirectory(prefix="study-verify-") as folder:
        whole, begun, resumed = (Path(folder) / name for name in ("whole", "begun", "resumed"))
        trial.train(whole, 0, both, (first, both))
        trial.train(begun, 0, first, (first,))
        trial.train(resumed, first, both, (both,), _saved(begun, first))
        pairs = [(_saved(whole, first), _saved(begun, first)), (_saved(whole, both), _saved(resumed, both))]
        differing = [f"step {int(a.name)}: {name}" for a, b in pairs for name in _differing(a, b)]
    assert trial.dynamics.trainer is not None
    proof = Proof(
        program=trial.dynamics.trainer.name,
        first_steps=first,
        second_steps=second,
        device=trial.device,
        differing=tuple(differing),
        time=now(),
    )
    known = known_proof(home, trial)
    as_much = known is None or (first >= known.first_steps and second >= known.second_steps)
    if differing or as_much or (known and not known.differing):
        home.verified.mkdir(parents=True, exist_ok=True)
        write_atomically(trial.proof(home), proof.model_dump_json(indent=1))
    return differing


def verify_stored_program(home: Home, trial: Trial, trajectory: str, at: Checkpoint | None, stop: int) -> list[str]:
    """Files in which a stored checkpoint differs from one trained again from where its segment began.

    Raises: ProgramError, CheckpointError.
    """
    begun = None if at is None else state_of(place_of(home, at), at._asdict())
    end = Checkpoint(trajectory, stop)
    stored = state_of(place_of(home, end), end._asdict())
    with tempfile.TemporaryDirectory(prefix="study-verify-") as folder:
        branch = at is not None and at.trajectory != trajectory
        trial.train(Path(folder), at.step if at else 0, stop, (stop,), begun, branch)
        return _differing(_saved(Path(folder), stop), stored)


def _differing(a: Path, b: Path) -> list[str]:
    """Names of the files that two folders do not have alike."""
    left, right = hashes(a), hashes(b)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def _saved(work: Path, step: int) -> Path:
    return work / CHECKPOINTS / checkpoint_name(step)
