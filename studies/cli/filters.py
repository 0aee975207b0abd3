"""The options of all commands that look at what a home holds, or act on it: which studies, arms, seeds and work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from meanflow_core.words import there_is
from studies.errors import StudyError

if TYPE_CHECKING:
    from sweeps.selection import Filter, Kind, Standing

FILE = re.compile(r"(.+\.ya?ml)(/.*)?")

WhatArg = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="WHAT",
        help="Studies and arms that were run: patterns over study/panel/arm such as 'obs_*' or 'tiny/left/v*', a "
        "study's name or file, or an arm's name. Default: all.",
        show_default=False,
    ),
]
OneScaleOpt = Annotated[
    str | None, typer.Option("--scale", metavar="PATTERN", help="Only this scale (or pattern). Default: all.")
]
OneVariantOpt = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="PATTERN", help="Only this variant (or pattern); '-': only without one. Default: all."
    ),
]
OneSeedsOpt = Annotated[
    str | None, typer.Option("--seeds", metavar="LIST", help="Only these seeds, e.g. 0-5 or 0,3,7. Default: all.")
]
StatusOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        metavar="LIST",
        help="Only what is done, running, queued, missing, failed, preempted or lost; several: failed,lost.",
    ),
]
KindOpt = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only 'train' or only 'evaluate'.")]


def chosen(
    what: Sequence[str] | None = None,
    scale: str | None = None,
    variant: str | None = None,
    seeds: str | None = None,
    status: Sequence[str] | None = None,
    kind: str | None = None,
) -> Filter:
    """The filter that options ask for. Raises: StudyError."""
    from studies.cli.choose import parse_seeds
    from sweeps.selection import Filter

    given = parse_seeds(seeds)
    return Filter(
        what=tuple(_named(one) for one in what or ()),
        scale=scale,
        variant=variant,
        seeds=None if given is None else frozenset(given),
        standings=frozenset(_standing(word) for words in status or () for word in words.split(",")),
        kind=_kind(kind),
    )


def _named(pattern: str) -> str:
    """``./mine.yaml/left/v2`` by the name of its study. Raises: StudyError if the file cannot be read."""
    from studies.cli.choose import source_of

    found = FILE.fullmatch(pattern)
    if found is None:
        if not pattern.strip("/"):
            raise StudyError(f"'{pattern}' names nothing; write study/panel/arm, or leave out what may be any")
        return pattern
    return source_of(found[1]).name + (found[2] or "")


def _standing(word: str) -> Standing:
    from sweeps.selection import STANDINGS

    for standing in STANDINGS:
        if standing == word.strip():
            return standing
    raise StudyError(f"--status {word}: nothing stands so{there_is(word, STANDINGS)}")


def _kind(word: str | None) -> Kind | None:
    from sweeps.selection import KINDS

    for kind in KINDS:
        if kind == word:
            return kind
    if word is None:
        return None
    raise StudyError(f"--kind {word}: there is no such kind of work{there_is(word, KINDS)}")
