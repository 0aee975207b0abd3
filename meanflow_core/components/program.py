"""A trainer of your own: any program that keeps the worker's protocol (docs/worker-protocol.md). Torch-free.

What decides a training step and its samples is the program: its commands with their files, its version and its options.
So these stand in the keys of what it trains. How its processes are started (``launch``) does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from meanflow_core.registry import Params, register
from meanflow_core.sha import file_sha256

SEGMENT, REQUEST, PYTHON = "{segment}", "{request}", "{python}"


class ProgramFile(Params):
    """A file that a program is made of, and the sha256 of what it held when the study was read."""

    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def changed(self) -> str | None:
        """Why it is not the file that was meant; None where it is."""
        try:
            same = file_sha256(Path(self.file)) == self.sha256
        except OSError as error:
            return f"{self.file} cannot be read: {error.strerror}"
        said = "is not what it was when this was planned: put the old text back, or plan anew"
        return None if same else f"{self.file} {said}"


Word = str | ProgramFile


class Program(Params):
    """How a trainer of your own is started, and what it promises.

    In the words of ``command`` the text ``{segment}`` stands for the file that says what to train, in those of
    ``sampler`` ``{request}`` for the one that says what to sample; ``{python}`` is the interpreter of this program.
    ``launch`` goes before the command: what starts several processes, say. ``files`` are what else it is made of.

    ``resume`` is what it promises of training n steps, saving, restoring and training m: ``exact``, the same files as
    training n + m; ``approximate``, something as good; ``none``, it cannot restore. A trajectory that is not exact is
    trained from its start to its end, ``until_step``, which is set where a stage is placed and stands in its key.

    ``uses_horizon``: it depends on T, the length of the whole arm. ``grace_s`` is how long it may take to stop.
    """

    command: tuple[Word, ...] = Field(min_length=1)
    resume: Literal["exact", "approximate", "none"]
    version: PositiveInt = 1
    options: dict[str, JsonValue] = {}
    sampler: tuple[Word, ...] | None = None
    files: tuple[ProgramFile, ...] = ()
    launch: tuple[str, ...] = ()
    uses_horizon: bool = False
    grace_s: PositiveFloat = 60.0
    until_step: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _told_what_to_do(self) -> Self:
        for name, words, needed in (("command", self.command, SEGMENT), ("sampler", self.sampler, REQUEST)):
            if words is not None and not any(isinstance(word, str) and needed in word for word in words):
                raise ValueError(f"no word of the {name} has '{needed}', the file that says what to do")
            for word in words or ():
                if isinstance(word, str) and word.startswith(("./", "../")):
                    raise ValueError(f"'{word}' comes by an attribute, and a file must stand in the {name} itself")
        return self

    @property
    def held(self) -> bool:
        """Whether a trajectory of it is trained whole, or not at all."""
        return self.resume != "exact"

    @property
    def name(self) -> str:
        """What people call it: its first file, or else its first word."""
        named = next((word.file for word in self.command if isinstance(word, ProgramFile)), None)
        return Path(named or str(self.command[0])).name

    def made_of(self) -> tuple[ProgramFile, ...]:
        """All its files."""
        words = (*self.command, *(self.sampler or ()))
        return tuple(dict.fromkeys((*(word for word in words if isinstance(word, ProgramFile)), *self.files)))

    def changed(self) -> list[str]:
        """What of its files is not as it was when the study was read."""
        return [said for file in self.made_of() if (said := file.changed()) is not None]

    def canonical(self) -> dict[str, Any]:
        """What stands in the key of a trajectory; files by their hashes, wherever they lie."""
        out: dict[str, Any] = {"command": _hashed(self.command), "resume": self.resume, "version": self.version}
        if self.sampler is not None:
            out["sampler"] = _hashed(self.sampler)
        if self.files:
            out["files"] = [file.sha256 for file in self.files]
        if self.options:
            out["options"] = self.options
        if self.uses_horizon:
            out["uses_horizon"] = True
        if self.until_step is not None:
            out["until_step"] = self.until_step
        return out


def _hashed(words: tuple[Word, ...]) -> list[str]:
    return [f"sha256:{word.sha256}" if isinstance(word, ProgramFile) else word for word in words]


@register("network", "program", version=1, impl="meanflow_core.networks.program:build")
class ProgramNetworkParams(Params):
    """The network that a trainer of your own has, of which nothing is known here."""

    def problem_in(self, dynamics: Any) -> str | None:
        if dynamics.trainer is None:
            return "the network 'program' is inside a trainer of your own: say which one (trainer: {command: [...]})"
        return None


@register("metric", "reported", version=1, impl="meanflow_core.evaluation.reported:Reported")
class ReportedParams(Params):
    """A number that a trainer of your own reports among the metrics of the step, under the name ``key``."""

    observed: ClassVar[bool] = True
    any_weights: ClassVar[bool] = True

    key: Annotated[str, Field(min_length=1)]

    def label(self, name: str) -> str:
        return self.key
