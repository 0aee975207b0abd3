"""From command-line options to resolved studies."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from meanflow_core.words import listed
from studies.errors import StudyError, UnknownStudy
from studies.fitting import resolve_fitted
from studies.loader import BUILTIN, StudySource, builtin_names, load_source
from studies.schema import ResolvedStudy

MAX_SEEDS = 10_000


def cannot_run(studies: Sequence[str], scale: str, problems: Sequence[str]) -> StudyError:
    """The error that lists why studies cannot run at a scale."""
    listed = "\n".join(f"  - {problem}" for problem in problems)
    return StudyError(f"{', '.join(studies)} cannot run at scale {scale} yet:\n{listed}")


def parse_seeds(text: str | None) -> list[int] | None:
    """``0-3,7`` → [0, 1, 2, 3, 7]. Raises: StudyError."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,10})(?:-([0-9]{1,10}))?\s*", part)
        if not found:
            raise StudyError(f"--seeds {text}: '{part}' is neither a seed nor a range; write e.g. 0-5 or 0,3,7")
        low = int(found[1])
        high = int(found[2]) if found[2] else low
        if high < low or high - low >= MAX_SEEDS:
            raise StudyError(f"--seeds {text}: the range {part.strip()} is empty or too long")
        if high >= 2**32:
            raise StudyError(f"--seeds {text}: seeds are whole numbers from 0 to {2**32 - 1}")
        seeds.extend(range(low, high + 1))
    if len(set(seeds)) != len(seeds):
        raise StudyError(f"--seeds {text}: a seed stands twice")
    return seeds


def in_ranges(seeds: Sequence[int]) -> str:
    """[0, 1, 2, 3, 7] → ``0-3,7``, as `parse_seeds` reads it."""
    said: list[list[int]] = []
    for seed in sorted(seeds):
        if said and seed == said[-1][-1] + 1:
            said[-1].append(seed)
        else:
            said.append([seed])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in said)


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, without importing torch."""
    if not shutil.which("nvidia-smi"):
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def default_scale(source: StudySource) -> tuple[str, str]:
    """(scale, why). Raises: StudyError if none can be chosen."""
    if "gpu" in source.scales and has_gpu():
        return "gpu", "there is a GPU"
    if "cpu" in source.scales:
        return "cpu", "the default without a GPU" if "gpu" in source.scales else "the default"
    raise StudyError(f"study '{source.name}' has no default scale; choose one with --scale: {listed(source.scales)}")


def check_own_name(source: StudySource) -> None:
    """A user's study may not take a built-in's name, or their results would mix. Raises: StudyError."""
    path = source.files[0].path
    if source.name in builtin_names() and path.resolve().parent != BUILTIN.resolve():
        raise StudyError(f"{path}: '{source.name}' is the name of a built-in study; give yours another ('study: ...')")


def check_variant(overrides: Sequence[str], variant: str | None) -> None:
    """Overrides and a name go together. Raises: StudyError."""
    if overrides and not variant:
        raise StudyError(
            "overrides need a name of their own: add --as NAME, so that they never mix with the study's arms"
        )
    if variant and not overrides:
        raise StudyError(
            f"--as {variant}: there is nothing to name; it goes with the overrides that make it (-o key=value)"
        )
    if variant and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,59}", variant):
        raise StudyError(f"--as {variant}: a name has letters, digits, '_', '-' and '.', at most 60 of them")


def choose(
    names: Sequence[str],
    scale: str | None,
    seeds: str | None,
    overrides: Sequence[str],
    variant: str | None,
    panel: str | None = None,
    home: Path | None = None,
) -> tuple[list[ResolvedStudy], str]:
    """The studies asked for at one scale, with one ``panel`` or all, and in words the choice of scale and what of them
    is left out, since it does not fit a sweep that is overridden.

    Raises: StudyError, which tells of a name that is known in ``home`` alone what is missing.
    """
    check_variant(overrides, variant)
    parsed = parse_seeds(seeds)
    sources = [source_of(name, home) for name in names]
    why = "as asked"
    if scale is None:
        scale, why = default_scale(sources[0])
    found = [resolve_fitted(source, scale, overrides, parsed, panel) for source in sources]
    studies = [study for study, _ in found]
    names = [f"{study.study}: " if len(found) > 1 else "" for study in studies]
    left_out = [f"{name}{words}" for name, (_, said) in zip(names, found, strict=True) for words in said]
    return studies, "\n".join([f"scale {scale} ({why}): {studies[0].scale_text}", *left_out])


def source_of(name: str, home: Path | None = None) -> StudySource:
    """Load a study and refuse a stolen name. Raises: StudyError, as `choose`."""
    try:
        source = load_source(name)
    except UnknownStudy:
        if home is None or not _was_run(name, home):
            raise
        raise StudyError(
            f"{home} has runs of '{name}', but it is not built in, and what it declares now stands in its file: "
            f"give its path, ./{name}.yaml"
        ) from None
    check_own_name(source)
    return source


def _was_run(study: str, home: Path) -> bool:
    from results.layout import Home
    from results.queries import ANY, latest_run
    from studies.cli.store import opened

    if not home_exists(home):
        return False
    with opened(Home(home)) as engine:
        return latest_run(engine, study=study, variant=ANY) is not None


def study_of_figure(number: int, table: bool = False) -> tuple[str, str | None]:
    """The built-in study that draws a figure or makes a table, and the scale that does where it is only one.

    Raises: StudyError that lists what there is.
    """
    from reports.catalogue import paper_elements

    kind = "tables" if table else "figures"
    found = {one.number: (one.study, one.scale) for one in paper_elements() if one.kind == kind}
    if number in found:
        return found[number]
    there = ", ".join(str(n) for n in sorted(found)) or "none"
    raise StudyError(f"no study makes {kind[:-1]} {number} (available: {there}); see `study list`")


def home_exists(home: Path) -> bool:
    return (home / "runs").is_dir() or (home / "store.sqlite").is_file()
